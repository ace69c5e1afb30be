# Streams of events, from the rows' rings to the clients, and what is told back: how much has gone out.

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._ring cimport Descriptor
from mosec_cy._state cimport Service

# A row's event; its block is core's already, and goes. `sound`: what it says of that block is possible.
cdef void stream_event(Service *s, uint32_t row, const Descriptor *d, bint sound) noexcept nogil
cdef void stream_admit(Service *s, uint32_t slot) noexcept nogil       # before the task is first handed out
# As Http1Service.streamed; `context` is the Service.
cdef void stream_acknowledge(void *context, uint64_t id, uint64_t pending) noexcept nogil
