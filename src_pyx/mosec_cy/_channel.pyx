"""A row's side of the shared memory: take a batch, publish the answers."""

import pickle

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport write

from mosec_cy._frame cimport MAX_FRAME_BUFFERS, frame_bytes, frame_load, frame_write
from mosec_cy._linux cimport (
    load_acquire_u32,
    mosec_futex_wait,
    mosec_now_ns,
    store_relaxed_u64,
    store_release_u32,
)
from mosec_cy._payload cimport Item, OutputBlock, Payloads
from mosec_cy._pool cimport POOL_PAYLOAD_OFFSET, pool_block_data, pool_drop_lease
from mosec_cy._ring cimport (
    ANSWER_GZIP,
    ANSWER_VARIES,
    ANSWER_ZSTD,
    NO_BLOCK,
    PAYLOAD_FRAMED,
    RING_BROKEN,
    RING_OK,
    Descriptor,
    bell_awake,
    bell_prepare,
    bell_ring,
    ring_has_news,
    ring_pop,
    ring_publish,
    ring_push,
    ring_release,
)
from mosec_cy._segment cimport (
    PHASE_DECODE,
    PHASE_ENCODE,
    PHASE_FORWARD,
    PHASE_IDLE,
    ROW_STOP,
    Segment,
    row_rouse,
)
from mosec_cy._word cimport word_cancelled, word_start


cdef uint32_t _answer_flags(str coding) noexcept:
    if coding is None:
        return 0
    return ANSWER_VARIES | (ANSWER_GZIP if coding == "gzip" else ANSWER_ZSTD if coding == "zstd" else 0)


