"""A row's side of the shared memory: take a batch, look into its payloads, publish the answers."""

import os
import pickle
import weakref

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.unistd cimport write

cimport cython

from mosec_cy._batcher cimport word_cancelled, word_start
from mosec_cy._linux cimport (
    load_acquire_u32,
    mosec_futex_wait,
    mosec_now_ns,
    store_relaxed_u64,
    store_relaxed_u32,
    store_release_u32,
)
from mosec_cy._pool cimport (
    POOL_PAYLOAD_OFFSET,
    Pool,
    pool_allocate,
    pool_block_data,
    pool_check,
    pool_drop_lease,
    pool_lease,
    pool_lessee,
)
from mosec_cy._ring cimport (
    NO_BLOCK,
    RING_OK,
    Bell,
    Descriptor,
    RingEnd,
    bell_awake,
    bell_prepare,
    bell_ring,
    ring_has_news,
    ring_pop,
    ring_publish,
    ring_push,
    ring_release,
)
from mosec_cy._segment cimport PHASE_DECODE, PHASE_ENCODE, PHASE_FORWARD, PHASE_IDLE, ROW_STOP, RowShared, Segment
from mosec_cy._service cimport PAYLOAD_FRAMED, TASK_FIRST, TASK_LAST

cdef enum:
    COPY_WITHOUT_GIL = 1 << 20         # bytes; below, giving the GIL away costs more than it gives
    LEASE_SHARE = 8                    # a row may lease 1/8 of the budget, afterwards it gets copies
    ALIGNMENT = 64                     # of a framed payload's buffers
    MAX_FRAME_BUFFERS = 65536

# A framed payload: what pickle protocol 5 (PEP 574) leaves out of band lies beside the pickle in the same block.
# Offsets count from the header.
ctypedef struct FrameHeader:
    uint32_t buffers
    uint32_t reserved
    uint64_t pickle_offset
    uint64_t pickle_length

ctypedef struct FrameEntry:
    uint64_t offset
    uint64_t length

cdef uint8_t _nothing = 0


cdef inline uint64_t _aligned(uint64_t n) noexcept nogil:
    return (n + ALIGNMENT - 1) & ~(<uint64_t>ALIGNMENT - 1)


