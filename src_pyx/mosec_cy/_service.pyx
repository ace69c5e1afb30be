"""From an accepted request to its answer: what HTTP asks of the service, and what the loop tells it."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from posix.unistd cimport close

from mosec_cy._admission cimport admission_deadline, admission_refuses, admission_unavailable
from mosec_cy._batcher cimport (
    NEVER,
    NO_INDEX,
    Task,
    batcher_deadline,
    batcher_enqueue,
    batcher_retry,
    batcher_row_down,
    batcher_row_drain,
    batcher_row_up,
    batcher_take_back,
    task_id,
    task_new,
    task_of,
)
from mosec_cy._drain cimport drain_hopeless
from mosec_cy._http1_service cimport MEMORY_FULL, MEMORY_NEVER, BodyBlock, Verdict
from mosec_cy._http_codings cimport (
    CODING_GZIP,
    CODING_ZSTD,
    HttpCoding,
    http_accepted_coding,
    http_content_coding,
)
from mosec_cy._http_parser cimport HttpRequest
from mosec_cy._linux cimport store_relaxed_u64
from mosec_cy._pool cimport POOL_PAYLOAD_OFFSET, pool_allocate, pool_block_data, pool_block_size, pool_lessee
from mosec_cy._pool_books cimport pool_sweep
from mosec_cy._probes cimport probe_answer
from mosec_cy._ring cimport ANSWER_GZIP, ANSWER_NOT_PLAIN, ANSWER_ZSTD, BODY_GZIP, BODY_ZSTD, NO_BLOCK, ring_reset
from mosec_cy._router cimport MATCH_FOUND, MATCH_NO_METHOD, MATCH_OPTIONS, ROUTE_NONE, RouteMatch, router_match
from mosec_cy._row_watch cimport rows_deadline, rows_expire
from mosec_cy._rows cimport (
    row_forget_batch,
    row_poll,
    row_report_idle,
    rows_dispatch,
    rows_have_news,
    rows_poll,
    rows_wake,
)
from mosec_cy._segment cimport STATUS_COUNT, status_index
from mosec_cy._state cimport REPORT_ROW_DEAD, Link
from mosec_cy._streams cimport stream_acknowledge, stream_admit
from mosec_cy._tasks cimport (
    block_charge,
    block_drop,
    task_admit,
    task_end_text,
    task_leave,
    tasks_deadline,
    tasks_expire,
)
from mosec_cy._trimmer cimport trimmer_run

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
