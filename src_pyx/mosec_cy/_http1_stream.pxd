# An answer that is a stream of events, on an HTTP/1.x connection. Each of these may close the connection.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._http1_service cimport Answer
from mosec_cy._http1_state cimport Http1Io

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
