"""Deadlines in any order: an indexed binary heap (Williams 1964), from which any entry can be removed."""

from libc.stdlib cimport calloc, free


cdef inline void _put(Deadlines *d, uint32_t place, Deadline entry) noexcept nogil:
    d.heap[place] = entry
    d.places[entry.id] = place


cdef uint32_t _rise(Deadlines *d, uint32_t place, uint64_t at) noexcept nogil:
    # Where an entry for `at` belongs on the way from the hole `place` to the top; later ones move down.
    cdef uint32_t above
    while place > 0:
        above = (place - 1) // 2
        if d.heap[above].at <= at:
            break
        _put(d, place, d.heap[above])
        place = above
    return place


cdef uint32_t _sink(Deadlines *d, uint32_t place, uint64_t at) noexcept nogil:
    # Likewise on the way to the bottom; earlier ones move up.
    cdef uint32_t below = 2 * place + 1
    while below < d.count:
        if below + 1 < d.count and d.heap[below + 1].at < d.heap[below].at:
            below += 1
        if at <= d.heap[below].at:
            break
        _put(d, place, d.heap[below])
        place = below
        below = 2 * place + 1
    return place


cdef void deadlines_init(Deadlines *d, Deadline *heap, uint32_t *places) noexcept nogil:
    d.heap = heap
    d.places = places
    d.count = 0


cdef void deadlines_add(Deadlines *d, uint32_t id, uint64_t at) noexcept nogil:
    d.count += 1
    _put(d, _rise(d, d.count - 1, at), Deadline(at=at, id=id))


cdef void deadlines_remove(Deadlines *d, uint32_t id) noexcept nogil:
    cdef uint32_t place = d.places[id]
    cdef Deadline last
    d.count -= 1
    if place == d.count:
        return
    last = d.heap[d.count]
    place = _sink(d, _rise(d, place, last.at), last.at)
    _put(d, place, last)


cdef class DeadlineHeap:
    """Deadlines over memory of their own; for tests of the C functions above.

    ids: from 0 to `ids` - 1. A wrong id raises ValueError, before anything is changed.
    """

    cdef Deadlines d
    cdef readonly uint32_t ids
    cdef set inside

    def __cinit__(self, uint32_t ids):
        cdef Deadline *heap = <Deadline *>calloc(ids, sizeof(Deadline))
        cdef uint32_t *places = <uint32_t *>calloc(ids, sizeof(uint32_t))
        deadlines_init(&self.d, heap, places)
        self.ids = ids
        self.inside = set()
        if heap == NULL or places == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.d.heap)
        free(self.d.places)

    def __len__(self):
        return self.d.count

    def add(self, uint32_t id, uint64_t at):
        """Put an id in, due at `at` (ns)."""
        if id >= self.ids or id in self.inside:
            raise ValueError(f"id {id} is in there already, or is not below {self.ids}")
        self.inside.add(id)
        deadlines_add(&self.d, id, at)

    def remove(self, uint32_t id):
        """Take an id out."""
        if id not in self.inside:
            raise ValueError(f"id {id} is not in there")
        self.inside.remove(id)
        deadlines_remove(&self.d, id)

    def next(self):
        """(at, id) of the first that is due, or None."""
        return (self.d.heap[0].at, self.d.heap[0].id) if self.d.count else None
