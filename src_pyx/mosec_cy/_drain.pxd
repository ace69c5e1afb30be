# What a shutdown does to requests that are inside.

from mosec_cy._state cimport Service

cdef void drain_hopeless(Service *s) noexcept nogil    # who waits for a stage without a worker: there will be none
cdef void drain_all(Service *s) noexcept nogil         # time is up: whoever still waits is told
