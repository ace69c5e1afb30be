"""From an accepted request to its answer: tasks, their time-outs, the rows that work on them."""

from libc.string cimport memcpy, memset, strlen
from posix.unistd cimport close, write

from mosec_cy._batcher cimport (
    NEVER,
    NO_INDEX,
    RUNNING,
    WITHDRAWN,
    Row,
    Stage,
    Task,
    batcher_complete,
    batcher_deadline,
    batcher_enqueue,
    batcher_next_batch,
    batcher_row_down,
    batcher_row_drain,
    batcher_row_up,
    batcher_take_back,
    batcher_withdraw,
    task_free,
    task_id,
    task_new,
    task_of,
)
from mosec_cy._http1_service cimport BodyBlock, Verdict
from mosec_cy._http_parser cimport HttpRequest
from mosec_cy._linux cimport load_acquire_u32, load_relaxed_u64, mosec_futex_wake, mosec_pidfd_send_signal, store_release_u32, store_relaxed_u64
from mosec_cy._pool cimport (
    POOL_PAYLOAD_OFFSET,
    pool_allocate,
    pool_block_data,
    pool_block_size,
    pool_check,
    pool_drop_core,
    pool_lessee,
    pool_sweep,
    pool_take_over,
)
from mosec_cy._ring cimport NO_BLOCK, RING_BROKEN, RING_OK, Descriptor, bell_ring, ring_free, ring_has_news, ring_pop, ring_publish, ring_push, ring_release, ring_reset
from mosec_cy._router cimport MATCH_FOUND, MATCH_NO_METHOD, MATCH_OPTIONS, ROUTE_NONE, RouteMatch, router_match
from mosec_cy._segment cimport PHASE_FORWARD, STATUS_COUNT, histogram_add_count, histogram_add_ns, status_index

cdef extern from "<signal.h>" nogil:
    int SIGALRM, SIGKILL

cdef const char *ALIVE = b"MOSEC service"
cdef const char *NOTHING = b""
cdef const char *NOT_ALLOWED = b"method not allowed"
cdef const char *OVERLOADED = b"too many request: task queue is full"
cdef const char *STOPPING = b"gracefully shutting down"
cdef const char *WORKER_DIED = b"inference internal error: the worker process died"
cdef const char *NO_MEMORY = b"inference internal error: no shared memory for the answer (--budget)"
cdef const char *SPOILT = b"inference internal error: the worker sent an impossible answer"


# ---- payload blocks ------------------------------------------------------------------------------


cdef inline void _charge(Service *s, uint32_t block) noexcept nogil:
    s.charged += pool_block_size(&s.pool, block)
    store_relaxed_u64(&s.statistics.charged, s.charged)      # relaxed: a gauge


cdef void _drop(Service *s, uint32_t block) noexcept nogil:
    if block != NO_BLOCK:
        s.charged -= pool_block_size(&s.pool, block)
        store_relaxed_u64(&s.statistics.charged, s.charged)  # relaxed: a gauge
        pool_drop_core(&s.pool, block)


