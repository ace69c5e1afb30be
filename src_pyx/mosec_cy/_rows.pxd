# The rows at work: batches go out to them, answers come back.

from libc.stdint cimport uint32_t

from mosec_cy._state cimport Link, Service

cdef void rows_dispatch(Service *s, uint32_t stage) noexcept nogil     # hands out what can be started now
cdef void row_forget_batch(Link *link) noexcept nogil                  # no batch is under way: nothing is timed
cdef void row_poll(Service *s, uint32_t row) noexcept nogil            # takes what the row has completed
cdef void row_report_idle(Service *s, uint32_t row) noexcept nogil     # a leaving one without tasks: to master, once
cdef void rows_wake(Service *s) noexcept nogil                         # wakes those that were handed something
cdef void rows_poll(Service *s) noexcept nogil                         # of each row that has news
cdef bint rows_have_news(Service *s) noexcept nogil
# No more is read from it and it is killed: its death does the rest.
cdef void row_give_up(Service *s, uint32_t row) noexcept nogil
