# A row's side of the shared memory: take a batch, publish the answers.

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._payload cimport Item, Payloads
from mosec_cy._ring cimport Bell, Descriptor, RingEnd
from mosec_cy._segment cimport RowShared, Segment

cdef class Channel:
    cdef Payloads payloads
    cdef RingEnd submit
    cdef RingEnd complete
    cdef RowShared *shared
    cdef Bell *core_bell
    cdef uint64_t *words
    cdef int core_bell_fd
    cdef uint32_t capacity
    cdef uint32_t task_slots
    cdef bint spoilt                   # the ring of tasks
    cdef uint32_t row
    cdef uint32_t incarnation
    cdef tuple offered                 # what `offer` was given, until `take` goes over to it
    cdef public list batch             # of `Item`: what `forward` works on, by place; None between batches
    cdef int _open(self, Segment segment, int core_bell_fd) except -1
    cdef int _go_over(self) except -1
    cdef bint has_lost(self, Item item) noexcept     # the core that gave it out is known to have ended
    cdef list _started(self, uint32_t most)
    cdef int _sleep(self) except -1
    # Shows core a descriptor; its ring has room for it.
    cdef int push(self, const Descriptor *d) except -1
    cdef int _publish(self, Item item, uint32_t block, uint32_t offset, uint64_t n, int status, int content_type,
                      uint32_t flags) except -1
    cdef bint _publish_copy(self, Item item, const void *data, uint64_t n, int status, int content_type,
                            uint32_t flags=*) except -1
    cdef bint _publish_frame(self, Item item, bytes pickled, list views) except -1
