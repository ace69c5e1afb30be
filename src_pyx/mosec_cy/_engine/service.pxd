# From an accepted request to its answer: what HTTP asks of the service, and what the loop tells it.
# Sits between I/O and the pure modules; ids and descriptors cross both of its borders, never pointers to connections.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from mosec_cy._engine.dispatch cimport Answer, Health, Probe, Pulse, Route, Service, StageHealth, Vigil
from mosec_cy._engine.http_request cimport HttpMethod, HttpRequest

# ---- health --------------------------------------------------------------------------------------
# Whether stages have workers and whether these get on, judged from what is seen of the rows. Pure: time is an argument
# (ns of one monotonic clock). Nothing is recorded while requests are served: each look compares with the one before.

cdef enum:
    HEALTH_IDLE = 0x7FFFFFFFFFFFFFFF   # ns: a row has no work
    HEALTH_ALL_WELL = 0xFFFFFFFF       # no stage

# Memory is given zeroed; the caller has set `patience` of each stage.
cdef void health_init(Health *h, Vigil *vigils, uint32_t row_count, StageHealth *stages,
                      uint32_t stage_count) noexcept nogil
# A look at all rows: begin, then each row once. `busy_since`: ns, since when the row has had the work that it has now,
# as far as the caller knows; HEALTH_IDLE if it has none.
cdef void health_begin(Health *h) noexcept nogil
cdef void health_row(Health *h, uint32_t row, uint32_t stage, bint ready, uint64_t busy_since, const Pulse *pulse,
                     uint64_t now) noexcept nogil
# By the last look the first stage without a ready row, or with rows of which none gets on; HEALTH_ALL_WELL.
cdef uint32_t health_lacking(const Health *h) noexcept nogil
cdef uint32_t health_stalled(const Health *h) noexcept nogil

# ---- what HTTP is told ---------------------------------------------------------------------------
# What HTTP asks of the service behind it: a few calls that pass ids and descriptors, never pointers to connections.

cdef enum:
    MEMORY_FULL = -1               # no memory for request bodies is left now
    MEMORY_NEVER = -2              # it is more than the budget has for them

# What the service says of a request at its head.
ctypedef struct Verdict:
    int status                     # 0: accepted, send the body to `route`; else answer this
    uint32_t route                 # counted under this
    const char *text               # answer's body, static
    const char *extra              # further header lines, each with CRLF, or NULL; static
    uint32_t flags                 # accepted: passed to `submit`,
    uint64_t deadline              # as is this: ns, by which the client wants its answer; 0: it has not said
    bint streams                   # set by `submit`: the answer is a stream of events, which begins now

# A body's place in shared memory.
ctypedef struct BodyBlock:
    uint32_t block
    uint8_t *data
    uint64_t capacity              # bytes at `data`

ctypedef struct Http1Service:
    void *context
    # At the head, the bytes that `request` was parsed from. `path` is decoded. The service may set `wants_target`: the
    # request's target is then the payload.
    void (*judge)(void *context, const char *head, const HttpRequest *request, const char *path, size_t path_n,
                  Verdict *verdict, bint *wants_target) noexcept nogil
    # Whether so many bytes more are within what requests may use; there may be no block for them nevertheless.
    bint (*fits)(void *context, uint64_t bytes) noexcept nogil
    # 0, MEMORY_FULL, MEMORY_NEVER.
    int (*reserve)(void *context, uint64_t bytes, BodyBlock *body) noexcept nogil
    # A larger block with the same content; as above. Unless it is 0 the old one is still there.
    int (*grow)(void *context, uint64_t used, uint64_t bytes, BodyBlock *body) noexcept nogil
    void (*discard)(void *context, uint32_t block) noexcept nogil
    # The body is complete; the block is the service's from now on. Sets `task`, or leaves a refusal in `verdict`.
    void (*submit)(void *context, uint32_t slot, uint32_t generation, uint32_t route, uint32_t flags,
                   uint64_t deadline, uint32_t block, uint64_t length, uint64_t *task, Verdict *verdict) noexcept nogil
    # A block for `bytes` bytes of a stream, with what is `kept` of the one in `body`, which goes. It counts as an
    # answer's: requests cannot use up its memory. 0, or -1: the pool is empty, and the old one is still there.
    int (*buffer)(void *context, const uint8_t *kept, uint64_t kept_n, uint64_t bytes, BodyBlock *body) noexcept nogil
    # So many bytes of a task's stream are still to be sent; the others are with the kernel.
    void (*streamed)(void *context, uint64_t task, uint64_t pending) noexcept nogil
    # The client of a task has left.
    void (*withdraw)(void *context, uint64_t task) noexcept nogil
    # An answer's payload is with the kernel.
    void (*released)(void *context, uint32_t block) noexcept nogil
    # An answer was given.
    void (*counted)(void *context, uint32_t route, int status, uint64_t arrived) noexcept nogil

