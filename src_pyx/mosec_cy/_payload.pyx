"""A row's payloads in shared memory: what it looks into, what it writes, and the claims that keep both valid."""

import os
import weakref

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

cimport cython

from mosec_cy._pool cimport (
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
from mosec_cy._ring cimport (
    ANSWER_GZIP,
    ANSWER_NOT_PLAIN,
    ANSWER_ZSTD,
    BODY_GZIP,
    BODY_ZSTD,
    NO_BLOCK,
    TASK_FIRST,
    TASK_LAST,
    TASK_REPEATABLE,
)

cdef enum:
    COPY_WITHOUT_GIL = 1 << 20         # bytes; below, giving the GIL away costs more than it gives
    LEASE_SHARE = 8                    # a row may lease 1/8 of the budget, afterwards it gets copies

cdef uint8_t _nothing = 0


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class Item:
    """One task's payload in shared memory: a writable buffer of `length` bytes.

    While the task is unanswered core keeps the block. If something still looks into it when the answer is
    published (a memoryview, an array), this object takes a claim of its own and drops it when the last look is gone.
    """

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
    """What one row claims in a service's shared memory. One thread makes items and buffers; any may drop them.

    Args:
        segment: the service's shared memory.
        row: number of the row in it.
        incarnation: which life of the row this process is.
    """

    def __init__(self, Segment segment, uint32_t row, uint32_t incarnation):
        self.segment = segment
        segment.attach_pool(&self.pool, 1 + row)
        self.lessee = pool_lessee(row, incarnation)
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
    # A child that user code forked shares the memory, but is not the row.
    cdef Payloads payloads
    for payloads in _of_this_process:
        payloads.disabled = True


os.register_at_fork(after_in_child=_disable_all)
