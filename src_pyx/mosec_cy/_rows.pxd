# The rows at work: batches go out to them, answers come back, time-outs are watched.

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._state cimport Link, Service

cdef void rows_dispatch(Service *s, uint32_t stage) noexcept nogil     # hands out what can be started now
cdef void row_forget_batch(Link *link) noexcept nogil                  # no batch is under way: nothing is timed
cdef void row_poll(Service *s, uint32_t row) noexcept nogil            # takes what the row has completed
cdef void row_report_idle(Service *s, uint32_t row) noexcept nogil     # a leaving one without tasks: to master, once
cdef void rows_wake(Service *s) noexcept nogil                         # wakes those that were handed something
cdef void rows_poll(Service *s) noexcept nogil                         # of each row that has news
cdef bint rows_have_news(Service *s) noexcept nogil
cdef void rows_expire(Service *s) noexcept nogil                       # overruns that are due at s.now
cdef uint64_t rows_deadline(const Service *s) noexcept nogil           # ns
