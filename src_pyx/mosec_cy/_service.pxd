# From an accepted request to its answer: what HTTP asks of the service, and what the loop tells it.
# Sits between I/O and the pure modules; ids and descriptors cross both of its borders, never pointers to connections.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from mosec_cy._http1_service cimport Http1Service
from mosec_cy._state cimport Service

cdef void service_bind(Service *s, Http1Service *calls) noexcept nogil            # fills in the calls that HTTP makes
cdef void service_poll(Service *s) noexcept nogil                                 # takes what the rows have completed
cdef bint service_has_news(Service *s) noexcept nogil
cdef void service_wake(Service *s) noexcept nogil         # wakes the rows that were handed something
cdef void service_expire(Service *s) noexcept nogil                               # all that is due at s.now
cdef uint64_t service_deadline(Service *s) noexcept nogil                         # ns
cdef void service_row_started(Service *s, uint32_t row, uint32_t incarnation, int32_t pid, int pidfd) noexcept nogil
cdef void service_row_ready(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil
cdef void service_row_drain(Service *s, uint32_t row, uint32_t incarnation) noexcept nogil
cdef void service_row_dead(Service *s, uint32_t row) noexcept nogil
