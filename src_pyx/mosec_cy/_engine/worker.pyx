"""A slot's side of the shared memory: takes batches, publishes answers, and passes results on to the next stage.

Results between stages are pickles of protocol 5 with their buffers out of band (PEP 574).
"""

cimport cython
import os
import pickle
import weakref
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset
from posix.unistd cimport write

from mosec_cy._engine.http_response cimport event_bytes, event_write
from mosec_cy._engine.linux cimport (
    FUTEX_ALL,
    load_acquire_u32,
    load_acquire_u64,
    mosec_futex_wait,
    mosec_futex_wake,
    mosec_now_ns,
    store_relaxed_u64,
    store_release_u32,
)
from mosec_cy._engine.pool cimport (
    align_up,
    POOL_OK,
    POOL_PAYLOAD_OFFSET,
    pool_allocate,
    pool_block_data,
    pool_block_size,
    pool_check,
    pool_drop_lease,
    pool_lease,
    pool_lessee,
)
from mosec_cy._engine.ring cimport (
    ANSWER_GZIP,
    ANSWER_NOT_PLAIN,
    ANSWER_VARIES,
    ANSWER_ZSTD,
    BODY_GZIP,
    BODY_ZSTD,
    NO_BLOCK,
    PAYLOAD_FRAMED,
    RING_BROKEN,
    RING_OK,
    STREAM_EVENT,
    TASK_FIRST,
    TASK_LAST,
    TASK_REPEATABLE,
    bell_awake,
    bell_force,
    bell_prepare,
    bell_ring,
    ring_free,
    ring_has_news,
    ring_pop,
    ring_publish,
    ring_push,
    ring_release,
    word_cancelled,
    word_start,
)
from mosec_cy._engine.segment cimport (
    PHASE_DECODE,
    PHASE_ENCODE,
    PHASE_FORWARD,
    PHASE_IDLE,
    PHASE_STEP,
    SLOT_STOP,
    runs_user_code,
    slot_wake,
    stream_fits,
)

# ---- frames --------------------------------------------------------------------------------------

# Pickles with their buffers beside them in one block: written once, read in place by the next stage.

cdef enum:
    ALIGNMENT = 64                     # of the buffers; a block's payload begins at a multiple of it


cdef inline uint64_t _buffers_start(Py_ssize_t count, Py_ssize_t pickle_n) noexcept nogil:
    return align_up(sizeof(FrameHeader) + <uint64_t>count * sizeof(FrameEntry) + <uint64_t>pickle_n, ALIGNMENT)


cdef uint64_t frame_bytes(bytes pickled, list views) except? 0:
    cdef uint64_t n = _buffers_start(len(views), PyBytes_GET_SIZE(pickled))
    for view in views:
        n = align_up(n + <uint64_t>view.nbytes, ALIGNMENT)
    return n


cdef int frame_write(Payloads payloads, uint8_t *room, bytes pickled, list views) except -1:
    cdef FrameHeader *header = <FrameHeader *>room
    cdef FrameEntry *entries = <FrameEntry *>(room + sizeof(FrameHeader))
    cdef uint64_t at = _buffers_start(len(views), PyBytes_GET_SIZE(pickled))
    cdef Py_buffer buffer
    cdef uint32_t i
    header.buffers = <uint32_t>len(views)
    header.reserved = 0
    header.pickle_offset = sizeof(FrameHeader) + header.buffers * sizeof(FrameEntry)
    header.pickle_length = PyBytes_GET_SIZE(pickled)
    payloads.copy(room + header.pickle_offset, PyBytes_AS_STRING(pickled), header.pickle_length)
    for i in range(<uint32_t>len(views)):
        PyObject_GetBuffer(views[i], &buffer, PyBUF_SIMPLE)
        entries[i].offset = at
        entries[i].length = buffer.len
        payloads.copy(room + at, buffer.buf, buffer.len)
        at = align_up(at + <uint64_t>buffer.len, ALIGNMENT)
        PyBuffer_Release(&buffer)
    return 0