cdef void _copy(void *to, const void *source, uint64_t n) noexcept:
    if n < COPY_WITHOUT_GIL:
        memcpy(to, source, n)
    else:
        with nogil:
            memcpy(to, source, n)


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class Item:
    """One task's payload in shared memory: a writable buffer of `length` bytes.

    While the task is unanswered core keeps the block. If something still looks into it when the answer is
    published (a memoryview, an array), this object takes a claim of its own and drops it when the last look is gone.
    """

    cdef Channel channel
    cdef object private                # bytes of its own, where the row leases too much already
    cdef uint8_t *data                 # NULL: answered, nobody looked
    cdef readonly Py_ssize_t length
    cdef Py_ssize_t exports
    cdef uint64_t task
    cdef uint32_t sequence
    cdef uint32_t block
    cdef uint32_t flags
    cdef bint leased
    cdef readonly bint answered

    def __len__(self):
        return self.length

    @property
    def is_first(self):
        """The payload is a request's body, and not the result of a stage before."""
        return bool(self.flags & TASK_FIRST)

    @property
    def is_last(self):
        """The result is the client's answer, and does not go to a next stage."""
        return bool(self.flags & TASK_LAST)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.data == NULL:
            raise BufferError("this payload has been answered; keep a view or a copy made before that")
        PyBuffer_FillInfo(buffer, self, self.data, self.length, False, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1
        if self.exports == 0 and self.leased:
            self._give_back()

    def __dealloc__(self):
        if self.leased:
            self._give_back()

    cdef void _settle(self) noexcept:
        self.answered = True
        # Just before the answer is published: core's claim still holds the block.
        if self.exports and self.private is None and self.block != NO_BLOCK and self.length:
            self.leased = pool_lease(&self.channel.pool, self.block, self.channel.lessee) == 0
            if self.leased:
                self.channel.leased_bytes += self.length
        elif not self.exports:
            self.data = NULL

    cdef void _give_back(self) noexcept:
        self.leased = False
        self.data = NULL
        self.channel.leased_bytes -= self.length
        if not self.channel.disabled:
            pool_drop_lease(&self.channel.pool, self.block, self.channel.lessee)


@cython.final
@cython.no_gc
cdef class OutputBlock:
    """A block that user code fills in place and returns as its answer."""

    cdef Channel channel
    cdef uint8_t *data
    cdef Py_ssize_t length
    cdef Py_ssize_t exports
    cdef uint32_t block

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.block == NO_BLOCK:
            raise BufferError("this buffer has been sent")
        PyBuffer_FillInfo(buffer, self, self.data, self.length, False, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1

    def __dealloc__(self):
        if self.block != NO_BLOCK and not self.channel.disabled:
            pool_drop_lease(&self.channel.pool, self.block, self.channel.lessee)


cdef class Channel:
    """A row's connection to core. One thread takes and publishes; views and buffers may be dropped in any.

    Args:
        segment: the service's shared memory.
        row: number of the row in it.
        incarnation: which life of the row this process is.
        core_bell_fd: eventfd of core; borrowed.
    """

    cdef Segment segment
    cdef Pool pool
    cdef RingEnd submit
    cdef RingEnd complete
    cdef RowShared *shared
    cdef Bell *core_bell
    cdef uint64_t *words
    cdef uint64_t lessee
    cdef uint64_t lease_limit
    cdef readonly uint64_t leased_bytes
    cdef int core_bell_fd
    cdef uint32_t capacity
    cdef bint disabled
    cdef object __weakref__

    def __init__(self, Segment segment, uint32_t row, uint32_t incarnation, int core_bell_fd):
        if row >= segment.rows:
            raise ValueError(f"row {row} of {segment.rows}")
        self.segment = segment
        segment.attach_pool(&self.pool, 1 + row)
        segment.attach_submit(row, &self.submit)
        segment.attach_complete(row, &self.complete)
        self.shared = segment.row(row)
        self.core_bell = segment.core_bell()
        self.words = segment.words()
        self.lessee = pool_lessee(row, incarnation)
        self.lease_limit = segment.budget // LEASE_SHARE
        self.core_bell_fd = core_bell_fd
        self.capacity = segment.submit_capacity(row)
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _disable(reference()))

    # ---- taking ----------------------------------------------------------------------------------

    cdef Item _item(self, const Descriptor *d):
        cdef Item item = Item.__new__(Item)
        item.channel = self
        item.task = d.task
        item.sequence = d.sequence
        item.block = d.block
        item.flags = d.flags
        item.length = d.length
        if d.block == NO_BLOCK or pool_check(&self.pool, d.block, d.offset, d.length) != 0:
            item.block = NO_BLOCK
            item.length = 0
            item.data = &_nothing
        else:
            item.data = pool_block_data(&self.pool, d.block) + d.offset
            if self.leased_bytes + d.length > self.lease_limit:
                self._make_private(item)
        return item

    cdef int _make_private(self, Item item) except -1:
        item.private = PyBytes_FromStringAndSize(NULL, item.length)
        _copy(PyBytes_AS_STRING(item.private), item.data, item.length)
        item.data = <uint8_t *>PyBytes_AS_STRING(item.private)
        return 0

    cdef list _started(self, uint32_t most):
        # What the ring holds, up to `most` descriptors: those that this row wins.
        cdef Descriptor d
        cdef list items = []
        cdef uint32_t i = 0
        while i < most and ring_pop(&self.submit, &d) == RING_OK:
            if i == 0:
                if d.batch_size < most:
                    most = d.batch_size
                store_relaxed_u32(&self.shared.batch, d.batch)     # relaxed: begin_forward publishes it
            i += 1
            if <uint32_t>d.task < self.segment.task_slots and word_start(&self.words[<uint32_t>d.task], d.sequence):
                items.append(self._item(&d))
        ring_release(&self.submit)
        return items

    cdef int _sleep(self) except -1:
        cdef uint32_t seen = bell_prepare(&self.shared.bell)
        cdef int rc = 0
        # acquire; pairs with the release in Segment.stop_row
        if not ring_has_news(&self.submit) and load_acquire_u32(&self.shared.command) == 0:
            with nogil:
                rc = mosec_futex_wait(&self.shared.bell.counter, seen, NULL)
        bell_awake(&self.shared.bell)
        if rc != 0:
            PyErr_CheckSignals()
        return 0

    def take(self):
        """Waits for a batch: a list of `Item`, or None when the row was asked to stop and its ring is empty."""
        cdef list items
        if self.disabled:
            raise RuntimeError("a process forked from a worker cannot take its tasks")
        store_release_u32(&self.shared.phase, PHASE_IDLE)        # pairs with core's look at an overrun
        while True:
            if ring_has_news(&self.submit):
                items = self._started(self.capacity)
                if items:
                    store_release_u32(&self.shared.phase, PHASE_DECODE)      # as above
                    return items
            elif load_acquire_u32(&self.shared.command) & ROW_STOP:          # pairs with the release in stop_row
                return None
            else:
                self._sleep()

    def take_now(self):
        """What is there, without waiting; when nothing is, the next task wakes this row by its eventfd."""
        cdef list items = []
        while True:
            while ring_has_news(&self.submit):
                items += self._started(self.capacity)
            bell_prepare(&self.shared.bell)
            if not ring_has_news(&self.submit):
                return items

    # ---- phases ----------------------------------------------------------------------------------

    def begin_forward(self):
        """From now on the stage's time-out runs."""
        store_relaxed_u64(&self.shared.since, mosec_now_ns())    # relaxed: the next line publishes it
        store_release_u32(&self.shared.phase, PHASE_FORWARD)     # with `since`; pairs with core's look at an overrun

    def end_forward(self):
        """The stage's time-out runs no longer."""
        store_release_u32(&self.shared.phase, PHASE_ENCODE)      # pairs with core's look at an overrun

    def overdue(self):
        """True when core has found that the batch which is in `forward` now overran its time-out."""
        return (self.shared.phase == PHASE_FORWARD
                and load_acquire_u32(&self.shared.overdue) == self.shared.batch)     # pairs with core's release

    def is_cancelled(self, Item item not None):
        """True when nobody waits for this item's answer any more."""
        return word_cancelled(&self.words[<uint32_t>item.task], item.sequence)

    # ---- publishing ------------------------------------------------------------------------------

    cdef uint8_t *_room(self, uint64_t n, uint32_t *block) noexcept:
        block[0] = pool_allocate(&self.pool, n + POOL_PAYLOAD_OFFSET, self.lessee)
        if block[0] == NO_BLOCK:
            return NULL
        return pool_block_data(&self.pool, block[0]) + POOL_PAYLOAD_OFFSET

    cdef int _publish(self, Item item, uint32_t block, uint32_t offset, uint64_t n, int status, int content_type,
                      uint32_t flags) except -1:
        cdef Descriptor d
        cdef uint64_t one = 1
        if self.disabled:
            raise RuntimeError("a process forked from a worker cannot answer its tasks")
        memset(&d, 0, sizeof(Descriptor))
        d.task = item.task
        d.sequence = item.sequence
        d.block = block
        d.offset = offset
        d.length = n
        d.status = <uint16_t>status
        d.content_type = <uint16_t>content_type
        d.flags = flags
        item._settle()
        if ring_push(&self.complete, &d) != RING_OK:
            raise RuntimeError("the ring of answers is spoilt: more answers than tasks")
        ring_publish(&self.complete)
        if bell_ring(self.core_bell):
            write(self.core_bell_fd, &one, sizeof(one))
        return 0

    cdef bint _publish_copy(self, Item item, const void *data, uint64_t n, int status, int content_type) except -1:
        cdef uint32_t block = NO_BLOCK
        cdef uint8_t *room
        if n:
            room = self._room(n, &block)
            if room == NULL:
                self._publish(item, NO_BLOCK, 0, 0, 500, 0, 0)
                return False
            _copy(room, data, n)
        self._publish(item, block, POOL_PAYLOAD_OFFSET, n, status, content_type, 0)
        return True

    def publish(self, Item item not None, list outputs not None, Py_ssize_t index, int content_type):
        """Answers an item with `outputs[index]`, bytes-like, which is taken out of the list.

        A view of `new_buffer` goes as it is, unless somebody still looks into it; everything else is copied once.

        Returns:
            False if no block was free: the item was answered with an error that says so.

        Raises:
            TypeError, BufferError: not bytes-like, or not contiguous. The item is still to be answered.
        """
        cdef Py_buffer view
        cdef const void *data
        cdef uint64_t n
        cdef OutputBlock output
        cdef object payload = outputs[index]
        outputs[index] = None
        if PyBytes_CheckExact(payload):
            return self._publish_copy(item, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), 200, content_type)
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        data = view.buf
        n = view.len
        if isinstance(payload, memoryview) and isinstance(payload.obj, OutputBlock) and n:
            output = payload.obj
            PyBuffer_Release(&view)
            payload = None
            if output.exports == 0 and output.channel is self:
                block = output.block
                output.block = NO_BLOCK
                self._publish(item, block, <uint32_t>(<const uint8_t *>data - pool_block_data(&self.pool, block)), n,
                              200, content_type, 0)
                return True
            return self._publish_copy(item, data, n, 200, content_type)
        try:
            return self._publish_copy(item, data, n, 200, content_type)
        finally:
            PyBuffer_Release(&view)

    def publish_error(self, Item item not None, int status, bytes text not None, int content_type=0):
        """Answers an item with another status than 200; `text` is its body. False as for `publish`."""
        return self._publish_copy(item, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), status, content_type)

    def answer(self, Item item not None, int status, bytes body not None, int content_type):
        """Answers with any status; the master's own routes use this."""
        return self._publish_copy(item, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), status, content_type)

    def new_buffer(self, Py_ssize_t n):
        """A writable view of `n` bytes of shared memory, to be filled and returned by `serialize`.

        Raises:
            ValueError: n is negative.
            MemoryError: the budget is used up, or no block is that large.
        """
        cdef OutputBlock output
        cdef uint32_t block = NO_BLOCK
        cdef uint8_t *room
        if n < 0:
            raise ValueError(f"a buffer has 0 bytes or more, not {n}")
        room = self._room(n, &block)
        if room == NULL:
            raise MemoryError(f"no shared memory for {n} bytes: raise --budget")
        output = OutputBlock.__new__(OutputBlock)
        output.channel = self
        output.block = block
        output.data = room
        output.length = n
        return memoryview(output)

    # ---- between stages --------------------------------------------------------------------------

    def publish_pickle(self, Item item not None, object value):
        """Passes `value` on to the next stage: pickle 5, arrays beside it in the same block, 64-byte aligned.

        Raises:
            whatever pickling raises; the item is still to be answered.
        """
        cdef list buffers = []
        cdef bytes pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        if not buffers:
            return self._publish_copy(item, PyBytes_AS_STRING(pickled), PyBytes_GET_SIZE(pickled), 200, 0)
        views = [buffer.raw() for buffer in buffers]
        return self._publish_frame(item, pickled, views)

    cdef bint _publish_frame(self, Item item, bytes pickled, list views) except -1:
        cdef uint32_t count = len(views)
        cdef uint64_t n = sizeof(FrameHeader) + count * sizeof(FrameEntry)
        cdef uint64_t pickle_offset = n
        cdef uint32_t block = NO_BLOCK
        cdef uint32_t i
        cdef uint8_t *room
        cdef FrameEntry *entries
        cdef Py_buffer view
        n = _aligned(n + PyBytes_GET_SIZE(pickled))
        for each in views:
            n = _aligned(n + <uint64_t>each.nbytes)
        room = self._room(n, &block)
        if room == NULL:
            self._publish(item, NO_BLOCK, 0, 0, 500, 0, 0)
            return False
        (<FrameHeader *>room).buffers = count
        (<FrameHeader *>room).reserved = 0
        (<FrameHeader *>room).pickle_offset = pickle_offset
        (<FrameHeader *>room).pickle_length = PyBytes_GET_SIZE(pickled)
        memcpy(room + pickle_offset, PyBytes_AS_STRING(pickled), PyBytes_GET_SIZE(pickled))
        entries = <FrameEntry *>(room + sizeof(FrameHeader))
        n = _aligned(pickle_offset + PyBytes_GET_SIZE(pickled))
        for i in range(count):
            PyObject_GetBuffer(views[i], &view, PyBUF_SIMPLE)
            entries[i].offset = n
            entries[i].length = view.len
            _copy(room + n, view.buf, view.len)
            n = _aligned(n + view.len)
            PyBuffer_Release(&view)
        self._publish(item, block, POOL_PAYLOAD_OFFSET, n, 200, 0, PAYLOAD_FRAMED)
        return True

    def load_pickle(self, Item item not None):
        """The value that the stage before passed on; its arrays are writable views of shared memory.

        Raises:
            whatever unpickling raises; ValueError: the frame is malformed.
        """
        if not item.flags & PAYLOAD_FRAMED:
            return pickle.loads(item)
        return _load_frame(item)

    def payload_view(self, Item item not None):
        """As `plain_pickle`, without a copy where there is nothing beside the pickle."""
        return memoryview(self.plain_pickle(item) if item.flags & PAYLOAD_FRAMED else item)

    def plain_pickle(self, Item item not None):
        """The bytes of a pickle without anything beside it, for a stage that unpickles in its own way."""
        if not item.flags & PAYLOAD_FRAMED:
            return bytearray(item)
        return bytearray(pickle.dumps(_load_frame(item), protocol=5))


cdef object _load_frame(Item item):
    cdef uint64_t length = item.length
    cdef FrameHeader header
    cdef FrameEntry entry
    cdef uint32_t i
    cdef list buffers = []
    if length < sizeof(FrameHeader):
        raise ValueError("malformed frame between stages")
    memcpy(&header, item.data, sizeof(FrameHeader))              # copied once, then checked
    if header.buffers > MAX_FRAME_BUFFERS or length < sizeof(FrameHeader) + header.buffers * sizeof(FrameEntry) or \
            header.pickle_offset > length or header.pickle_length > length - header.pickle_offset:
        raise ValueError("malformed frame between stages")
    view = memoryview(item)
    for i in range(header.buffers):
        memcpy(&entry, item.data + sizeof(FrameHeader) + i * sizeof(FrameEntry), sizeof(FrameEntry))
        if entry.offset > length or entry.length > length - entry.offset:
            raise ValueError("malformed frame between stages")
        buffers.append(view[entry.offset:entry.offset + entry.length])
    return pickle.loads(view[header.pickle_offset:header.pickle_offset + header.pickle_length], buffers=buffers)


def _disable(Channel channel):
    # A child that user code forked shares the memory, but is not the row.
    if channel is not None:
        channel.disabled = True
