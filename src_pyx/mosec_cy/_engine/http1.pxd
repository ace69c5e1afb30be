# The state of HTTP/1.x connections, shared by the modules that read, take bodies and write.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from mosec_cy._engine.connection cimport Connections
from mosec_cy._engine.http_request cimport ChunkedDecoder, HttpLimits, HttpRequest
from mosec_cy._engine.http_response cimport HttpWriter
from mosec_cy._engine.service cimport Answer, BodyBlock, Http1Service, Verdict

cdef enum:
    HTTP1_SCRATCH = 65536          # bytes read at once; a head is at most half of it
    # What one connection may take before the others get their turn: bytes, and heads (pipelined ones are tiny).
    HTTP1_QUOTA = 262144
    HTTP1_HEADS = 64

cdef enum Http1Phase:
    HTTP1_HEAD = 0                 # a head is expected or arriving
    HTTP1_BODY                     # the body is arriving
    HTTP1_DISCARD                  # the small body of a request that is answered, without it, afterwards
    HTTP1_WAIT                     # the service works on it
    HTTP1_WRITE                    # the answer waits for the client to read
    HTTP1_STREAM                   # the answer is a stream, and the service goes on with it
    HTTP1_LINGER                   # refused and answered; what still arrives is thrown away

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
    uint64_t arrived               # ns: the head was complete; LINGER: that began
    BodyBlock body                 # STREAM: of what is unsent; block NO_BLOCK: none
    ChunkedDecoder decoder
    uint64_t task                  # WAIT, STREAM
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
    uint32_t heads                 # taken in this turn
    uint64_t now                   # ns
    char *scratch                  # HTTP1_SCRATCH bytes
    char *path                     # room for a decoded path

# ---- life, events, time --------------------------------------------------------------------------
# HTTP/1.x connections as the loop sees them: opened, told of events and of time, answered.
#
#   _http1 (life, events, time) -> _http1_read (heads, what becomes of a request) -> _http1_body ->
#   _http1_stream, _http1_pressure -> _http1_write

cdef int http1_open(Http1Io *io, uint32_t max_connections) noexcept nogil          # 0, or -1: no memory
cdef void http1_close(Http1Io *io) noexcept nogil
cdef uint32_t http1_accept(Http1Io *io, int fd) noexcept nogil                     # slot or NO_CONNECTION
cdef void http1_event(Http1Io *io, uint32_t slot, uint32_t events) noexcept nogil  # epoll's bits
cdef void http1_run_ready(Http1Io *io) noexcept nogil
cdef void http1_expire(Http1Io *io) noexcept nogil                                 # time-outs that are due at io.now
# The service's answer to what it was given by `submit`. False: that client has left; the caller keeps the block.
cdef bint http1_answer(Http1Io *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil
# An event for the stream that `submit` has begun. It is copied, and sent with others of this turn.
cdef void http1_stream(Http1Io *io, uint32_t slot, uint32_t generation, const uint8_t *event, uint64_t n) noexcept nogil
# Shutting down: each answer closes its connection from now on, and those between requests are closed in a moment.
cdef void http1_drain(Http1Io *io) noexcept nogil
# No time is left to read bodies: whoever sends one is told.
cdef void http1_farewell(Http1Io *io) noexcept nogil
# The body of a request is arriving, it is being worked on or being answered.
cdef bint http1_is_busy(const Http1Io *io) noexcept nogil

# ---- heads ---------------------------------------------------------------------------------------
# Reading on an HTTP/1.x connection: request heads, and what becomes of a request.

# Reads and goes on as far as the bytes reach. The connection may be closed afterwards.
cdef void http1_advance(Http1Io *io, uint32_t slot) noexcept nogil

# ---- bodies --------------------------------------------------------------------------------------
# Request bodies, from the socket into shared memory.

# True; False: there is no memory, and the request was refused.
cdef bint body_reserve(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil
# All of the body is in its block: it is the service's now.
cdef void body_submit(Http1Io *io, uint32_t slot) noexcept nogil
# The service works on the request, or the client has half-closed while it does.
cdef void body_await(Http1Io *io, uint32_t slot) noexcept nogil
# There is no body, and so no work.
cdef void body_answer_empty(Http1Io *io, uint32_t slot) noexcept nogil
# Takes what belongs to the body of the request at hand; bytes consumed.
cdef size_t body_take(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil
cdef size_t body_discard(Http1Io *io, uint32_t slot, size_t n) noexcept nogil
# What comes next is nothing but body, and enough of it to be received straight into the block.
cdef bint body_is_plain(const Http1Io *io, uint32_t slot) noexcept nogil
# Receives up to `quota` bytes of that; as connection_receive(). The connection may be closed afterwards.
cdef int64_t body_receive(Http1Io *io, uint32_t slot, uint64_t quota) noexcept nogil

# ---- answers -------------------------------------------------------------------------------------
# Answers on an HTTP/1.x connection, and what becomes of it afterwards. Each of these may close the connection.

# Closes the connection and gives back all that its request holds.
cdef void http1_shut(Http1Io *io, uint32_t slot) noexcept nogil
cdef void http1_write(Http1Io *io, uint32_t slot, const Answer *answer) noexcept nogil
cdef void http1_write_text(Http1Io *io, uint32_t slot, const Verdict *verdict) noexcept nogil
# The connection's framing can no longer be trusted, or its rest is not worth reading: answers and closes.
cdef void http1_refuse(Http1Io *io, uint32_t slot, int status, const char *text) noexcept nogil
# The same where no head could be made out: nothing of the request before it counts.
cdef void http1_refuse_head(Http1Io *io, uint32_t slot, int status, const char *text) noexcept nogil
# An interim response: go on (RFC 9110 section 15.2.1). False: the connection was closed.
cdef bint http1_continue(Http1Io *io, uint32_t slot) noexcept nogil
# All of an answer is with the kernel.
cdef void http1_sent(Http1Io *io, uint32_t slot) noexcept nogil

# ---- streams of events ---------------------------------------------------------------------------
# An answer that is a stream of events, on an HTTP/1.x connection. Each of these may close the connection.

# Sends the head; the phase is HTTP1_STREAM from now on.
cdef void stream_begin(Http1Io *io, uint32_t slot) noexcept nogil
# Some bytes of the stream, copied; they are sent by the next stream_flush.
cdef void stream_put(Http1Io *io, uint32_t slot, const uint8_t *event, uint64_t n) noexcept nogil
cdef void stream_flush(Http1Io *io, uint32_t slot) noexcept nogil
# What connection_flush said.
cdef void stream_sent(Http1Io *io, uint32_t slot, int rc) noexcept nogil
# A line without a meaning, for a connection on which nothing else is under way.
cdef void stream_comment(Http1Io *io, uint32_t slot) noexcept nogil
# The end; an answer that is no 200 becomes an event `error` before it.
cdef void stream_end(Http1Io *io, uint32_t slot, const Answer *answer) noexcept nogil

# ---- memory pressure -----------------------------------------------------------------------------
# Memory for bodies is used up: who holds much of it and hardly moves makes way for others.

# Makes room for `bytes` more bytes for the request of `slot`, as far as there is some to make. False: nobody has gone.
cdef bint pressure_relieve(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil
# Answers that there is no memory for this request's body, and closes.
cdef void pressure_refuse(Http1Io *io, uint32_t slot) noexcept nogil
