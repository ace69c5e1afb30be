"""From an accepted request to its answer: what HTTP asks of the service, and what the loop tells it."""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, strlen
from posix.unistd cimport close

from mosec_cy._engine.batcher cimport (
    NO_INDEX,
    TASK_FREE,
    TASK_QUEUED,
    Row,
    Stage,
    Task,
    batcher_deadline,
    batcher_enqueue,
    batcher_retry,
    batcher_row_down,
    batcher_row_drain,
    batcher_row_up,
    batcher_take_back,
    stage_forecast,
    task_id,
    task_new,
    task_of,
)
from mosec_cy._engine.dispatch cimport (
    PROBE_LIVE,
    PROBE_READY,
    REPORT_ROW_DEAD,
    SERVICE_TIMEOUT,
    Link,
    block_charge,
    block_drop,
    row_forget_batch,
    row_poll,
    row_report_idle,
    rows_deadline,
    rows_dispatch,
    rows_expire,
    rows_have_news,
    rows_poll,
    rows_wake,
    stream_acknowledge,
    stream_admit,
    task_admit,
    task_end_text,
    task_fail,
    task_leave,
    tasks_deadline,
    tasks_expire,
)
from mosec_cy._engine.http_request cimport (
    CODING_GZIP,
    CODING_ZSTD,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_OPTIONS,
    TIMEOUT_MALFORMED,
    HttpCoding,
    http_accepted_coding,
    http_content_coding,
    http_request_timeout,
)
from mosec_cy._engine.linux cimport NEVER, load_acquire_u64, store_relaxed_u64
from mosec_cy._engine.pool cimport (
    POOL_PAYLOAD_OFFSET,
    pool_allocate,
    pool_block_data,
    pool_block_size,
    pool_lessee,
    pool_sweep,
    trimmer_run,
)
from mosec_cy._engine.ring cimport (
    ANSWER_GZIP,
    ANSWER_NOT_PLAIN,
    ANSWER_ZSTD,
    BODY_GZIP,
    BODY_ZSTD,
    NO_BLOCK,
    ring_reset,
)
from mosec_cy._engine.segment cimport STATUS_COUNT, status_index

# ---- health --------------------------------------------------------------------------------------

# Whether stages have workers and whether these get on.
#
# A stage is stalled when each of its rows that may work has had work for longer than the stage's patience without taking
# or answering anything. A row with the same pulse and with work at two looks had work all the time between them, and did
# nothing: tasks that came meanwhile would have been taken, or lie in its ring behind those that it has not taken.
#
# So a stage without any row is not stalled (it is not ready: its models may take minutes to load), nor is one that is
# overloaded: it gets on.

cdef inline bint _same(const Pulse *a, const Pulse *b) noexcept nogil:
    return a.incarnation == b.incarnation and a.taken == b.taken and a.answered == b.answered


cdef uint64_t _watch(Vigil *vigil, uint64_t busy_since, const Pulse *pulse, uint64_t now) noexcept nogil:
    # What the caller knows may be later than the truth: work that is withdrawn and handed out anew starts its clock
    # anew. Or earlier: who answers a batch one by one has had work all along, but has got on since the last look.
    if busy_since == HEALTH_IDLE or vigil.since == HEALTH_IDLE or not _same(&vigil.pulse, pulse):
        vigil.since = max(vigil.looked_at, busy_since)
    vigil.pulse = pulse[0]
    vigil.looked_at = now
    return vigil.since


cdef void health_init(Health *h, Vigil *vigils, uint32_t row_count, StageHealth *stages,
                      uint32_t stage_count) noexcept nogil:
    cdef uint32_t row
    h[0] = Health(vigils=vigils, stages=stages, row_count=row_count, stage_count=stage_count)
    for row in range(row_count):
        vigils[row].since = HEALTH_IDLE


cdef void health_begin(Health *h) noexcept nogil:
    cdef uint32_t stage
    for stage in range(h.stage_count):
        h.stages[stage].ready = h.stages[stage].watched = h.stages[stage].stuck = 0


