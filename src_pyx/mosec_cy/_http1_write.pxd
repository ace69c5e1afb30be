# Answers on an HTTP/1.x connection, and what becomes of it afterwards. Each of these may close the connection.

from libc.stdint cimport uint32_t

from mosec_cy._http1_service cimport Answer, Verdict
from mosec_cy._http1_state cimport Http1Io

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
