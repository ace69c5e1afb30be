# Request bodies, from the socket into shared memory.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from mosec_cy._http1_state cimport Http1Io

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
