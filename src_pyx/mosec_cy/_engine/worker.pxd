# A slot's side of the shared memory: takes batches, publishes answers, passes results on to the next stage.

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from mosec_cy._engine.pool cimport Pool
from mosec_cy._engine.ring cimport Bell, Descriptor, RingEnd
from mosec_cy._engine.segment cimport SlotShared, Segment

# ---- frames --------------------------------------------------------------------------------------
# A framed payload: what pickle protocol 5 (PEP 574) leaves out of band lies beside the pickle in the same block.
#
#   header | entries, one a buffer | pickle | buffers, each 64-byte aligned
#
# Offsets count from the header, which lies where the payload begins.

cdef enum:
    MAX_FRAME_BUFFERS = 65536

ctypedef struct FrameHeader:
    uint32_t buffers
    uint32_t reserved
    uint64_t pickle_offset             # bytes, as all below
    uint64_t pickle_length

ctypedef struct FrameEntry:
    uint64_t offset
    uint64_t length

# `views`: contiguous memoryviews of bytes, at most MAX_FRAME_BUFFERS.
cdef uint64_t frame_bytes(bytes pickled, list views) except? 0
cdef int frame_write(Payloads payloads, uint8_t *room, bytes pickled, list views) except -1    # room for frame_bytes
# The pickled value; its buffers are views of the payload. ValueError: the frame is malformed.
cdef object frame_load(Item item)

# ---- payloads ------------------------------------------------------------------------------------
# A slot's payloads in shared memory, and the claims that keep them valid while buffers point into them.

cdef class Item:
    cdef Payloads payloads
    cdef object private                # a copy of its own: the slot leases too much already, or the task may run again
    cdef uint8_t *data                 # NULL: answered, and no buffer points into it
    cdef readonly Py_ssize_t length
    cdef Py_ssize_t exports            # buffers that point into it now
    cdef uint64_t task
    cdef uint32_t sequence
    cdef uint32_t block                # NO_BLOCK: there is no payload
    cdef uint32_t flags
    cdef public uint32_t cost          # of the result, in the next stage: set before it is published
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
    cdef bint disabled                 # this process was forked from the slot's
    cdef object __weakref__
    cdef Item item(self, const Descriptor *d)
    # Room for `n` bytes, and the block that it lies in; NULL if no block was free, or this is a forked process.
    cdef uint8_t *room(self, uint64_t n, uint32_t *block) noexcept
    cdef memoryview new_buffer(self, Py_ssize_t n)
    cdef void copy(self, void *to, const void *source, uint64_t n) noexcept      # without the GIL if it takes long

cdef class Channel:
    cdef Payloads payloads
    cdef RingEnd submit
    cdef RingEnd complete
    cdef SlotShared *shared
    cdef Bell *core_bell
    cdef uint64_t *words
    cdef int core_bell_fd
    cdef uint32_t capacity
    cdef uint32_t max_tasks
    cdef bint corrupt                   # the ring of tasks is corrupt
    cdef uint32_t slot
    cdef uint32_t incarnation
    cdef tuple offered                 # arguments of `offer`, until `take` goes over to them
    cdef public list batch             # of `Item`: what `forward` works on, by place; None between batches
    cdef int _open(self, Segment segment, int core_bell_fd) except -1
    cdef int _go_over(self) except -1
    cdef bint has_lost(self, Item item) noexcept     # the core that dispatched it is known to have ended
    cdef list _started(self, uint32_t most)
    cdef int _sleep(self) except -1
    # Pushes a descriptor to core and rings its bell; the ring has room for it.
    cdef int push(self, const Descriptor *d) except -1
    cdef int _publish(self, Item item, uint32_t block, uint32_t offset, uint64_t n, int status, int content_type,
                      uint32_t flags) except -1
    cdef bint _publish_copy(self, Item item, const void *data, uint64_t n, int status, int content_type,
                            uint32_t flags=*) except -1
    cdef bint _publish_frame(self, Item item, bytes pickled, list views) except -1