cdef void service_bind(Service *s, Http1Service *calls) noexcept nogil            # fills in the calls that HTTP makes
cdef void service_poll(Service *s) noexcept nogil                                 # takes what the rows have completed
cdef bint service_has_news(Service *s) noexcept nogil
cdef void service_wake(Service *s) noexcept nogil         # wakes the rows that were handed something
cdef void service_expire(Service *s) noexcept nogil                               # all that is due at s.now
cdef uint64_t service_deadline(Service *s) noexcept nogil                         # ns
cdef void service_row_started(Service *s, uint32_t row, uint32_t incarnation, int32_t pid, int pidfd) noexcept nogil
cdef void service_row_ready(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil
cdef void service_row_drain(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil
cdef void service_row_dead(Service *s, uint32_t row) noexcept nogil

# ---- admission -----------------------------------------------------------------------------------
# Whether a request is taken in, and until when its client waits for it.

cdef const char *STOPPING                                              # what a 503 of a shutdown says

# Sets verdict.deadline by what the client says at its head. False: malformed, refused in *verdict.
cdef bint admission_deadline(
    const Service *s, const char *head, const HttpRequest *request, Verdict *verdict
) noexcept nogil
# True: refused in *verdict, since the service stops, the queue is full, its time is over, or would be before its
# turn. Asked at the head, so that nobody sends a body for nothing, and again when the body is there.
cdef bint admission_refuses(Service *s, uint32_t route, uint64_t deadline, Verdict *verdict) noexcept nogil
# A 503; its client is asked to come back in a while.
cdef void admission_unavailable(Service *s, const char *text, Verdict *verdict) noexcept nogil
# The same, because the service shuts down.
cdef void admission_stopping(Service *s, Verdict *verdict) noexcept nogil

# ---- routes --------------------------------------------------------------------------------------
# Which route a request's method and path mean. Pure.

cdef enum:
    ROUTE_NONE = 0xFFFFFFFF

cdef enum RouteMatch:
    MATCH_FOUND = 0
    MATCH_NO_PATH = 404
    MATCH_NO_METHOD = 405
    MATCH_OPTIONS = 204        # OPTIONS on a route that is there

# The route in *index (ROUTE_NONE if no path matches). The longest path that matches wins.
cdef RouteMatch router_match(
    const Route *routes, uint32_t count, HttpMethod method, const char *path, size_t n, uint32_t *index
) noexcept nogil

# ---- probes --------------------------------------------------------------------------------------
# What core answers by itself to those who ask how the service is.

cdef void probe_answer(Service *s, Probe probe, Verdict *verdict) noexcept nogil

# ---- drain ---------------------------------------------------------------------------------------
# What a shutdown does to requests that are inside.

cdef void drain_hopeless(Service *s) noexcept nogil    # who waits for a stage without a worker: there will be none
cdef void drain_all(Service *s) noexcept nogil         # time is up: whoever still waits is told