cdef void health_row(Health *h, uint32_t row, uint32_t stage, bint ready, uint64_t busy_since, const Pulse *pulse,
                     uint64_t now) noexcept nogil:
    cdef StageHealth *of = &h.stages[stage]
    cdef uint64_t since = _watch(&h.vigils[row], busy_since, pulse, now)
    of.ready += ready
    of.watched += ready or since != HEALTH_IDLE
    of.stuck += since <= now and now - since > of.patience


cdef uint32_t health_lacking(const Health *h) noexcept nogil:
    cdef uint32_t stage
    for stage in range(h.stage_count):
        if h.stages[stage].ready == 0:
            return stage
    return HEALTH_ALL_WELL


cdef uint32_t health_stalled(const Health *h) noexcept nogil:
    cdef uint32_t stage
    for stage in range(h.stage_count):
        if h.stages[stage].stuck and h.stages[stage].stuck == h.stages[stage].watched:
            return stage
    return HEALTH_ALL_WELL


cdef const char *NOTHING = b""
cdef const char *NOT_ALLOWED = b"method not allowed"
cdef const char *NOT_FOUND = b"not found"
cdef const char *NO_ROOM = b"service has no room for another request (--max-connections)"
cdef const char *WORKER_DIED = b"inference internal error: the worker process died"


# ---- payload blocks ------------------------------------------------------------------------------


