# HTTP/1.x connections (RFC 9112) as the loop uses them: accept, events, time-outs, answers.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._engine.connection cimport Connections
from mosec_cy._engine.dispatch cimport Answer
from mosec_cy._engine.http_request cimport ChunkedDecoder, HttpLimits, HttpRequest
from mosec_cy._engine.http_response cimport HttpWriter
from mosec_cy._engine.service cimport BodyBlock, Service, TextAnswer

cdef enum:
    HTTP1_SCRATCH = 65536          # bytes read at once; a head is at most half of it
    # What one connection may take before the others get their turn: bytes, and heads (pipelined ones are tiny).
    HTTP1_QUOTA = 262144
    HTTP1_HEADS = 64

# The phases of a connection and what ends them; http1.pyx has the transitions as a table that debug builds check.
#
#            bytes of the client      the service     the client's FIN        time-out
#   HEAD     parsed                   -               closed                  408 if a head has begun, else closed
#   BODY     into the block           -               closed                  408, unless bytes came
#   DISCARD  dropped, then refused    -               closed                  408, unless bytes came
#   WAIT     kept for later           WRITE, STREAM   a 100 Continue probes   - (the task's own)
#                                                     (HTTP/1.1)
#   STREAM   kept for later           event, WRITE    a comment probes        a comment; socket full: as WRITE
#   WRITE    kept; dropped if the     -               read to its end         closed, unless bytes went out
#            connection is to close
#   LINGER   dropped                  -               closed                  closed, unless bytes came
#
# A socket error closes the connection in each of them: the task is withdrawn, blocks are released.
cdef enum Http1Phase:
    HTTP1_HEAD = 0                 # a head is expected or arriving
    HTTP1_BODY                     # the body is arriving
    HTTP1_DISCARD                  # the small body of a request that is answered, without it, afterwards
    HTTP1_WAIT                     # the service works on the request
    HTTP1_WRITE                    # the answer waits for the client to read
    HTTP1_STREAM                   # the answer is a stream, to which the service adds events
    HTTP1_LINGER                   # refused and answered; what still arrives is dropped

ctypedef struct Http1:             # one a connection slot
    uint8_t phase
    uint8_t minor
    bint keep_alive
    bint linger                    # the answer refuses what the client may still send, or does not know of yet
    bint is_head
    bint chunked                   # of the body; STREAM: of the answer
    HttpRequest *partial           # the parser's state in a head that is not complete; NULL: at the start of one
    uint32_t route
    uint32_t task_flags            # the service's
    uint64_t deadline              # likewise
    uint64_t remaining             # body bytes still to come (not chunked)
    uint64_t received              # body bytes in the block; LINGER: bytes thrown away
    uint64_t arrived               # ns: when the head was complete; LINGER: when lingering began
    BodyBlock body                 # STREAM: of what is unsent; block NO_BLOCK: none
    ChunkedDecoder decoder
    uint64_t task                  # WAIT, STREAM
    uint32_t answer_block          # WRITE: released when the answer is sent
    TextAnswer refusal             # DISCARD

ctypedef struct Http1Io:
    Connections connections
    Http1 *states
    Service *service
    HttpLimits limits
    HttpWriter writer
    HttpRequest request            # the one being parsed; nothing of it outlives the event
    uint64_t max_body              # bytes
    bint draining                  # shutting down: each answer closes its connection
    uint32_t heads                 # taken in this turn
    uint64_t now                   # ns
    char *scratch                  # HTTP1_SCRATCH bytes
    char *path                     # room for a decoded path

cdef int http1_open(Http1Io *io, uint32_t max_connections) noexcept nogil          # 0, or -1: no memory
cdef void http1_close(Http1Io *io) noexcept nogil
cdef uint32_t http1_accept(Http1Io *io, int fd) noexcept nogil                     # slot or NO_CONNECTION
# Closes one connection and releases all that its request holds.
cdef void http1_shut(Http1Io *io, uint32_t slot) noexcept nogil
cdef void http1_event(Http1Io *io, uint32_t slot, uint32_t events) noexcept nogil  # epoll's bits
cdef void http1_run_ready(Http1Io *io) noexcept nogil
cdef void http1_expire(Http1Io *io) noexcept nogil                                 # time-outs that are due at io.now
# The service's answer to what it was given by service_submit. False: the client has left; the caller keeps the block.
cdef bint http1_answer(Http1Io *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil
# An event for the stream that service_submit has begun. It is copied, and sent with others of this turn.
cdef void http1_stream(Http1Io *io, uint32_t slot, uint32_t generation, const uint8_t *event, uint64_t n) noexcept nogil
# Shutting down: each answer closes its connection from now on, and connections between requests are closed soon.
cdef void http1_drain(Http1Io *io) noexcept nogil
# No time is left to read bodies: each client that is sending one gets a refusal.
cdef void http1_reject_pending(Http1Io *io) noexcept nogil
# True while the body of a request arrives, or a request is being worked on or answered.
cdef bint http1_is_busy(const Http1Io *io) noexcept nogil
