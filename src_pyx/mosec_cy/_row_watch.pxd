# Rows that overrun their time, or hang.

from libc.stdint cimport uint64_t

from mosec_cy._state cimport Service

cdef void rows_expire(Service *s) noexcept nogil                       # looks at those whose time has come at s.now
cdef uint64_t rows_deadline(const Service *s) noexcept nogil           # ns, when the next one has
