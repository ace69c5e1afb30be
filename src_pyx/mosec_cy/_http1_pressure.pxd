# Memory for bodies is used up: who holds much of it and hardly moves makes way for others.

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._http1_state cimport Http1Io

# Makes room for `bytes` more bytes for the request of `slot`, as far as there is some to make. False: nobody has gone.
cdef bint pressure_relieve(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil
# Answers that there is no memory for this request's body, and closes.
cdef void pressure_refuse(Http1Io *io, uint32_t slot) noexcept nogil
