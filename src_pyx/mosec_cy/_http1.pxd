# HTTP/1.x on a connection: read a request, hand it over, write the answer. Above it stands a service that it
# knows by a few calls only, which pass ids and descriptors, never pointers to connections.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mosec_cy._connection cimport Connection, Connections
from mosec_cy._http_chunked cimport ChunkedDecoder
from mosec_cy._http_parser cimport HttpLimits, HttpRequest
from mosec_cy._http_writer cimport HttpWriter

cdef enum:
    HTTP1_SCRATCH = 65536          # bytes read at once; a head is at most half of it
    HTTP1_QUOTA = 262144           # bytes read from one connection before the others get their turn

cdef enum Http1Phase:
    HTTP1_HEAD = 0                 # a head is expected or arriving
    HTTP1_BODY                     # the body is arriving
    HTTP1_DISCARD                  # a small body of a request that is refused afterwards
    HTTP1_WAIT                     # the service works on it
    HTTP1_WRITE                    # the answer waits for the client to read
    HTTP1_LINGER                   # refused and answered; what still arrives is thrown away

# What the service says of a request at its head.
ctypedef struct Verdict:
    int status                     # 0: accepted, send the body to `route`; else answer this
    uint32_t route                 # counted under this
    const char *text               # answer's body, static
    const char *allow              # value of an Allow header, or NULL; static
    bint keep                      # the refusal says nothing against the connection

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
    # At the head. `path` is decoded. For a request without a body `wants_target` may be set by the service: its target is the payload.
    void (*judge)(void *context, const HttpRequest *request, const char *path, size_t path_n, Verdict *verdict, bint *wants_target) noexcept nogil
    int (*reserve)(void *context, uint64_t bytes, BodyBlock *body) noexcept nogil                  # 0, or -1: over the memory budget
    int (*grow)(void *context, uint64_t used, uint64_t bytes, BodyBlock *body) noexcept nogil      # a larger block with the same content
    void (*discard)(void *context, uint32_t block) noexcept nogil
    # The body is complete; the block is the service's from now on. Sets `task`, or leaves a refusal in `verdict`.
    void (*submit)(void *context, uint32_t slot, uint32_t generation, uint32_t route, uint32_t block, uint64_t length, uint64_t *task, Verdict *verdict) noexcept nogil
    void (*withdraw)(void *context, uint64_t task) noexcept nogil                                  # its client has left
    void (*released)(void *context, uint32_t block) noexcept nogil                                 # an answer's payload is with the kernel
    void (*counted)(void *context, uint32_t route, int status, uint64_t arrived) noexcept nogil    # an answer was given

ctypedef struct Http1:             # one a connection slot
    uint8_t phase
    uint8_t minor
    bint keep_alive
    bint is_head
    bint chunked
    HttpRequest *partial           # the parser's state in a head that is not complete; NULL: at the start of one
    uint32_t route
    uint64_t remaining             # body bytes still to come (not chunked)
    uint64_t received              # body bytes in the block
    uint64_t arrived               # ns: the head was complete
    BodyBlock body                 # block NO_BLOCK: none
    ChunkedDecoder decoder
    uint64_t task                  # WAIT
    uint32_t answer_block          # WRITE: released when sent
    Verdict refusal                # DISCARD

ctypedef struct Http1Io:
    Connections connections
    Http1 *states
    Http1Service service
    HttpLimits limits
    HttpWriter writer
    HttpRequest request            # the one being parsed; nothing of it outlives the event
    uint64_t max_body              # bytes
    bint draining                  # shutting down: each answer closes its connection
    uint64_t now                   # ns
    char *scratch                  # HTTP1_SCRATCH bytes
    char *path                     # room for a decoded path

cdef int http1_open(Http1Io *io, uint32_t max_connections) noexcept nogil        # 0, or -1: no memory
cdef void http1_close(Http1Io *io) noexcept nogil
cdef uint32_t http1_accept(Http1Io *io, int fd) noexcept nogil                    # slot or NO_CONNECTION
cdef void http1_event(Http1Io *io, uint32_t slot, uint32_t events) noexcept nogil # epoll's bits
cdef void http1_advance(Http1Io *io, uint32_t slot) noexcept nogil                # read and go on as far as the bytes reach
cdef void http1_run_ready(Http1Io *io) noexcept nogil
cdef void http1_expire(Http1Io *io) noexcept nogil                                # time-outs that are due at io.now
# The service's answer to what it was given by `submit`. False: that client has left; the caller keeps the block.
cdef bint http1_answer(Http1Io *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil
cdef void http1_drain(Http1Io *io) noexcept nogil                                 # shutting down: close what is between requests
cdef bint http1_is_busy(const Http1Io *io) noexcept nogil                         # a request is arriving, being worked on or being answered