cdef class Channel:
    """A row's connection to core. One thread takes and publishes; views and buffers may be dropped in any.

    Args:
        segment: the service's shared memory.
        row: number of the row in it.
        incarnation: which life of the row this process is.
        core_bell_fd: eventfd of core; borrowed.
    """

    def __init__(self, Segment segment, uint32_t row, uint32_t incarnation, int core_bell_fd):
        if row >= segment.rows:
            raise ValueError(f"row {row} of {segment.rows}")
        self.row = row
        self.incarnation = incarnation
        self._open(segment, core_bell_fd)

    cdef int _open(self, Segment segment, int core_bell_fd) except -1:
        self.payloads = Payloads(segment, self.row, self.incarnation)
        segment.attach_submit(self.row, &self.submit)
        segment.attach_complete(self.row, &self.complete)
        self.shared = segment.row(self.row)
        self.core_bell = segment.core_bell()
        self.words = segment.words()
        self.core_bell_fd = core_bell_fd
        self.capacity = segment.submit_capacity(self.row)
        self.task_slots = segment.task_slots
        return 0

    @property
    def leased_bytes(self):
        """Bytes of answered payloads that something in this process still looks into."""
        return self.payloads.leased_bytes

    # ---- another core ----------------------------------------------------------------------------

    def offer(self, Segment segment not None, int core_bell_fd, done not None):
        """Has `take` go over to the memory of another core, because this one's has ended. In any thread.

        From now on this core's tasks are cancelled and their streams have ended. Answers to them go nowhere; objects
        that look into their payloads stay valid, and the last one that is collected takes the old mapping with it.

        Args:
            segment: the new memory, in which this row has been begun.
            core_bell_fd: eventfd of the new core; borrowed.
            done: called by the thread that takes, with the (segment, core_bell_fd) that it has left.

        Returns:
            (segment, core_bell_fd) of an offer that this one replaces, before it was taken up; or None.
        """
        if self.row >= segment.rows:
            raise ValueError(f"row {self.row} of {segment.rows}")
        cdef tuple replaced = self.offered
        self.offered = (segment, core_bell_fd, done)
        row_rouse(self.shared)         # after the offer: who is about to sleep sees it, or another count
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
        # What the ring holds, up to `most` descriptors: those that this row wins.
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
                # Release; pairs with the acquire in _check: who sees this batch sees the end of the one before.
                store_release_u32(&self.shared.batch, d.batch)
            i += 1
            if <uint32_t>d.task < self.task_slots and word_start(&self.words[<uint32_t>d.task], d.sequence):
                items.append(self.payloads.item(&d))
        self.spoilt = rc == RING_BROKEN
        ring_release(&self.submit)
        return items

    cdef int _sleep(self) except -1:
        cdef uint32_t seen = bell_prepare(&self.shared.bell)
        cdef int rc = 0
        if self.offered is None and not ring_has_news(&self.submit) and \
                not load_acquire_u32(&self.shared.command) & ROW_STOP:      # as in Channel.take
            with nogil:
                rc = mosec_futex_wait(&self.shared.bell.counter, seen, NULL)
        bell_awake(&self.shared.bell)
        if rc != 0:
            PyErr_CheckSignals()
        return 0

    def take(self):
        """Waits for a batch: a list of `Item`, or None when the row was asked to stop and its ring is empty.

        Raises:
            RuntimeError: the shared memory has been spoilt, or this process was forked from the row's.
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
                    store_relaxed_u64(&self.shared.since, mosec_now_ns())    # as in Channel.begin_forward
                    store_release_u32(&self.shared.phase, PHASE_DECODE)      # as in Channel.begin_forward
                    self.batch = items
                    return items
                if self.spoilt:
                    raise RuntimeError("the ring of tasks is spoilt")
            elif load_acquire_u32(&self.shared.command) & ROW_STOP:   # pairs with the release in Segment.stop_row
                return None
            else:
                self._sleep()

    def take_now(self):
        """What is there, without waiting; when nothing is, the next task wakes this row by its eventfd.

        If the shared memory has been spoilt, nothing is there any more.
        """
        cdef list items = []
        while True:
            while ring_has_news(&self.submit) and not self.spoilt:
                items += self._started(self.capacity)
            bell_prepare(&self.shared.bell)
            if self.spoilt or not ring_has_news(&self.submit):
                return items

    # ---- phases ----------------------------------------------------------------------------------

    def begin_forward(self):
        """From now on the stage's time-out runs."""
        store_relaxed_u64(&self.shared.since, mosec_now_ns())    # relaxed; the next store releases it
        store_release_u32(&self.shared.phase, PHASE_FORWARD)     # with `since`; pairs with the acquire in _check

    def end_forward(self):
        """The stage's time-out runs no longer."""
        store_release_u32(&self.shared.phase, PHASE_ENCODE)      # pairs with the acquire in _check

    def overdue(self):
        """True when core has found that the batch which is in `forward` now overran its time-out."""
        return (self.shared.phase == PHASE_FORWARD
                and load_acquire_u32(&self.shared.overdue) == self.shared.batch)  # pairs with the release in _overrun

    def is_cancelled(self, Item item not None):
        """True when nobody waits for this item's answer any more."""
        return self.has_lost(item) or word_cancelled(&self.words[<uint32_t>item.task], item.sequence)

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
        item.settle()
        return self.push(&d)

    cdef int push(self, const Descriptor *d) except -1:
        cdef uint64_t one = 1
        if ring_push(&self.complete, d) != RING_OK:
            raise RuntimeError("the ring of answers is spoilt: more answers than tasks")
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

        A view of `new_buffer` goes as it is, unless somebody still looks into it; everything else is copied once.
        `coding`: the content coding that it has, "gzip", "zstd", or "" where it might have had one; None: never any.

        Returns:
            False if no block was free: the item was answered with an error that says so.

        Raises:
            TypeError, BufferError: not bytes-like, or not contiguous. The item is still to be answered.
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

    def publish_error(self, Item item not None, int status, bytes text not None, int content_type=0):
        """Answers an item with another status than 200; `text` is its body. False as for `publish`."""
        return self._publish_copy(item, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), status, content_type)

    def publish_end(self, Item item not None):
        """Answers an item whose answer is a stream: it ends."""
        self._publish(item, NO_BLOCK, 0, 0, 200, 0, 0)

    def answer(self, Item item not None, int status, bytes body not None, int content_type):
        """Answers with any status; the master's own routes use this."""
        return self._publish_copy(item, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), status, content_type)

    def new_buffer(self, Py_ssize_t n):
        """A writable view of `n` bytes of shared memory, to be filled and returned by `serialize`.

        Raises:
            ValueError: n is negative.
            RuntimeError: this process was forked from the row's.
            MemoryError: the budget is used up, or no block is that large.
        """
        return self.payloads.new_buffer(n)

    # ---- between stages --------------------------------------------------------------------------

    def publish_pickle(self, Item item not None, object value):
        """Passes `value` on to the next stage: pickle 5, arrays beside it in the same block, 64-byte aligned.

        Raises:
            whatever pickling raises; the item is still to be answered.
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
            whatever unpickling raises; ValueError: the frame is malformed.
        """
        if not item.flags & PAYLOAD_FRAMED:
            return pickle.loads(item)
        return frame_load(item)

    def payload_view(self, Item item not None):
        """As `plain_pickle`, without a copy where there is nothing beside the pickle."""
        return memoryview(self.plain_pickle(item) if item.flags & PAYLOAD_FRAMED else item)

    def plain_pickle(self, Item item not None):
        """The bytes of a pickle without anything beside it, for a stage that unpickles in its own way."""
        if not item.flags & PAYLOAD_FRAMED:
            return bytearray(item)
        return bytearray(pickle.dumps(frame_load(item), protocol=5))
