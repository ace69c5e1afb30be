# What HTTP asks of the service behind it: a few calls that pass ids and descriptors, never pointers to connections.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._http_parser cimport HttpRequest

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

ctypedef struct Answer:
    int status
    const char *content_type
    size_t content_type_n
    const uint8_t *payload         # the service keeps it until `released`
    uint64_t payload_n
    uint32_t block                 # passed to `released`; NO_BLOCK: static
    const char *extra              # further header lines, each with CRLF, or NULL
    size_t extra_n

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
