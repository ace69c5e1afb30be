# Reading on an HTTP/1.x connection: request heads, and what becomes of a request.

from libc.stdint cimport uint32_t

from mosec_cy._http1_state cimport Http1Io

# Reads and goes on as far as the bytes reach. The connection may be closed afterwards.
cdef void http1_advance(Http1Io *io, uint32_t slot) noexcept nogil