cdef object frame_load(Item item):
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


# ---- payloads ------------------------------------------------------------------------------------

# A slot's payloads in shared memory: those that it reads, those that it writes, and the claims that keep both valid.

cdef enum:
    COPY_WITHOUT_GIL = 1 << 20         # bytes; below, releasing the GIL costs more than it gains
    LEASE_SHARE = 8                    # a slot may lease 1/8 of the budget, beyond that it gets copies

cdef uint8_t _nothing = 0


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class Item:
    """One task's payload in shared memory: a writable buffer of `length` bytes.

    While the task is unanswered core keeps the block. If a buffer (a memoryview, an array) still points into it when
    the answer is published, this object takes a claim of its own and drops it when the last such buffer is released.
    """

    def __len__(self):
        return self.length

    @property
    def is_first(self):
        """The payload is a request's body, and not the result of an earlier stage."""
        return bool(self.flags & TASK_FIRST)

    @property
    def is_last(self):
        """The result is the client's answer, and does not go to another stage."""
        return bool(self.flags & TASK_LAST)

    @property
    def body_coding(self):
        """Content coding of the request's body: "gzip", "zstd", or "" for none."""
        return "gzip" if self.flags & BODY_GZIP else "zstd" if self.flags & BODY_ZSTD else ""

    @property
    def answer_coding(self):
        """Content coding that the client prefers for its answer, as above."""
        return "gzip" if self.flags & ANSWER_GZIP else "zstd" if self.flags & ANSWER_ZSTD else ""

    @property
    def refuses_plain(self):
        """The client refuses an answer without a content coding."""
        return bool(self.flags & ANSWER_NOT_PLAIN)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.data == NULL:
            raise BufferError("this payload has been answered; keep a view or a copy made before that")
        PyBuffer_FillInfo(buffer, self, self.data, self.length, False, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1
        if self.exports == 0 and self.answered:
            self._forget()

    def __dealloc__(self):
        if self.leased:
            self._give_back()

    cdef void settle(self) noexcept:
        self.answered = True
        if self.exports and self.private is None and self.block != NO_BLOCK and self.length:
            self.leased = pool_lease(&self.payloads.pool, self.block, self.payloads.lessee) == POOL_OK
            if self.leased:
                self.payloads.leased_bytes += pool_block_size(&self.payloads.pool, self.block)
        elif not self.exports:
            self._forget()

    cdef void _forget(self) noexcept:
        self.data = NULL
        self.private = None
        if self.leased:
            self._give_back()

    cdef void _give_back(self) noexcept:
        self.leased = False
        self.payloads.leased_bytes -= pool_block_size(&self.payloads.pool, self.block)
        if not self.payloads.disabled:
            pool_drop_lease(&self.payloads.pool, self.block, self.payloads.lessee)


@cython.final
@cython.no_gc
cdef class OutputBlock:
    """A block that user code fills in place and returns as its answer."""

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.block == NO_BLOCK:
            raise BufferError("this buffer has been sent")
        PyBuffer_FillInfo(buffer, self, self.data, self.length, False, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1

    def __dealloc__(self):
        if self.block != NO_BLOCK and not self.payloads.disabled:
            pool_drop_lease(&self.payloads.pool, self.block, self.payloads.lessee)


@cython.final
@cython.no_gc
cdef class Payloads:
    """What one slot claims in a service's shared memory. One thread makes items and buffers; any may drop them.

    Args:
        segment: the service's shared memory.
        slot: number of the slot in it.
        incarnation: number of this process among those that have run in the slot.
    """

    def __init__(self, Segment segment, uint32_t slot, uint32_t incarnation):
        self.segment = segment
        segment.attach_pool(&self.pool, 1 + slot)
        self.lessee = pool_lessee(slot, incarnation)
        self.lease_limit = segment.budget // LEASE_SHARE
        _of_this_process.add(self)

    cdef Item item(self, const Descriptor *d):
        cdef Item item = Item.__new__(Item)
        item.payloads = self
        item.task = d.task
        item.sequence = d.sequence
        item.block = d.block
        item.flags = d.flags
        item.length = d.length
        if d.block == NO_BLOCK or pool_check(&self.pool, d.block, d.offset, d.length) != POOL_OK:
            item.block = NO_BLOCK
            item.length = 0
            item.data = &_nothing
        else:
            item.data = pool_block_data(&self.pool, d.block) + d.offset
            if d.flags & TASK_REPEATABLE or \
                    self.leased_bytes + pool_block_size(&self.pool, d.block) > self.lease_limit:
                _make_private(item)
        return item

    cdef uint8_t *room(self, uint64_t n, uint32_t *block) noexcept:
        block[0] = NO_BLOCK
        if not self.disabled:
            block[0] = pool_allocate(&self.pool, n + POOL_PAYLOAD_OFFSET, self.lessee)
        if block[0] == NO_BLOCK:
            return NULL
        return pool_block_data(&self.pool, block[0]) + POOL_PAYLOAD_OFFSET

    cdef memoryview new_buffer(self, Py_ssize_t n):
        cdef OutputBlock output
        cdef uint32_t block = NO_BLOCK
        cdef uint8_t *room
        if n < 0:
            raise ValueError(f"a buffer has 0 bytes or more, not {n}")
        if self.disabled:
            raise RuntimeError("a process forked from a worker has no buffers for its answers")
        room = self.room(n, &block)
        if room == NULL:
            raise MemoryError(f"no shared memory for {n} bytes: raise --budget")
        output = OutputBlock.__new__(OutputBlock)
        output.payloads = self
        output.block = block
        output.data = room
        output.length = n
        return memoryview(output)

    cdef void copy(self, void *to, const void *source, uint64_t n) noexcept:
        if n < COPY_WITHOUT_GIL:
            memcpy(to, source, n)
        else:
            with nogil:
                memcpy(to, source, n)


cdef int _make_private(Item item) except -1:
    item.private = PyBytes_FromStringAndSize(NULL, item.length)
    item.payloads.copy(PyBytes_AS_STRING(item.private), item.data, item.length)
    item.data = <uint8_t *>PyBytes_AS_STRING(item.private)
    return 0


_of_this_process = weakref.WeakSet()


def _disable_all():
    # A child process that user code forked shares the memory, but is not the slot.
    cdef Payloads payloads
    for payloads in _of_this_process:
        payloads.disabled = True


os.register_at_fork(after_in_child=_disable_all)


cdef uint32_t _answer_flags(str coding) noexcept:
    if coding is None:
        return 0
    return ANSWER_VARIES | (ANSWER_GZIP if coding == "gzip" else ANSWER_ZSTD if coding == "zstd" else 0)


cdef inline void _begin(SlotShared *shared, uint32_t phase) noexcept nogil:
    store_relaxed_u64(&shared.since, mosec_now_ns())    # relaxed; the next store releases it
    store_release_u32(&shared.phase, phase)             # with `since`; pairs with the acquire in slot_look


cdef class Channel:
    """A slot's connection to core. One thread takes and publishes; views and buffers may be dropped in any.

    Args:
        segment: the service's shared memory.
        slot: number of the slot in it.
        incarnation: number of this process among those that have run in the slot.
        core_bell_fd: eventfd of core; borrowed.
    """

    def __init__(self, Segment segment, uint32_t slot, uint32_t incarnation, int core_bell_fd):
        if slot >= segment.slots:
            raise ValueError(f"slot {slot} of {segment.slots}")
        self.slot = slot
        self.incarnation = incarnation
        self._open(segment, core_bell_fd)

    cdef int _open(self, Segment segment, int core_bell_fd) except -1:
        self.payloads = Payloads(segment, self.slot, self.incarnation)
        segment.attach_submit(self.slot, &self.submit)
        segment.attach_complete(self.slot, &self.complete)
        self.shared = segment.slot(self.slot)
        self.core_bell = segment.core_bell()
        self.words = segment.words()
        self.core_bell_fd = core_bell_fd
        self.capacity = segment.submit_capacity(self.slot)
        self.max_tasks = segment.max_tasks
        return 0

    @property
    def leased_bytes(self):
        """Bytes of answered payloads that buffers in this process still point into."""
        return self.payloads.leased_bytes

    # ---- another core ----------------------------------------------------------------------------

    def offer(self, Segment segment not None, int core_bell_fd, done not None):
        """Have `take` go over to the memory of another core, because this one's core has ended. For any thread.

        From now on this core's tasks are cancelled and their streams have ended. Answers to them are dropped; buffers
        that point into their payloads stay valid, and the old mapping goes with the last of them that is collected.

        Args:
            segment: the new memory, in which this slot's entry has been set up.
            core_bell_fd: eventfd of the new core; borrowed.
            done: called by the thread that takes, with the (segment, core_bell_fd) that it has left.

        Returns:
            (segment, core_bell_fd) of an earlier offer that this one replaces, if `take` has not used it yet; or None.
        """
        if self.slot >= segment.slots:
            raise ValueError(f"slot {self.slot} of {segment.slots}")
        cdef tuple replaced = self.offered
        self.offered = (segment, core_bell_fd, done)
        slot_wake(self.shared)         # after the offer: a thread that is about to sleep sees it, or another count
        return None if replaced is None else replaced[:2]

    cdef int _go_over(self) except -1:
        # The old payloads go last: while Python may let another thread run, all that this object refers to is mapped.
        cdef Payloads old = self.payloads
        cdef int old_bell_fd = self.core_bell_fd
        segment, core_bell_fd, done = self.offered
        self.offered = None
        self._open(segment, core_bell_fd)
        done(old.segment, old_bell_fd)
        return 0

    cdef bint has_lost(self, Item item) noexcept:
        return self.offered is not None or item.payloads is not self.payloads

    # ---- taking ----------------------------------------------------------------------------------

    cdef list _started(self, uint32_t most):
        # Pops up to `most` descriptors; returns the items of those tasks that this slot could start.
        cdef Descriptor d
        cdef list items = []
        cdef uint32_t i = 0
        cdef int rc = RING_OK
        while i < most:
            rc = ring_pop(&self.submit, &d)
            if rc != RING_OK:
                break
            if i == 0:
                if d.batch_size < most:
                    most = d.batch_size
                # Release; pairs with the acquire in _check: a core that sees this batch sees the end of the one before.
                store_release_u32(&self.shared.batch, d.batch)
            i += 1
            if <uint32_t>d.task < self.max_tasks and word_start(&self.words[<uint32_t>d.task], d.sequence):
                items.append(self.payloads.item(&d))
        self.corrupt = rc == RING_BROKEN
        ring_release(&self.submit)
        return items

    cdef int _sleep(self) except -1:
        cdef uint32_t seen = bell_prepare(&self.shared.bell)
        cdef int rc = 0
        if self.offered is None and not ring_has_news(&self.submit) and \
                not load_acquire_u32(&self.shared.command) & SLOT_STOP:      # as in Channel.take
            with nogil:
                rc = mosec_futex_wait(&self.shared.bell.counter, seen, NULL)
        bell_awake(&self.shared.bell)
        if rc != 0:
            PyErr_CheckSignals()
        return 0

    def take(self):
        """Waits for a batch: a list of `Item`, or None when the slot was asked to stop and its ring is empty.

        Raises:
            RuntimeError: the shared memory has been corrupted, or this process was forked from the slot's.
        """
        cdef list items
        if self.payloads.disabled:
            raise RuntimeError("a process forked from a worker cannot take its tasks")
        store_release_u32(&self.shared.phase, PHASE_IDLE)        # release; pairs with the acquire in _check
        self.batch = None
        while True:
            while self.offered is not None:
                self._go_over()
            if ring_has_news(&self.submit):
                items = self._started(self.capacity)
                if items:
                    _begin(self.shared, PHASE_DECODE)
                    self.batch = items
                    return items
                if self.corrupt:
                    raise RuntimeError("the ring of tasks is corrupt")
            elif load_acquire_u32(&self.shared.command) & SLOT_STOP:   # pairs with the release in Segment.stop_slot
                return None
            else:
                self._sleep()

    def take_now(self):
        """What is in the ring, without waiting; if that is nothing, the next task wakes this slot by its eventfd.

        If the shared memory has been corrupted, the result is empty from then on.
        """
        cdef list items = []
        while True:
            while ring_has_news(&self.submit) and not self.corrupt:
                items += self._started(self.capacity)
            bell_prepare(&self.shared.bell)
            if self.corrupt or not ring_has_news(&self.submit):
                return items

    def join(self):
        """The next task that is in the ring, an `Item`, or None; without waiting and without a system call.

        Raises:
            RuntimeError: as for `take`.
        """
        cdef list items
        if self.payloads.disabled:
            raise RuntimeError("a process forked from a worker cannot take its tasks")
        while self.offered is None and ring_has_news(&self.submit):
            items = self._started(1)
            if items:
                _begin(self.shared, PHASE_DECODE)
                return items[0]
            if self.corrupt:
                raise RuntimeError("the ring of tasks is corrupt")
        return None

    # ---- phases ----------------------------------------------------------------------------------

    def begin_forward(self):
        """Starts the stage's time-out."""
        _begin(self.shared, PHASE_FORWARD)

    def begin_step(self, list batch not None):
        """Starts the stage's time-out for all tasks that were taken and not answered: `batch`, their items."""
        self.batch = batch
        _begin(self.shared, PHASE_STEP)

    def end_forward(self):
        """Stops the stage's time-out."""
        store_release_u32(&self.shared.phase, PHASE_ENCODE)      # pairs with the acquire in _check

    def overdue(self):
        """True when core has found that the batch which is in `forward` now overran its time-out."""
        return (runs_user_code(self.shared.phase)
                and load_acquire_u32(&self.shared.overdue) == self.shared.batch   # pairs with the release in _overrun
                and self.shared.overdue_phase == self.shared.phase)

    def is_cancelled(self, Item item not None):
        """True when no client waits for this item's answer any more."""
        return self.has_lost(item) or word_cancelled(&self.words[<uint32_t>item.task], item.sequence)

    def has_cancelled(self, list items not None):
        """True when no client waits for one of these items any more."""
        cdef Item item
        for item in items:
            if self.has_lost(item) or word_cancelled(&self.words[<uint32_t>item.task], item.sequence):
                return True
        return False

    # ---- publishing ------------------------------------------------------------------------------

    cdef int _publish(self, Item item, uint32_t block, uint32_t offset, uint64_t n, int status, int content_type,
                      uint32_t flags) except -1:
        cdef Descriptor d
        if self.payloads.disabled:
            raise RuntimeError("a process forked from a worker cannot answer its tasks")
        if item.payloads is not self.payloads:
            item.settle()
            if block != NO_BLOCK:
                pool_drop_lease(&self.payloads.pool, block, self.payloads.lessee)
            return 0
        memset(&d, 0, sizeof(Descriptor))
        d.task = item.task
        d.sequence = item.sequence
        d.block = block
        d.offset = offset
        d.length = n
        d.status = <uint16_t>status
        d.content_type = <uint16_t>content_type
        d.flags = flags
        d.cost = item.cost
        item.settle()
        return self.push(&d)

    cdef int push(self, const Descriptor *d) except -1:
        cdef uint64_t one = 1
        if ring_push(&self.complete, d) != RING_OK:
            raise RuntimeError("the ring of answers is corrupt: more answers than tasks")
        ring_publish(&self.complete)
        if bell_ring(self.core_bell):
            write(self.core_bell_fd, &one, sizeof(one))
        return 0

    cdef bint _publish_copy(self, Item item, const void *data, uint64_t n, int status, int content_type,
                            uint32_t flags=0) except -1:
        cdef uint32_t block = NO_BLOCK
        cdef uint8_t *room
        if n:
            room = self.payloads.room(n, &block)
            if room == NULL:
                self._publish(item, NO_BLOCK, 0, 0, 500, 0, 0)
                return False
            self.payloads.copy(room, data, n)
        self._publish(item, block, POOL_PAYLOAD_OFFSET, n, status, content_type, flags)
        return True

    def publish(self, Item item not None, list outputs not None, Py_ssize_t index, int content_type,
                str coding=None):
        """Answers an item with `outputs[index]`, bytes-like, which is taken out of the list.

        A view of `new_buffer` is sent as it is, unless another buffer points into it; everything else is copied once.
        `coding`: the content coding that it has, "gzip", "zstd", or "" where it might have had one; None: never any.

        Returns:
            False if no block was free: the item was answered with an error that says so.

        Raises:
            TypeError, BufferError: not bytes-like, or not contiguous. The item has not been answered.
        """
        cdef Py_buffer view
        cdef const void *data
        cdef uint64_t n, offset
        cdef uint32_t block
        cdef OutputBlock output
        cdef uint32_t flags = _answer_flags(coding)
        cdef object payload = outputs[index]
        outputs[index] = None
        if PyBytes_CheckExact(payload):
            return self._publish_copy(item, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), 200, content_type,
                                      flags)
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        data = view.buf
        n = view.len
        if isinstance(payload, memoryview) and isinstance(payload.obj, OutputBlock) and n:
            output = payload.obj
            PyBuffer_Release(&view)
            payload = None
            block = output.block
            offset = <const uint8_t *>data - pool_block_data(&self.payloads.pool, block)
            if output.exports == 0 and output.payloads is self.payloads and offset <= <uint32_t>-1:
                output.block = NO_BLOCK
                self._publish(item, block, <uint32_t>offset, n, 200, content_type, flags)
                return True
            return self._publish_copy(item, data, n, 200, content_type, flags)
        try:
            return self._publish_copy(item, data, n, 200, content_type, flags)
        finally:
            PyBuffer_Release(&view)

    def publish_end(self, Item item not None):
        """Ends the stream that is an item's answer."""
        self._publish(item, NO_BLOCK, 0, 0, 200, 0, 0)

    def answer(self, Item item not None, int status, bytes body not None, int content_type=0):
        """Answers an item with any status. False as for `publish`."""
        return self._publish_copy(item, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), status, content_type)

    def new_buffer(self, Py_ssize_t n):
        """A writable view of `n` bytes of shared memory, to be filled and returned by `serialize`.

        Raises:
            ValueError: n is negative.
            RuntimeError: this process was forked from the slot's.
            MemoryError: the budget is used up, or no block is that large.
        """
        return self.payloads.new_buffer(n)

    # ---- between stages --------------------------------------------------------------------------

    def publish_pickle(self, Item item not None, object value):
        """Passes `value` on to the next stage: pickle 5, arrays beside it in the same block, 64-byte aligned.

        Raises:
            Any exception that pickling raises; the item has not been answered.
        """
        cdef list buffers = []
        cdef bytes pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        if len(buffers) > MAX_FRAME_BUFFERS:
            buffers.clear()
            pickled = pickle.dumps(value, protocol=5)
        if not buffers:
            return self._publish_copy(item, PyBytes_AS_STRING(pickled), PyBytes_GET_SIZE(pickled), 200, 0)
        views = [buffer.raw() for buffer in buffers]
        return self._publish_frame(item, pickled, views)

    cdef bint _publish_frame(self, Item item, bytes pickled, list views) except -1:
        cdef uint64_t n = frame_bytes(pickled, views)
        cdef uint32_t block = NO_BLOCK
        cdef uint8_t *room = self.payloads.room(n, &block)
        if room == NULL:
            self._publish(item, NO_BLOCK, 0, 0, 500, 0, 0)
            return False
        frame_write(self.payloads, room, pickled, views)
        self._publish(item, block, POOL_PAYLOAD_OFFSET, n, 200, 0, PAYLOAD_FRAMED)
        return True

    def load_pickle(self, Item item not None):
        """The value that the stage before passed on; its arrays are writable views of shared memory.

        Raises:
            Any exception that unpickling raises; ValueError: the frame is malformed.
        """
        if not item.flags & PAYLOAD_FRAMED:
            return pickle.loads(item)
        return frame_load(item)

    def payload_view(self, Item item not None):
        """As `plain_pickle`, without a copy where the payload is nothing but a pickle."""
        return memoryview(self.plain_pickle(item) if item.flags & PAYLOAD_FRAMED else item)

    def plain_pickle(self, Item item not None):
        """The bytes of a pickle without buffers beside it, for a stage that unpickles in its own way."""
        if not item.flags & PAYLOAD_FRAMED:
            return bytearray(item)
        return bytearray(pickle.dumps(frame_load(item), protocol=5))


