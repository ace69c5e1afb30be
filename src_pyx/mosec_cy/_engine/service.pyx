"""From a request's head to its task: routes, admission, memory for bodies; and what core answers without a worker."""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, strlen

from mosec_cy._engine.batcher cimport (
    TASK_FREE,
    TASK_QUEUED,
    Stage,
    stage_forecast,
    stage_is_full,
    task_new,
    task_of,
)
from mosec_cy._engine.dispatch cimport (
    SERVICE_TIMEOUT,
    Pipeline,
    block_charge,
    block_drop,
    dispatch_expire,
    stage_stalled,
    task_fail,
    task_leave,
    task_submit,
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
from mosec_cy._engine.linux cimport store_relaxed_u64
from mosec_cy._engine.list cimport NO_INDEX
from mosec_cy._engine.pool cimport POOL_PAYLOAD_OFFSET, pool_allocate, pool_block_data, pool_block_size
from mosec_cy._engine.ring cimport ANSWER_GZIP, ANSWER_NOT_PLAIN, ANSWER_ZSTD, BODY_GZIP, BODY_ZSTD, NO_BLOCK
from mosec_cy._engine.segment cimport STATUS_COUNT, status_index

cdef enum:
    SECOND_NS = 1_000_000_000
    MILLISECOND_NS = 1_000_000

cdef const char *NOTHING = b""
cdef const char *NOT_ALLOWED = b"method not allowed"
cdef const char *NOT_FOUND = b"not found"
cdef const char *NO_ROOM = b"service has no room for another request (--max-connections)"
cdef const char *BAD_TIMEOUT = b"bad request: x-request-timeout-ms must be a whole number of milliseconds from 1 on"
cdef const char *FULL = b"too many request: task queue is full"
cdef const char *HOPELESS = b"service is overloaded: the request would not be answered in time"
cdef const char *STOPPING = b"gracefully shutting down"
cdef const char *ALIVE = b"MOSEC service"
cdef const char *LIVE = b"live"
cdef const char *READY = b"ready"


# ---- payload blocks ------------------------------------------------------------------------------


cdef int _claim(Dispatcher *d, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef uint32_t block = pool_allocate(&d.pool, n + POOL_PAYLOAD_OFFSET, 0)
    if block == NO_BLOCK:
        return MEMORY_FULL
    block_charge(d, block)
    body.block = block
    body.data = pool_block_data(&d.pool, block) + POOL_PAYLOAD_OFFSET
    body.capacity = pool_block_size(&d.pool, block) - POOL_PAYLOAD_OFFSET
    return 0


cdef int _replace(Dispatcher *d, const BodyBlock *larger, const uint8_t *kept, uint64_t n,
                  BodyBlock *body) noexcept nogil:
    if n:
        memcpy(larger.data, kept, n)
    block_drop(d, body.block)
    body[0] = larger[0]
    return 0


cdef bint service_fits(const Service *s, uint64_t n) noexcept nogil:
    return s.dispatcher.charged + n <= s.charge_limit


cdef int service_reserve(Service *s, uint64_t n, BodyBlock *body) noexcept nogil:
    if n > s.charge_limit:
        return MEMORY_NEVER
    if not service_fits(s, n):
        return MEMORY_FULL
    return _claim(&s.dispatcher, n, body)


cdef int service_grow(Service *s, uint64_t used, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef BodyBlock larger
    cdef int rc = service_reserve(s, n, &larger)
    return rc if rc != 0 else _replace(&s.dispatcher, &larger, body.data, used, body)


cdef int service_buffer(Service *s, const uint8_t *kept, uint64_t kept_n, uint64_t n, BodyBlock *body) noexcept nogil:
    cdef BodyBlock larger
    cdef int rc = _claim(&s.dispatcher, n, &larger)
    return rc if rc != 0 else _replace(&s.dispatcher, &larger, kept, kept_n, body)


# ---- routes --------------------------------------------------------------------------------------


cdef inline bint _path_matches(const Route *route, const char *path, size_t n) noexcept nogil:
    if n != route.path_n and not (n > route.path_n and route.prefix and path[route.path_n] == c'/'):
        return False
    return memcmp(path, route.path, route.path_n) == 0


cdef uint32_t _route_of(const Service *s, const char *path, size_t n) noexcept nogil:
    # The longest path that matches wins.
    cdef uint32_t i
    cdef uint32_t best = NO_ROUTE
    for i in range(s.route_count):
        if _path_matches(&s.routes[i], path, n) and (best == NO_ROUTE or s.routes[i].path_n > s.routes[best].path_n):
            best = i
    return best


# ---- admission -----------------------------------------------------------------------------------

# A queue that is longer than the time-out is worse than none: a request that gets to its head has waited for almost all
# of its time, is given up while it is worked on, and all that work is lost. So a request that would not be completed
# in time is refused at once. While no more tasks are queued than the workers take at once, none is refused: there is
# always work that corrects the forecast.


cdef inline void _admitted(Decision *decision, uint32_t route) noexcept nogil:
    # Unless one of the checks that follow refuses.
    decision.answer.status = 0
    decision.answer.text = NULL
    decision.answer.extra = NULL
    decision.route = route
    decision.flags = 0
    decision.deadline = 0
    decision.wants_target = False
    decision.task = 0
    decision.streams = False


cdef inline void _answer(Decision *decision, int status, const char *text) noexcept nogil:
    decision.answer.status = status
    decision.answer.text = text


cdef void _refuse(Service *s, int status, const char *text, uint64_t retry_ns, Decision *decision) noexcept nogil:
    # RFC 9110 section 10.2.3, in seconds: until the present queue is done, and not beyond the service's time-out. All
    # refusals share one line: an answer that goes out after another refusal says what is known by then.
    cdef uint64_t seconds = (min(retry_ns, s.dispatcher.timeout) + SECOND_NS - 1) // SECOND_NS
    snprintf(s.retry_line, sizeof(s.retry_line), b"retry-after: %u\r\n", <uint32_t>max(seconds, <uint64_t>1))
    _answer(decision, status, text)
    decision.answer.extra = s.retry_line


cdef bint _admit_timeout(const Service *s, const char *head, const HttpRequest *request,
                         Decision *decision) noexcept nogil:
    # Sets the deadline that the client states in the head. False: malformed, refused.
    cdef int64_t timeout = http_request_timeout(head, request)
    if timeout == TIMEOUT_MALFORMED:
        _answer(decision, 400, BAD_TIMEOUT)
        return False
    # A longer time than the service's is cut to it: that runs from when the body is complete, and so ends later.
    if 0 < timeout and <uint64_t>timeout < s.dispatcher.timeout // MILLISECOND_NS:
        decision.deadline = s.dispatcher.now + <uint64_t>timeout * MILLISECOND_NS
    return True


cdef bint _admit_codings(const Service *s, const char *head, const HttpRequest *request,
                         Decision *decision) noexcept nogil:
    # Sets what the workers are to decode and to encode. False: refused (RFC 9110 section 15.5.16).
    cdef HttpCoding body = http_content_coding(head, request)
    cdef HttpCoding answer
    cdef bint plain_refused = False
    if body & ~s.codings:
        _answer(decision, 415, s.codings_text)
        decision.answer.extra = s.codings_line
        return False
    answer = http_accepted_coding(head, request, s.codings, &plain_refused)
    decision.flags = (BODY_GZIP * (body == CODING_GZIP) | BODY_ZSTD * (body == CODING_ZSTD)
                      | ANSWER_GZIP * (answer == CODING_GZIP) | ANSWER_ZSTD * (answer == CODING_ZSTD)
                      | ANSWER_NOT_PLAIN * plain_refused)
    return True


cdef inline uint64_t _forecast(const Dispatcher *d, const Pipeline *pipeline) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t i
    cdef const Stage *stage
    for i in range(pipeline.stage_count):
        stage = &d.batcher.stages[pipeline.stages[i]]
        if stage_is_full(stage):                                   # saves most of the calls
            total += stage_forecast(&d.batcher, pipeline.stages[i], d.now)
    return total


cdef bint _admit(Service *s, uint32_t route, uint64_t deadline, Decision *decision) noexcept nogil:
    # False: refused, because the service stops, the queue is full, or the request's time is over or would be before its
    # turn. Called at the head, so that no client sends a body for nothing, and again when the body is complete.
    cdef const Dispatcher *d = &s.dispatcher
    cdef const Pipeline *pipeline = &d.pipelines[route]
    cdef uint64_t left = d.timeout
    cdef uint64_t needed
    if s.draining:
        _refuse(s, 503, STOPPING, 0, decision)
        return False
    needed = _forecast(d, pipeline)
    if d.batcher.stages[pipeline.stages[0]].waiting >= s.capacity:
        _refuse(s, 429, FULL, needed, decision)
        return False
    if deadline:
        left = deadline - d.now if deadline > d.now else 0
    if left == 0:
        _answer(decision, 408, SERVICE_TIMEOUT)
        return False
    # The forecast is a mean: a quarter of the time is reserved for requests that take longer.
    if needed > left - left // 4:
        _refuse(s, 503, HOPELESS, needed, decision)
        return False
    return True


cdef void _admit_to_route(Service *s, const char *head, const HttpRequest *request, uint32_t route,
                          Decision *decision) noexcept nogil:
    cdef const Pipeline *pipeline = &s.dispatcher.pipelines[route]
    if pipeline.stage_count == 0:
        _answer_probe(s, s.routes[route].probe, decision)
        return
    decision.route = route
    if not s.draining:
        decision.wants_target = pipeline.stages[0] == 0          # the master's own routes
        if s.codings and not decision.wants_target and not _admit_codings(s, head, request, decision):
            return
        if not _admit_timeout(s, head, request, decision):
            return
    _admit(s, route, decision.deadline, decision)


cdef void service_admit(Service *s, const char *head, const HttpRequest *request, const char *path, size_t path_n,
                        Decision *decision) noexcept nogil:
    cdef uint32_t route
    _admitted(decision, NO_ROUTE)
    if path_n == 1 and path[0] == c'*':                          # OPTIONS of the server as a whole
        _answer(decision, 204, NOTHING)
        decision.answer.extra = b"allow: GET, HEAD, POST, OPTIONS\r\n"
        return
    route = _route_of(s, path, path_n)
    if route == NO_ROUTE:
        _answer(decision, 404, NOT_FOUND)
    elif request.method == s.routes[route].method or (
            request.method == METHOD_HEAD and s.routes[route].method == METHOD_GET):
        _admit_to_route(s, head, request, route, decision)
    else:
        if request.method == METHOD_OPTIONS:
            _answer(decision, 204, NOTHING)
        else:
            _answer(decision, 405, NOT_ALLOWED)
        decision.answer.extra = s.routes[route].allow


cdef uint32_t _new_task(Service *s, const Request *request, Decision *decision) noexcept nogil:
    cdef uint32_t entry = NO_INDEX
    if _admit(s, request.route, request.deadline, decision):
        entry = task_new(&s.dispatcher.batcher)
        if entry == NO_INDEX:
            _refuse(s, 503, NO_ROOM, 0, decision)
    return entry


cdef void service_submit(Service *s, const Request *request, Decision *decision) noexcept nogil:
    cdef uint32_t entry
    _admitted(decision, request.route)
    entry = _new_task(s, request, decision)
    if entry == NO_INDEX:
        block_drop(&s.dispatcher, request.block)
        return
    decision.streams = s.dispatcher.pipelines[request.route].streams
    decision.task = task_submit(&s.dispatcher, entry, request)


cdef void service_withdraw(Service *s, uint64_t task) noexcept nogil:
    cdef uint32_t entry = task_of(&s.dispatcher.batcher, task)
    if entry != NO_INDEX and s.dispatcher.tasks[entry].connection != NO_INDEX:
        task_leave(&s.dispatcher, entry)


cdef void service_count(Service *s, uint32_t route, int status) noexcept nogil:
    cdef uint64_t *counts = s.status_counts + <size_t>min(route, s.counted_routes) * STATUS_COUNT + status_index(status)
    store_relaxed_u64(counts, counts[0] + 1)                     # relaxed: core alone writes


# ---- probes --------------------------------------------------------------------------------------

# A stage without any slot is not stalled (it is not ready: its models may take minutes to load), nor is one that is
# overloaded: it makes progress.


cdef const char *_lacking(const Service *s) noexcept nogil:
    # What is said of the first stage without a ready worker, or NULL.
    cdef uint32_t stage
    for stage in range(s.dispatcher.batcher.stage_count):
        if s.dispatcher.batcher.stages[stage].slots == 0:
            return s.lacking_texts[stage]
    return NULL


cdef const char *_stalled(Service *s) noexcept nogil:
    # What is said of the first stage that makes no progress, or NULL. All stages are looked at: the next look at each
    # slot compares with this one.
    cdef uint32_t stage
    cdef const char *text = NULL
    for stage in range(s.dispatcher.batcher.stage_count):
        if stage_stalled(&s.dispatcher, stage, s.stall_margin) and text == NULL:
            text = s.stalled_texts[stage]
    return text


cdef void _answer_probe(Service *s, Probe probe, Decision *decision) noexcept nogil:
    # Answered without a worker and without a queue.
    cdef const char *trouble = NULL
    if s.draining and probe != PROBE_LIVE:
        _refuse(s, 503, STOPPING, 0, decision)
        return
    if probe == PROBE_READY:
        trouble = _lacking(s)
    elif probe == PROBE_LIVE:
        trouble = _stalled(s)
    if trouble != NULL:
        _answer(decision, 503, trouble)
    else:
        _answer(decision, 200, READY if probe == PROBE_READY else LIVE if probe == PROBE_LIVE else ALIVE)


# ---- drain ---------------------------------------------------------------------------------------

# A shutdown completes the requests that are inside, or refuses them with an answer; no connection just ends.


cdef void _end(Dispatcher *d, uint32_t entry) noexcept nogil:
    if d.batcher.tasks[entry].state != TASK_FREE and d.tasks[entry].connection != NO_INDEX:
        task_fail(d, entry, 503, <const uint8_t *>STOPPING, strlen(STOPPING))


cdef void _end_hopeless(Dispatcher *d) noexcept nogil:
    # Ends the tasks that wait for a stage without a worker: no worker will be started for them.
    cdef uint32_t stage, entry, following
    for stage in range(d.batcher.stage_count):
        if d.batcher.stages[stage].waiting == 0 or d.batcher.stages[stage].slots:
            continue
        entry = d.batcher.stages[stage].queue.head
        while entry != NO_INDEX and d.batcher.tasks[entry].state == TASK_QUEUED:
            following = d.batcher.tasks[entry].link.next
            _end(d, entry)
            entry = following


cdef void service_refuse_all(Service *s) noexcept nogil:
    cdef uint32_t entry
    for entry in range(s.dispatcher.batcher.fresh):
        _end(&s.dispatcher, entry)


cdef void service_expire(Service *s) noexcept nogil:
    dispatch_expire(&s.dispatcher)
    if s.draining:
        _end_hopeless(&s.dispatcher)