cdef int _claim(Service *s, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef uint32_t block = pool_allocate(&s.pool, n + POOL_PAYLOAD_OFFSET, 0)
    if block == NO_BLOCK:
        return MEMORY_FULL
    block_charge(s, block)
    body.block = block
    body.data = pool_block_data(&s.pool, block) + POOL_PAYLOAD_OFFSET
    body.capacity = pool_block_size(&s.pool, block) - POOL_PAYLOAD_OFFSET
    return 0


cdef bint _fits(void *context, uint64_t n) noexcept nogil:
    cdef const Service *s = <Service *>context
    return s.charged + n <= s.charge_limit


cdef int _reserve(void *context, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef Service *s = <Service *>context
    if n > s.charge_limit:
        return MEMORY_NEVER
    if not _fits(context, n):
        return MEMORY_FULL
    return _claim(s, n, body)


cdef int _grow(void *context, uint64_t used, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef BodyBlock larger
    cdef int rc = _reserve(context, n, &larger)
    if rc != 0:
        return rc
    memcpy(larger.data, body.data, used)
    block_drop(<Service *>context, body.block)
    body[0] = larger
    return 0


cdef int _buffer(void *context, const uint8_t *kept, uint64_t kept_n, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef BodyBlock larger
    if _claim(s, n, &larger) != 0:
        return -1
    if kept_n:
        memcpy(larger.data, kept, kept_n)
    block_drop(s, body.block)
    body[0] = larger
    return 0


cdef void _discard(void *context, uint32_t block) noexcept nogil:
    block_drop(<Service *>context, block)


# ---- requests in ---------------------------------------------------------------------------------


cdef inline void _verdict(Verdict *verdict, int status, const char *text) noexcept nogil:
    verdict.status = status
    verdict.text = text


cdef bint _judge_codings(Service *s, const char *head, const HttpRequest *request, Verdict *verdict) noexcept nogil:
    # What the rows are to decode and to encode; False: refused (RFC 9110 section 15.5.16).
    cdef HttpCoding body = http_content_coding(head, request)
    cdef HttpCoding answer
    cdef bint plain_refused = False
    if body & ~s.codings:
        _verdict(verdict, 415, s.codings_text)
        verdict.extra = s.codings_line
        return False
    answer = http_accepted_coding(head, request, s.codings, &plain_refused)
    verdict.flags = (BODY_GZIP * (body == CODING_GZIP) | BODY_ZSTD * (body == CODING_ZSTD)
                     | ANSWER_GZIP * (answer == CODING_GZIP) | ANSWER_ZSTD * (answer == CODING_ZSTD)
                     | ANSWER_NOT_PLAIN * plain_refused)
    return True


cdef void _judge(void *context, const char *head, const HttpRequest *request, const char *path, size_t path_n,
                 Verdict *verdict, bint *wants_target) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint32_t route = ROUTE_NONE
    cdef RouteMatch match
    if path_n == 1 and path[0] == 42:                        # '*': OPTIONS of the server as a whole
        _verdict(verdict, 204, NOTHING)
        verdict.extra = b"allow: GET, HEAD, POST, OPTIONS\r\n"
        verdict.route = ROUTE_NONE
        return
    match = router_match(s.routes, s.route_count, request.method, path, path_n, &route)
    verdict.route = ROUTE_NONE
    if match == MATCH_NO_METHOD or match == MATCH_OPTIONS:
        _verdict(verdict, <int>match, NOTHING if match == MATCH_OPTIONS else NOT_ALLOWED)
        verdict.extra = s.routes[route].allow
    elif match != MATCH_FOUND:
        _verdict(verdict, 404, NOT_FOUND)
    elif s.routes[route].stage_count == 0:
        probe_answer(s, s.routes[route].probe, verdict)
    elif s.draining:
        admission_refuses(s, route, 0, verdict)
        verdict.route = route
    else:
        verdict.route = route
        wants_target[0] = s.routes[route].stages[0] == 0     # the master's own routes
        if s.codings and not wants_target[0] and not _judge_codings(s, head, request, verdict):
            return
        if admission_deadline(s, head, request, verdict):
            admission_refuses(s, route, verdict.deadline, verdict)


cdef void _submit(void *context, uint32_t connection, uint32_t generation, uint32_t route, uint32_t flags,
                  uint64_t deadline, uint32_t block, uint64_t length, uint64_t *id, Verdict *verdict) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint32_t slot = NO_INDEX
    cdef Task *task
    verdict.extra = NULL
    if not admission_refuses(s, route, deadline, verdict):
        slot = task_new(&s.batcher)
        if slot == NO_INDEX:
            admission_unavailable(s, NO_ROOM, verdict)
    if slot == NO_INDEX:
        block_drop(s, block)
        return
    task = &s.batcher.tasks[slot]
    task.position = 0
    task.route = route
    task.connection = connection
    task.connection_generation = generation
    task.block = block
    task.offset = POOL_PAYLOAD_OFFSET
    task.length = length
    task.flags = flags
    if s.routes[route].streams:
        stream_admit(s, slot)
        verdict.streams = True
    task_admit(s, slot, deadline)
    id[0] = task_id(&s.batcher, slot)
    batcher_enqueue(&s.batcher, slot, s.routes[route].stages[0], s.now)
    rows_dispatch(s, s.routes[route].stages[0])


cdef void _withdraw(void *context, uint64_t id) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint32_t slot = task_of(&s.batcher, id)
    if slot != NO_INDEX and s.batcher.tasks[slot].connection != NO_INDEX:
        task_leave(s, slot)


cdef void _counted(void *context, uint32_t route, int status, uint64_t arrived) noexcept nogil:
    cdef Service *s = <Service *>context
    cdef uint64_t *counts
    route = min(route, s.counted_routes)
    counts = s.status_counts + <size_t>route * STATUS_COUNT + status_index(status)
    store_relaxed_u64(counts, counts[0] + 1)                 # relaxed: core alone writes


cdef void service_bind(Service *s, Http1Service *calls) noexcept nogil:
    calls.context = s
    calls.judge = _judge
    calls.fits = _fits
    calls.reserve = _reserve
    calls.grow = _grow
    calls.discard = _discard
    calls.buffer = _buffer
    calls.streamed = stream_acknowledge
    calls.submit = _submit
    calls.withdraw = _withdraw
    calls.released = _discard
    calls.counted = _counted


# ---- round by round ------------------------------------------------------------------------------


cdef void service_poll(Service *s) noexcept nogil:
    rows_poll(s)


cdef bint service_has_news(Service *s) noexcept nogil:
    return rows_have_news(s)


cdef void service_wake(Service *s) noexcept nogil:
    rows_wake(s)


cdef void _rouse_late(Service *s) noexcept nogil:
    # They have not started what they were handed: they run something long, or somebody has written over their bells.
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        if s.batcher.rows[row].late:
            s.links[row].to_rouse = s.wake_due = True


cdef void service_expire(Service *s) noexcept nogil:
    cdef uint32_t stage
    tasks_expire(s)
    rows_expire(s)
    trimmer_run(&s.trimmer, s.now)
    if batcher_take_back(&s.batcher, s.now):
        _rouse_late(s)
    for stage in range(s.batcher.stage_count):
        rows_dispatch(s, stage)
    if s.draining:
        drain_hopeless(s)


cdef uint64_t service_deadline(Service *s) noexcept nogil:
    cdef uint64_t soonest = min(batcher_deadline(&s.batcher, s.now), s.trimmer.next_at)
    return min(soonest, min(tasks_deadline(s), rows_deadline(s)))


# ---- life of a row -------------------------------------------------------------------------------


cdef void service_row_started(Service *s, uint32_t row, uint32_t incarnation, int32_t pid, int pidfd) noexcept nogil:
    cdef Link *link = &s.links[row]
    link.incarnation = incarnation
    link.lessee = pool_lessee(row, incarnation)
    link.pid = pid
    link.pidfd = pidfd
    link.given_up = False
    link.idle_batch = 0
    link.leaving = False
    link.seen_since = NEVER
    row_forget_batch(link)


cdef void service_row_ready(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil:
    if s.links[row].incarnation == incarnation and not s.links[row].given_up:
        batcher_row_up(&s.batcher, row)
        rows_dispatch(s, s.batcher.rows[row].stage)


cdef void service_row_drain(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil:
    if s.links[row].incarnation == incarnation:
        batcher_row_drain(&s.batcher, row)
        s.links[row].leaving = True
        row_report_idle(s, row)
        rows_dispatch(s, s.batcher.rows[row].stage)


cdef bint _runs_again(Service *s, uint32_t row, uint32_t slot) noexcept nogil:
    # A task whose row died under it goes back to the queue, if its stage is to run such a task again and its client has
    # heard nothing yet. Not after a row that core itself gave up: who hung had the time that there is.
    cdef const Task *task = &s.batcher.tasks[slot]
    if task.connection == NO_INDEX or s.links[row].given_up or s.routes[task.route].streams and task.streamed:
        return False
    return batcher_retry(&s.batcher, slot)


cdef void service_row_dead(Service *s, uint32_t row) noexcept nogil:
    # The process has ended (its pidfd says so, not a signal that was sent): what it completed counts, what it had
    # started is answered or runs again, what it had not goes to others. Only then its claims are cleared and its rings
    # made new.
    cdef Link *link = &s.links[row]
    cdef uint32_t failed = 0
    cdef uint32_t i, n, slot
    batcher_row_drain(&s.batcher, row)
    row_poll(s, row)
    n = batcher_row_down(&s.batcher, row, s.scratch)
    for i in range(n):
        slot = s.scratch[i]
        if _runs_again(s, row, slot):
            continue
        failed += s.batcher.tasks[slot].connection != NO_INDEX
        block_drop(s, s.batcher.tasks[slot].block)
        s.batcher.tasks[slot].block = NO_BLOCK
        task_end_text(s, slot, 500, WORKER_DIED)
    pool_sweep(&s.pool, link.lessee)
    ring_reset(&link.submit)
    ring_reset(&link.complete)
    close(link.pidfd)
    link.pidfd = -1
    link.given_up = True           # until its next process: master may have called this one ready just now
    row_forget_batch(link)
    s.report(s.control, REPORT_ROW_DEAD, row, failed)
    link.pid = 0                   # somebody else's from now on
    rows_dispatch(s, s.batcher.rows[row].stage)


# ---- admission -----------------------------------------------------------------------------------

# Whether a request is taken in, and until when its client waits for it.
#
# A queue that is longer than the time-out is worse than none: whoever gets to its head has waited for almost all of its
# time, is given up at work, and all work is for nothing. So who would not be through in time is refused at once.
# Without a queue of more than the rows take at once nobody is: there is always work by which the forecast is put right.

cdef enum:
    SECOND_NS = 1_000_000_000
    MILLISECOND_NS = 1_000_000

cdef const char *BAD_TIMEOUT = b"bad request: x-request-timeout-ms must be a whole number of milliseconds from 1 on"
cdef const char *FULL = b"too many request: task queue is full"
cdef const char *HOPELESS = b"service is overloaded: the request would not be answered in time"
cdef const char *STOPPING = b"gracefully shutting down"


cdef bint admission_deadline(
    const Service *s, const char *head, const HttpRequest *request, Verdict *verdict
) noexcept nogil:
    cdef int64_t timeout = http_request_timeout(head, request)
    if timeout == TIMEOUT_MALFORMED:
        verdict.status = 400
        verdict.text = BAD_TIMEOUT
        return False
    # More than the service allows is what it allows: that runs from when the body is there, and so ends later.
    if 0 < timeout and <uint64_t>timeout < s.timeout // MILLISECOND_NS:
        verdict.deadline = s.now + <uint64_t>timeout * MILLISECOND_NS
    return True


cdef void _refuse(Service *s, int status, const char *text, uint64_t retry_ns, Verdict *verdict) noexcept nogil:
    # RFC 9110 section 10.2.3, in seconds: until the queue of now is done with, and not beyond the service's time-out.
    # One line for all: an answer that goes out later than another refusal tells what is known by then.
    cdef uint64_t seconds = (min(retry_ns, s.timeout) + SECOND_NS - 1) // SECOND_NS
    snprintf(s.retry_line, sizeof(s.retry_line), b"retry-after: %u\r\n", <uint32_t>max(seconds, <uint64_t>1))
    verdict.status = status
    verdict.text = text
    verdict.extra = s.retry_line


cdef inline uint64_t _forecast(const Service *s, const Route *route) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t i
    cdef const Stage *stage
    for i in range(route.stage_count):
        stage = &s.batcher.stages[route.stages[i]]
        if stage.waiting > stage.rows * stage.max_batch_size:      # as in there: mostly there is nothing to call it for
            total += stage_forecast(&s.batcher, route.stages[i], s.now)
    return total


cdef bint admission_refuses(Service *s, uint32_t route, uint64_t deadline, Verdict *verdict) noexcept nogil:
    cdef uint64_t left = s.timeout
    cdef uint64_t needed
    if s.draining:
        admission_stopping(s, verdict)
        return True
    needed = _forecast(s, &s.routes[route])
    if s.batcher.stages[s.routes[route].stages[0]].waiting >= s.capacity:
        _refuse(s, 429, FULL, needed, verdict)
        return True
    if deadline:
        left = deadline - s.now if deadline > s.now else 0
    if left == 0:
        verdict.status = 408
        verdict.text = SERVICE_TIMEOUT
        return True
    # The forecast is a mean: a quarter of the time is kept for what turns out slower.
    if needed > left - left // 4:
        _refuse(s, 503, HOPELESS, needed, verdict)
        return True
    return False


cdef void admission_stopping(Service *s, Verdict *verdict) noexcept nogil:
    _refuse(s, 503, STOPPING, 0, verdict)


cdef void admission_unavailable(Service *s, const char *text, Verdict *verdict) noexcept nogil:
    _refuse(s, 503, text, 0, verdict)


# ---- routes --------------------------------------------------------------------------------------

# Which route a request's method and path mean.

cdef inline bint _path_matches(const Route *route, const char *path, size_t n) noexcept nogil:
    if n < route.path_n or memcmp(path, route.path, route.path_n) != 0:
        return False
    return n == route.path_n or (route.prefix and path[route.path_n] == 47)      # '/'


cdef RouteMatch router_match(
    const Route *routes, uint32_t count, HttpMethod method, const char *path, size_t n, uint32_t *index
) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t best = ROUTE_NONE
    for i in range(count):
        if _path_matches(&routes[i], path, n) and (best == ROUTE_NONE or routes[i].path_n > routes[best].path_n):
            best = i
    index[0] = best
    if best == ROUTE_NONE:
        return MATCH_NO_PATH
    if method == routes[best].method or (method == METHOD_HEAD and routes[best].method == METHOD_GET):
        return MATCH_FOUND
    if method == METHOD_OPTIONS:
        return MATCH_OPTIONS
    return MATCH_NO_METHOD


# ---- probes --------------------------------------------------------------------------------------

# What core answers by itself to those who ask how the service is: no worker and no queue has a part in it.

cdef const char *ALIVE = b"MOSEC service"
cdef const char *LIVE = b"live"
cdef const char *READY = b"ready"


cdef void _look(Service *s) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t busy_since
    cdef const Link *link
    cdef const Row *row
    cdef Pulse pulse
    health_begin(&s.health)
    for i in range(s.batcher.row_count):
        row = &s.batcher.rows[i]
        link = &s.links[i]
        pulse.incarnation = link.incarnation
        # The row's own words, of which only changes count. Acquire; pair with the releases in ring_release and
        # ring_publish.
        pulse.taken = load_acquire_u64(&link.submit.memory.tail)
        pulse.answered = load_acquire_u64(&link.complete.memory.head)
        busy_since = HEALTH_IDLE
        if row.outstanding:
            busy_since = row.busy_since
        elif link.submit.own != pulse.taken:       # nobody waits any more for what it has not taken
            busy_since = s.now
        health_row(&s.health, i, row.stage, row.up, busy_since, &pulse, s.now)


cdef void _say(Verdict *verdict, int status, const char *text) noexcept nogil:
    verdict.status = status
    verdict.text = text


cdef void probe_answer(Service *s, Probe probe, Verdict *verdict) noexcept nogil:
    cdef uint32_t stage
    if s.draining and probe != PROBE_LIVE:
        admission_stopping(s, verdict)
    elif probe == PROBE_READY:
        _look(s)
        stage = health_lacking(&s.health)
        if stage == HEALTH_ALL_WELL:
            _say(verdict, 200, READY)
        else:
            _say(verdict, 503, s.lacking_texts[stage])
    elif probe == PROBE_LIVE:
        _look(s)
        stage = health_stalled(&s.health)
        if stage == HEALTH_ALL_WELL:
            _say(verdict, 200, LIVE)
        else:
            _say(verdict, 503, s.stalled_texts[stage])
    else:
        _say(verdict, 200, ALIVE)


# ---- drain ---------------------------------------------------------------------------------------

# What a shutdown does to requests that are inside: they are finished, or told so; none just ends.

cdef void _end(Service *s, uint32_t slot) noexcept nogil:
    if s.batcher.tasks[slot].state != TASK_FREE and s.batcher.tasks[slot].connection != NO_INDEX:
        task_fail(s, slot, 503, <const uint8_t *>STOPPING, strlen(STOPPING))


cdef void drain_hopeless(Service *s) noexcept nogil:
    cdef uint32_t stage, slot, following
    for stage in range(s.batcher.stage_count):
        if s.batcher.stages[stage].waiting == 0 or s.batcher.stages[stage].rows:
            continue
        slot = s.batcher.stages[stage].queue.head
        while slot != NO_INDEX and s.batcher.tasks[slot].state == TASK_QUEUED:
            following = s.batcher.tasks[slot].link.next
            _end(s, slot)
            slot = following


cdef void drain_all(Service *s) noexcept nogil:
    cdef uint32_t slot
    for slot in range(s.batcher.fresh):
        _end(s, slot)
