# A row's payloads in shared memory, and the claims that keep them valid for as long as somebody looks into them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._pool cimport Pool
from mosec_cy._ring cimport Descriptor
from mosec_cy._segment cimport Segment

cdef class Item:
    cdef Payloads payloads
    cdef object private                # bytes of its own: the row leases too much already, or the task may run again
    cdef uint8_t *data                 # NULL: answered, nobody looked
    cdef readonly Py_ssize_t length
    cdef Py_ssize_t exports            # buffers that look into it now
    cdef uint64_t task
    cdef uint32_t sequence
    cdef uint32_t block                # NO_BLOCK: there is no payload
    cdef uint32_t flags
    cdef bint leased
    cdef readonly bint answered
    cdef bint stream_ended             # no more events: core has been told
    cdef uint64_t streamed             # bytes of events sent
    cdef void settle(self) noexcept    # just before the answer is published: core's claim still holds the block
    cdef void _forget(self) noexcept
    cdef void _give_back(self) noexcept

cdef class OutputBlock:
    cdef Payloads payloads
    cdef uint8_t *data
    cdef Py_ssize_t length
    cdef Py_ssize_t exports
    cdef uint32_t block                # NO_BLOCK: it has been sent

cdef class Payloads:
    cdef Segment segment
    cdef Pool pool
    cdef uint64_t lessee
    cdef uint64_t lease_limit          # bytes
    cdef uint64_t leased_bytes
    cdef bint disabled                 # this process was forked from the row's
    cdef object __weakref__
    cdef Item item(self, const Descriptor *d)
    # Room for `n` bytes, and the block that it lies in; NULL if no block was free, or this is a forked process.
    cdef uint8_t *room(self, uint64_t n, uint32_t *block) noexcept
    cdef memoryview new_buffer(self, Py_ssize_t n)
    cdef void copy(self, void *to, const void *source, uint64_t n) noexcept      # without the GIL if it takes long
