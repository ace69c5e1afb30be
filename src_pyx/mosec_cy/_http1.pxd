# HTTP/1.x connections as the loop sees them: opened, told of events and of time, answered.
#
#   _http1 (life, events, time) -> _http1_read (heads, what becomes of a request) -> _http1_body ->
#   _http1_stream, _http1_pressure -> _http1_write

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._http1_service cimport Answer
from mosec_cy._http1_state cimport Http1Io

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
