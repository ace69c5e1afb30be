# What HTTP asks of the service (at a request's head, while its body comes, and when it is complete), and what core
# answers without a worker. Ids and descriptors pass between the service and HTTP, never pointers to connections.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._engine.dispatch cimport Dispatcher, Request
from mosec_cy._engine.http_request cimport HttpMethod, HttpRequest

cdef enum:
    NO_ROUTE = 0xFFFFFFFF          # a request that is counted under no route
    MEMORY_FULL = -1               # no memory is left for request bodies now
    MEMORY_NEVER = -2              # the budget for request bodies is smaller than this

# ---- routes --------------------------------------------------------------------------------------

cdef enum Probe:                   # what core answers without a worker
    PROBE_ALIVE                    # the service runs, as Mosec says it
    PROBE_LIVE                     # and no stage is stalled
    PROBE_READY                    # and each stage has a worker

ctypedef struct Route:             # written by core's set-up
    const char *path
    size_t path_n
    HttpMethod method              # METHOD_POST, or METHOD_GET (HEAD is then allowed too)
    bint prefix                    # also every path below it
    Probe probe                    # of a route whose pipeline has no stage
    const char *allow              # the line of the Allow header

# ---- the service ---------------------------------------------------------------------------------

# Core's set-up fills it in; afterwards only the service writes it.
ctypedef struct Service:
    Dispatcher dispatcher
    Route *routes                  # `dispatcher.pipelines` has the stages of each, at the same index
    uint32_t route_count
    uint32_t counted_routes        # the first ones; all others are counted together, with requests that matched none
    uint64_t *status_counts        # [route][STATUS_COUNT]
    uint32_t capacity              # tasks that may wait for a first stage
    uint64_t charge_limit          # bytes that requests may use: half of the budget
    char[32] retry_line            # the Retry-After line of the latest refusal
    uint32_t codings               # HttpCoding, or-ed: what workers decode and encode; 0: content codings are ignored
    const char *codings_text       # the body of a 415 about them,
    const char *codings_line       # and its Accept-Encoding line
    bint draining
    uint64_t stall_margin          # ns, beyond the time within which core ends a worker that hangs
    const char **lacking_texts     # one for each stage: it has no ready worker; none of its workers makes progress
    const char **stalled_texts

ctypedef struct TextAnswer:        # an answer that core gives without a worker
    int status
    const char *text               # the body, static
    const char *extra              # further header lines, each with CRLF, or NULL; static

ctypedef struct Decision:
    TextAnswer answer              # status 0: the request is admitted
    uint32_t route                 # the answer is counted under this
    # Admitted at the head; passed on to service_submit:
    uint32_t flags                 # of the task's descriptor
    uint64_t deadline              # ns, by which the client wants its answer; 0: it did not say
    bint wants_target              # the request's target is the payload
    # Admitted by service_submit:
    uint64_t task
    bint streams                   # the answer is a stream of events, which begins now

ctypedef struct BodyBlock:         # a body's place in shared memory
    uint32_t block
    uint8_t *data
    uint64_t capacity              # bytes at `data`

# Decides on a request by its head: the bytes that `request` was parsed from. `path` is decoded.
cdef void service_admit(Service *s, const char *head, const HttpRequest *request, const char *path, size_t path_n,
                        Decision *decision) noexcept nogil
# Decides again when the body is complete: creates a task for it, or refuses it.
cdef void service_submit(Service *s, const Request *request, Decision *decision) noexcept nogil
cdef void service_withdraw(Service *s, uint64_t task) noexcept nogil                 # the task's client has left
# Counts an answer that was given.
cdef void service_count(Service *s, uint32_t route, int status) noexcept nogil
# Whether `n` bytes more are within what requests may use; even then a block may be missing.
cdef bint service_fits(const Service *s, uint64_t n) noexcept nogil
# A block for a request's body: 0, MEMORY_FULL, MEMORY_NEVER.
cdef int service_reserve(Service *s, uint64_t n, BodyBlock *body) noexcept nogil
# A larger block with the same content; results as above. Unless the result is 0 the old block is still there.
cdef int service_grow(Service *s, uint64_t used, uint64_t n, BodyBlock *body) noexcept nogil
# A block for `n` bytes of a stream, starting with the bytes `kept` of the block in `body`, which is released. It counts
# as an answer's block: requests cannot use up its memory. 0, or MEMORY_FULL: the pool is empty, the old one is kept.
cdef int service_buffer(Service *s, const uint8_t *kept, uint64_t kept_n, uint64_t n, BodyBlock *body) noexcept nogil
cdef void service_expire(Service *s) noexcept nogil                                  # all that is due at dispatcher.now
cdef void service_refuse_all(Service *s) noexcept nogil          # time is up: each client that still waits gets a 503
