# Deadlines in any order, of things with small numbers: an indexed binary heap. Pure: memory and time are arguments.

from libc.stdint cimport uint32_t, uint64_t

ctypedef struct Deadline:
    uint64_t at                       # ns
    uint32_t id

ctypedef struct Deadlines:
    Deadline *heap                    # caller's: as many entries as there are ids; heap[0] is the next one due
    uint32_t *places                  # caller's: [id] index in the heap, defined while it is in there
    uint32_t count

# Neither array is read before it is written: zeroed pages of large ones stay untouched until they are needed.
cdef void deadlines_init(Deadlines *d, Deadline *heap, uint32_t *places) noexcept nogil
cdef void deadlines_add(Deadlines *d, uint32_t id, uint64_t at) noexcept nogil       # an id that is not in there
cdef void deadlines_remove(Deadlines *d, uint32_t id) noexcept nogil                 # one that is; both O(log count)