# ---- streams of events ---------------------------------------------------------------------------

# The slot's side of streams: sends events of the answers that `forward` works on.

cdef enum Wait:                        # the condition to wait for
    WAIT_RING                          # there is room for events in the ring
    WAIT_CLIENT                        # the event may go out
    WAIT_CORE                          # core has taken what was sent before, or the event may go out

cdef bytes TOO_SLOW = b"the client reads too slowly for a batch of streams"


cdef class Sender:
    """Sends events of the answers in `channel.batch`, from any thread of the slot's process.

    Args:
        channel: the slot's connection to core.
        alone: a batch of one works for its client alone, and may wait for it. In a running batch others may join.
    """

    cdef Channel channel
    cdef bint alone
    cdef Py_ssize_t waiting            # threads

    def __init__(self, Channel channel not None, bint alone=True):
        self.channel = channel
        self.alone = alone

    cdef bint _is_over(self, Item item) noexcept:
        # The client has left or was told the end, `forward` has returned, core has ended, or the slot is to end.
        if item.answered or item.stream_ended or self.channel.payloads.disabled or self.channel.has_lost(item):
            return True
        if word_cancelled(&self.channel.words[<uint32_t>item.task], item.sequence):
            return True
        # Acquire; pairs with the release in Segment.stop_slot.
        return load_acquire_u32(&self.channel.shared.command) & SLOT_STOP != 0

    cdef bint _is_within_window(self, Item item, uint64_t n) noexcept:
        # One word for each task entry, written by core: bytes of events that the kernel has.
        cdef const uint64_t *acknowledged = &item.payloads.segment.acknowledged()[<uint32_t>item.task]
        # Acquire; pairs with the release in stream_acknowledge.
        return stream_fits(item.streamed - load_acquire_u64(acknowledged), n)

    cdef bint _may_stop_waiting(self, Item item, uint64_t n, Wait what) noexcept:
        cdef uint32_t free = ring_free(&self.channel.complete)
        cdef uint32_t capacity = <uint32_t>self.channel.complete.mask + 1
        if what == WAIT_RING:
            # The other half is kept for the answers: core dispatches no more tasks than fit there.
            return free > capacity // 2
        return self._is_within_window(item, n) or what == WAIT_CORE and free == capacity

    cdef int _wait(self, Item item, uint64_t n, Wait what) except -1:
        cdef Bell *bell = &self.channel.shared.stream_bell   # the item keeps it mapped if the channel goes over
        cdef uint32_t seen = bell_prepare(bell)
        if self._is_over(item) or self._may_stop_waiting(item, n, what):
            return 0
        self.waiting += 1
        with nogil:
            mosec_futex_wait(&bell.counter, seen, NULL)
        self.waiting -= 1
        PyErr_CheckSignals()           # a signal reports an overrun of the stage's time-out
        return 0

    cdef bint _may_send(self, Item item, uint64_t n) except -1:
        cdef Wait for_window = WAIT_CLIENT if self.alone and len(self.channel.batch) == 1 else WAIT_CORE
        while not self._is_over(item):
            if not self._may_stop_waiting(item, n, WAIT_RING):
                self._wait(item, n, WAIT_RING)
            elif self._is_within_window(item, n):
                return True
            elif not self._may_stop_waiting(item, n, for_window):
                self._wait(item, n, for_window)
            else:
                # Core has taken all of it, the client has not: other streams of the batch shall not wait for that.
                self._end_slow(item)
        return False

    cdef int _end_slow(self, Item item) except -1:
        cdef uint64_t n = len(TOO_SLOW)
        cdef uint32_t block = NO_BLOCK
        cdef uint8_t *room = self.channel.payloads.room(n, &block)
        if room == NULL:
            return self._push(item, NO_BLOCK, 0, 500)
        memcpy(room, PyBytes_AS_STRING(TOO_SLOW), n)
        return self._push(item, block, n, 408)

    cdef int _push(self, Item item, uint32_t block, uint64_t n, int status) except -1:
        cdef Descriptor d
        memset(&d, 0, sizeof(Descriptor))
        d.task = item.task
        d.sequence = item.sequence
        d.block = block
        d.offset = POOL_PAYLOAD_OFFSET if n else 0
        d.length = n
        d.status = <uint16_t>status
        d.flags = STREAM_EVENT
        item.stream_ended = status != 200
        item.streamed += n
        return self.channel.push(&d)

    cdef Item _item(self, Py_ssize_t index):
        # None: no batch is in `forward`.
        cdef list batch = self.channel.batch
        if batch is None:
            return None
        if not 0 <= index < len(batch):
            raise IndexError(f"index {index} of a batch of {len(batch)}")
        cdef Item item = batch[index]
        if not item.flags & TASK_LAST:
            raise RuntimeError("events are the answer: only the last stage of a route can send them")
        return item

    def send(self, text, Py_ssize_t index):
        """Sends an event whose data is `text` to the client of an item; `index` is its place in the batch.

        Waits, with the GIL released, while too much is under way to a client that reads slowly. In a batch of several
        that client's stream is ended.

        Returns:
            False if there is no stream (any more): the client has left, or was told the end.

        Raises:
            IndexError: the batch has no such place.
            TypeError: `text` is no str.
            RuntimeError: the item's answer is not the client's, but goes to a next stage.
            UnicodeEncodeError: the text has lone surrogates.
            MosecTimeoutError: `forward` overran its time-out while this waited.
        """
        cdef Py_ssize_t length = 0
        if not isinstance(text, str):     # an argument declared as str would refuse classes derived from it
            raise TypeError(f"text must be a str, but is {text!r} ({type(text).__name__})")
        cdef const uint8_t *data = <const uint8_t *>PyUnicode_AsUTF8AndSize(text, &length)
        cdef Item item = self._item(index)
        cdef uint64_t n = event_bytes(NULL, b"", data, length)
        cdef uint32_t block = NO_BLOCK
        cdef uint8_t *room
        if item is None or not self._may_send(item, n):
            return False
        room = self.channel.payloads.room(n, &block)
        if room == NULL:
            self._push(item, NO_BLOCK, 0, 500)       # core adds the text of the error
            return False
        event_write(room, NULL, b"", data, length)
        self._push(item, block, n, 200)
        return True

    def wake(self):
        """Wakes the threads that wait to send, to look again: `forward` has returned."""
        if self.waiting:
            bell_force(&self.channel.shared.stream_bell)
            mosec_futex_wake(&self.channel.shared.stream_bell.counter, FUTEX_ALL)