cdef int _reserve(void *context, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint32_t block
    if s.charged + n > s.charge_limit:
        return -1
    block = pool_allocate(&s.pool, n + POOL_PAYLOAD_OFFSET, 0)
    if block == NO_BLOCK:
        return -1
    _charge(s, block)
    body.block = block
    body.data = pool_block_data(&s.pool, block) + POOL_PAYLOAD_OFFSET
    body.capacity = pool_block_size(&s.pool, block) - POOL_PAYLOAD_OFFSET
    return 0


cdef int _grow(void *context, uint64_t used, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef BodyBlock larger
    if _reserve(context, n, &larger) != 0:
        return -1
    memcpy(larger.data, body.data, used)
    _drop(<Service *>context, body.block)
    body[0] = larger
    return 0


cdef void _discard(void *context, uint32_t block) noexcept nogil:
    _drop(<Service *>context, block)


# ---- requests in ---------------------------------------------------------------------------------


cdef inline void _verdict(Verdict *verdict, int status, const char *text) noexcept nogil:
    verdict.status = status
    verdict.text = text


cdef bint _queue_is_full(Service *s, uint32_t route) noexcept nogil:
    return s.batcher.stages[s.routes[route].stages[0]].waiting >= s.capacity


cdef void _judge(void *context, const HttpRequest *request, const char *path, size_t path_n, Verdict *verdict, bint *wants_target) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint32_t route = ROUTE_NONE
    cdef RouteMatch match
    if path_n == 1 and path[0] == 42:                        # '*': OPTIONS of the server as a whole
        _verdict(verdict, 204, NOTHING)
        verdict.allow = b"GET, HEAD, POST, OPTIONS"
        verdict.route = ROUTE_NONE
        return
    match = router_match(s.routes, s.route_count, request.method, path, path_n, &route)
    verdict.route = ROUTE_NONE
    if match == MATCH_NO_METHOD or match == MATCH_OPTIONS:
        _verdict(verdict, <int>match, NOTHING if match == MATCH_OPTIONS else NOT_ALLOWED)
        verdict.allow = s.routes[route].allow
    elif match != MATCH_FOUND:
        _verdict(verdict, 404, b"not found")
    elif s.routes[route].stage_count == 0:
        _verdict(verdict, 503 if s.draining else 200, STOPPING if s.draining else ALIVE)
    elif s.draining:
        _verdict(verdict, 503, STOPPING)
        verdict.route = route
    elif _queue_is_full(s, route):
        _verdict(verdict, 429, OVERLOADED)
        verdict.route = route
    else:
        verdict.route = route
        wants_target[0] = s.routes[route].stages[0] == 0     # the master's own routes


cdef void _timer_append(Service *s, uint32_t slot) noexcept nogil:
    cdef Task *task = &s.batcher.tasks[slot]
    task.timer_next = NO_INDEX
    task.timer_previous = s.timer_tail
    if s.timer_tail == NO_INDEX:
        s.timer_head = slot
    else:
        s.batcher.tasks[s.timer_tail].timer_next = slot
    s.timer_tail = slot


cdef void _timer_remove(Service *s, uint32_t slot) noexcept nogil:
    cdef Task *task = &s.batcher.tasks[slot]
    if task.timer_previous == NO_INDEX:
        s.timer_head = task.timer_next
    else:
        s.batcher.tasks[task.timer_previous].timer_next = task.timer_next
    if task.timer_next == NO_INDEX:
        s.timer_tail = task.timer_previous
    else:
        s.batcher.tasks[task.timer_next].timer_previous = task.timer_previous


cdef inline void _gauge(Service *s) noexcept nogil:
    store_relaxed_u64(&s.statistics.remaining, s.inside)     # relaxed: a gauge


cdef void _submit(void *context, uint32_t connection, uint32_t generation, uint32_t route, uint32_t block,
                  uint64_t length, uint64_t *id, Verdict *verdict) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint32_t slot = NO_INDEX
    cdef Task *task
    verdict.allow = NULL
    if s.draining:
        _verdict(verdict, 503, STOPPING)
    elif _queue_is_full(s, route):
        _verdict(verdict, 429, OVERLOADED)
    else:
        slot = task_new(&s.batcher)
        if slot == NO_INDEX:
            _verdict(verdict, 503, b"service has no room for another request (--max-connections)")
    if slot == NO_INDEX:
        _drop(s, block)
        return
    task = &s.batcher.tasks[slot]
    task.position = 0
    task.route = route
    task.connection = connection
    task.connection_generation = generation
    task.block = block
    task.offset = POOL_PAYLOAD_OFFSET
    task.length = length
    task.flags = 0
    task.arrived_at = s.now
    _timer_append(s, slot)
    s.inside += 1
    _gauge(s)
    id[0] = task_id(&s.batcher, slot)
    batcher_enqueue(&s.batcher, slot, s.routes[route].stages[0], s.now)
    _dispatch(s, s.routes[route].stages[0])


cdef void _detach(Service *s, uint32_t slot) noexcept nogil:
    # Nobody waits for this task any more. It goes at once if no row has started it, else when that row is done.
    cdef Task *task = &s.batcher.tasks[slot]
    _timer_remove(s, slot)
    task.connection = NO_INDEX
    s.inside -= 1
    _gauge(s)
    if batcher_withdraw(&s.batcher, slot) == WITHDRAWN:
        _drop(s, task.block)
        task_free(&s.batcher, slot)


cdef void _withdraw(void *context, uint64_t id) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint32_t slot = task_of(&s.batcher, id)
    if slot != NO_INDEX and s.batcher.tasks[slot].connection != NO_INDEX:
        _detach(s, slot)


cdef void _counted(void *context, uint32_t route, int status, uint64_t arrived) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint64_t *counts
    if route >= s.route_count - 1:     # the last one is "/": counted with what matched no route
        route = s.route_count - 1
    counts = s.status_counts + <size_t>route * STATUS_COUNT
    store_relaxed_u64(&counts[status_index(status)], counts[status_index(status)] + 1)       # relaxed: core alone writes


cdef void service_bind(Service *s, Http1Service *calls) noexcept nogil:
    calls.context = s
    calls.judge = _judge
    calls.reserve = _reserve
    calls.grow = _grow
    calls.discard = _discard
    calls.submit = _submit
    calls.withdraw = _withdraw
    calls.released = _discard
    calls.counted = _counted


# ---- to the rows ---------------------------------------------------------------------------------


cdef void _wake(Link *link) noexcept nogil:
    cdef uint64_t one = 1
    if bell_ring(&link.shared.bell):
        if link.wake_fd >= 0:
            write(link.wake_fd, &one, sizeof(one))
        else:
            mosec_futex_wake(&link.shared.bell.counter, 1)


cdef void _hand_out(Service *s, uint32_t row, uint32_t n) noexcept nogil:
    # Tasks of s.scratch to the row's ring, seen by the row all at once.
    cdef Link *link = &s.links[row]
    cdef Descriptor d
    cdef Task *task
    cdef uint32_t i
    memset(&d, 0, sizeof(Descriptor))
    d.batch_size = n
    for i in range(n):
        task = &s.batcher.tasks[s.scratch[i]]
        d.task = task_id(&s.batcher, s.scratch[i])
        d.sequence = task.sequence
        d.block = task.block
        d.offset = task.offset
        d.length = task.length
        d.batch = task.batch
        d.flags = task.flags
        if task.position == 0:
            d.flags |= TASK_FIRST
        if task.position + 1u == s.routes[task.route].stage_count:
            d.flags |= TASK_LAST
        ring_push(&link.submit, &d)
    ring_publish(&link.submit)
    _wake(link)


cdef void _observe_batch(Service *s, uint32_t stage, uint32_t row, uint32_t n) noexcept nogil:
    cdef Link *link = &s.links[row]
    if s.batcher.stages[stage].max_batch_size > 1:
        histogram_add_count(&link.statistics.batch_size, n)
        histogram_add_ns(&link.statistics.batch_duration, s.now - s.batcher.tasks[s.scratch[0]].queued_at)
    if s.stage_timeouts[stage] and link.check_at == NEVER:
        link.check_at = s.now + s.stage_timeouts[stage]


cdef void _dispatch(Service *s, uint32_t stage) noexcept nogil:
    cdef Stage *st = &s.batcher.stages[stage]
    cdef uint32_t n
    cdef uint32_t row = 0
    if st.waiting == 0:
        return
    for row in range(st.first_row, st.first_row + st.rows):
        s.batcher.rows[row].room = ring_free(&s.links[row].submit)
    while True:
        n = batcher_next_batch(&s.batcher, stage, s.now, s.scratch, &row)
        if n == 0:
            return
        _hand_out(s, row, n)
        _observe_batch(s, stage, row, n)


# ---- from the rows -------------------------------------------------------------------------------


cdef void _finish(Service *s, uint32_t slot, int status, uint32_t content_type, const uint8_t *payload, uint64_t length,
                  uint32_t block) noexcept nogil:
    # The answer to the client, if it still waits; `block` is core's and goes with it. The task ends.
    cdef Task *task = &s.batcher.tasks[slot]
    cdef Answer answer
    cdef bint taken = False
    if task.connection != NO_INDEX:
        _timer_remove(s, slot)
        s.inside -= 1
        _gauge(s)
        if status == 200:
            histogram_add_ns(&s.statistics.total, s.now - task.arrived_at)
        answer.status = status
        answer.content_type = s.content_types[content_type].text
        answer.content_type_n = s.content_types[content_type].n
        answer.payload = payload
        answer.payload_n = length
        answer.block = block
        answer.extra = NULL
        answer.extra_n = 0
        taken = s.answer(s.io, task.connection, task.connection_generation, &answer)
    else:
        store_relaxed_u64(&s.statistics.late, s.statistics.late + 1)       # relaxed: core alone writes
    if not taken:
        _drop(s, block)
    task_free(&s.batcher, slot)


cdef void _finish_text(Service *s, uint32_t slot, int status, const char *text) noexcept nogil:
    _finish(s, slot, status, 0, <const uint8_t *>text, strlen(text), NO_BLOCK)


cdef void _settle(Service *s, uint32_t slot, const Descriptor *d) noexcept nogil:
    # A checked completion of a task that is core's again: on to the next stage, or to the client.
    cdef Task *task = &s.batcher.tasks[slot]
    cdef const Route *route = &s.routes[task.route]
    cdef uint32_t stage
    if task.connection == NO_INDEX or d.status != 200 or task.position + 1u >= route.stage_count:
        if d.block == NO_BLOCK and d.status != 200:
            _finish_text(s, slot, d.status, NO_MEMORY)
        else:
            _finish(s, slot, d.status, d.content_type,
                    NULL if d.block == NO_BLOCK else pool_block_data(&s.pool, d.block) + d.offset, d.length, d.block)
        return
    task.position += 1
    task.block = d.block
    task.offset = d.offset
    task.length = d.length
    task.flags = d.flags & PAYLOAD_FRAMED
    stage = route.stages[task.position]
    batcher_enqueue(&s.batcher, slot, stage, s.now)
    _dispatch(s, stage)


cdef bint _sound(Service *s, uint32_t row, Descriptor *d) noexcept nogil:
    # What the row says of its answer, checked; afterwards the block is core's. False: the answer is impossible.
    if d.content_type >= s.content_type_count or d.status < 200 or d.status > 599:
        return False
    if d.block == NO_BLOCK:
        return d.length == 0
    return pool_check(&s.pool, d.block, d.offset, d.length) == 0


cdef void _complete(Service *s, uint32_t row, Descriptor *d) noexcept nogil:
    cdef Link *link = &s.links[row]
    cdef uint32_t slot = task_of(&s.batcher, d.task)
    cdef uint64_t batch_ns = 0
    cdef uint32_t stage = s.batcher.rows[row].stage
    cdef bint sound = _sound(s, row, d)
    if sound and d.block != NO_BLOCK:
        if pool_take_over(&s.pool, d.block, link.lessee) == 0:
            _charge(s, d.block)
        else:
            sound = False
    if slot == NO_INDEX or not batcher_complete(&s.batcher, row, slot, d.sequence, s.now, &batch_ns):
        if sound:
            _drop(s, d.block)
        return
    if batch_ns:
        if d.status == 200:
            histogram_add_ns(&link.statistics.duration, batch_ns)
        link.kill_at = NEVER
        link.check_at = NEVER
        if s.stage_timeouts[stage] and s.batcher.rows[row].outstanding:
            link.check_at = s.now + s.stage_timeouts[stage]
    _drop(s, s.batcher.tasks[slot].block)
    s.batcher.tasks[slot].block = NO_BLOCK
    if sound:
        _settle(s, slot, d)
    else:
        _finish_text(s, slot, 500, SPOILT)


cdef void _kill(Link *link) noexcept nogil:
    if link.pidfd >= 0 and not link.killed:
        link.killed = True
        mosec_pidfd_send_signal(link.pidfd, SIGKILL)


cdef void _poll_row(Service *s, uint32_t row) noexcept nogil:
    cdef Link *link = &s.links[row]
    cdef Descriptor d
    cdef bint any = False
    cdef int rc = ring_pop(&link.complete, &d)
    while rc == RING_OK:
        any = True
        _complete(s, row, &d)
        rc = ring_pop(&link.complete, &d)
    if rc == RING_BROKEN:
        _kill(link)                    # its death does the rest
        return
    if any:
        ring_release(&link.complete)
        _dispatch(s, s.batcher.rows[row].stage)


cdef void service_poll(Service *s) noexcept nogil:
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        if ring_has_news(&s.links[row].complete) and not s.links[row].killed:
            _poll_row(s, row)


cdef bint service_has_news(Service *s) noexcept nogil:
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        if ring_has_news(&s.links[row].complete) and not s.links[row].killed:
            return True
    return False


# ---- time ----------------------------------------------------------------------------------------


cdef void _time_out(Service *s, uint32_t slot, const char *text) noexcept nogil:
    cdef Task *task = &s.batcher.tasks[slot]
    cdef Answer answer
    answer.status = 408
    answer.content_type = s.content_types[0].text
    answer.content_type_n = s.content_types[0].n
    answer.payload = <const uint8_t *>text
    answer.payload_n = strlen(text)
    answer.block = NO_BLOCK
    answer.extra = NULL
    answer.extra_n = 0
    s.answer(s.io, task.connection, task.connection_generation, &answer)
    _detach(s, slot)


cdef void _overrun(Service *s, uint32_t row, uint32_t batch) noexcept nogil:
    # `forward` has used up the stage's time: its clients are answered, the worker is told, and gets a period of grace.
    cdef Link *link = &s.links[row]
    cdef uint32_t slot = s.batcher.rows[row].head
    cdef uint32_t next
    while slot != NO_INDEX:
        next = s.batcher.tasks[slot].next
        if s.batcher.tasks[slot].batch == batch and s.batcher.tasks[slot].connection != NO_INDEX:
            _time_out(s, slot, b"mosec timeout error: `forward` timeout")
        slot = next
    store_release_u32(&link.shared.overdue, batch)           # pairs with the acquire in Channel.overdue
    if link.pidfd >= 0:
        mosec_pidfd_send_signal(link.pidfd, SIGALRM)
    link.kill_at = s.now + s.kill_grace
    s.report(s.control, REPORT_ROW_OVERDUE, row, batch)


cdef void _check_row(Service *s, uint32_t row) noexcept nogil:
    cdef Link *link = &s.links[row]
    cdef uint64_t timeout = s.stage_timeouts[s.batcher.rows[row].stage]
    cdef uint32_t phase = load_acquire_u32(&link.shared.phase)      # pairs with the release in Channel.enter
    cdef uint32_t batch = load_acquire_u32(&link.shared.batch)
    cdef uint64_t since = load_relaxed_u64(&link.shared.since)      # the row's own word: at worst it harms itself
    if link.kill_at <= s.now:
        link.kill_at = NEVER
        if phase == PHASE_FORWARD and batch == load_acquire_u32(&link.shared.overdue):
            _kill(link)
            s.report(s.control, REPORT_ROW_KILLED, row, batch)
    if link.check_at <= s.now:
        link.check_at = s.now + timeout
        if phase == PHASE_FORWARD:
            if since + timeout <= s.now:
                link.check_at = NEVER
                _overrun(s, row, batch)
            elif since + timeout < link.check_at:
                link.check_at = since + timeout


cdef void service_expire(Service *s) noexcept nogil:
    cdef uint32_t i, slot
    while s.timer_head != NO_INDEX and s.batcher.tasks[s.timer_head].arrived_at + s.timeout <= s.now:
        slot = s.timer_head
        _time_out(s, slot, b"inference timeout")
    for i in range(s.batcher.row_count):
        if s.links[i].check_at <= s.now or s.links[i].kill_at <= s.now:
            _check_row(s, i)
    batcher_take_back(&s.batcher, s.now)
    for i in range(s.batcher.stage_count):
        _dispatch(s, i)


cdef uint64_t service_deadline(Service *s) noexcept nogil:
    cdef uint64_t soonest = batcher_deadline(&s.batcher, s.now)
    cdef uint64_t at
    cdef uint32_t row
    if s.timer_head != NO_INDEX:
        at = s.batcher.tasks[s.timer_head].arrived_at + s.timeout
        if at < soonest:
            soonest = at
    for row in range(s.batcher.row_count):
        at = s.links[row].check_at if s.links[row].check_at < s.links[row].kill_at else s.links[row].kill_at
        if at < soonest:
            soonest = at
    return soonest


# ---- life of a row -------------------------------------------------------------------------------


cdef void service_row_started(Service *s, uint32_t row, uint32_t incarnation, int32_t pid, int pidfd) noexcept nogil:
    cdef Link *link = &s.links[row]
    link.incarnation = incarnation
    link.lessee = pool_lessee(row, incarnation)
    link.pid = pid
    link.pidfd = pidfd
    link.killed = False
    link.check_at = NEVER
    link.kill_at = NEVER


cdef void service_row_ready(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil:
    if s.links[row].incarnation == incarnation:
        batcher_row_up(&s.batcher, row)
        _dispatch(s, s.batcher.rows[row].stage)


cdef void service_row_drain(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil:
    if s.links[row].incarnation == incarnation:
        batcher_row_drain(&s.batcher, row)
        _dispatch(s, s.batcher.rows[row].stage)


cdef void service_row_dead(Service *s, uint32_t row) noexcept nogil:
    # The process has ended (its pidfd says so, not a signal that was sent): what it completed counts, what it had
    # started is answered, what it had not goes to others. Only then its claims are cleared and its rings made new.
    cdef Link *link = &s.links[row]
    cdef uint32_t i, n, slot
    _poll_row(s, row)
    n = batcher_row_down(&s.batcher, row, s.scratch)
    for i in range(n):
        slot = s.scratch[i]
        _drop(s, s.batcher.tasks[slot].block)
        s.batcher.tasks[slot].block = NO_BLOCK
        _finish_text(s, slot, 500, WORKER_DIED)
    pool_sweep(&s.pool, link.lessee)
    ring_reset(&link.submit)
    ring_reset(&link.complete)
    close(link.pidfd)
    link.pidfd = -1
    link.check_at = NEVER
    link.kill_at = NEVER
    s.report(s.control, REPORT_ROW_DEAD, row, n)
    _dispatch(s, s.batcher.rows[row].stage)
