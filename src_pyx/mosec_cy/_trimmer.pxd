# Gives the pages of idle blocks back to the kernel. A block that nobody has used for one whole period is claimed,
# emptied and freed again; used ones stay warm, since a page that must be faulted in costs twenty times the copy.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._pool cimport Pool

cdef enum:
    TRIM_PERIOD_NS = 10_000_000_000

ctypedef struct Trimmer:
    Pool *pool                 # core's
    uint8_t *marks             # one a block number
    uint32_t *watched          # blocks that have a mark
    uint32_t watched_n
    uint64_t next_at           # ns; the largest value: nothing is warm, there is nothing to wake up for

cdef int trimmer_open(Trimmer *t, Pool *pool) noexcept nogil                  # 0, or -1: no memory
cdef void trimmer_close(Trimmer *t) noexcept nogil
cdef void trimmer_note(Trimmer *t, uint32_t block, uint64_t now) noexcept nogil   # core has dropped it
cdef void trimmer_run(Trimmer *t, uint64_t now) noexcept nogil               # when next_at has come
