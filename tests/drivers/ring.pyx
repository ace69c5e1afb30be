"""Rings and bells as Python objects, for tests and benchmarks: no socket and no clock."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport ETIMEDOUT, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from mosec_cy._engine.linux cimport load_relaxed_u32, mosec_futex_wait, mosec_futex_wake, timespec
from mosec_cy._engine.ring cimport (
    RING_BROKEN,
    RING_FULL,
    RING_OK,
    Bell,
    Descriptor,
    RingEnd,
    bell_awake,
    bell_force,
    bell_prepare,
    bell_ring,
    ring_attach,
    ring_bytes,
    ring_free,
    ring_has_news,
    ring_pop,
    ring_publish,
    ring_push,
    ring_release,
)

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept


DESCRIPTOR_BYTES = sizeof(Descriptor)
BELL_BYTES = sizeof(Bell)


cdef void *borrow(object memory, Py_buffer *buffer, size_t offset, size_t size, size_t alignment) except NULL:
    PyObject_GetBuffer(memory, buffer, PyBUF_WRITABLE)
    if offset > <size_t>buffer.len or size > <size_t>buffer.len - offset:
        raise ValueError(f"{size} bytes at {offset} do not fit a buffer of {buffer.len} bytes")
    if (<size_t>buffer.buf + offset) % alignment:
        raise ValueError(f"offset {offset} is not aligned to {alignment} bytes")
    return <char *>buffer.buf + offset


cdef class Doorbell:
    """A bell in the 8 bytes at `offset` of a writable buffer, rung and slept at through a futex.

    Raises ValueError if it does not fit or is not aligned to 8 bytes.
    """

    cdef Bell *bell
    cdef Py_buffer buffer

    def __cinit__(self, memory, size_t offset=0):
        self.bell = <Bell *>borrow(memory, &self.buffer, offset, sizeof(Bell), sizeof(Bell))

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)

    def prepare(self):
        """Announce sleep; return the count to wait at. Look for work once more before `wait`."""
        return bell_prepare(self.bell)

    def awake(self):
        """Announce that the sleeper is up."""
        bell_awake(self.bell)

    def ring(self):
        """After publishing: whether the sleeper must be woken, by `wake`."""
        return bell_ring(self.bell)

    def force(self):
        """Advance the count whatever the sleeper announced; `wake` must follow."""
        bell_force(self.bell)

    def wake(self):
        """Wake the sleeper by system call."""
        mosec_futex_wake(&self.bell.counter, 1)

    def wait(self, uint32_t seen, uint64_t timeout_ms):
        """Sleep while the count is `seen`, the GIL released. False: the time-out passed without a wake-up."""
        cdef bint woken
        with nogil:
            woken = sleep_at(self.bell, seen, timeout_ms)
        return woken


cdef bint sleep_at(Bell *bell, uint32_t seen, uint64_t timeout_ms) noexcept nogil:
    cdef timespec timeout
    timeout.tv_sec = timeout_ms // 1000
    timeout.tv_nsec = timeout_ms % 1000 * 1000000
    return mosec_futex_wait(&bell.counter, seen, &timeout) == 0 or errno != ETIMEDOUT


cdef class Ring:
    """One end of a ring of `capacity` (a power of two) descriptors at `offset` of a writable, zeroed buffer.

    A descriptor is a tuple of ten ints: task, sequence, block, length, offset, batch, batch_size, status,
    content_type, flags. An end is a producer's or a consumer's; only the other process knows which.
    Raises ValueError for a bad capacity, or memory that is too small or not aligned to 64 bytes; every
    method raises RuntimeError when the peer's index is impossible.
    """

    cdef RingEnd end
    cdef Py_buffer buffer

    def __cinit__(self, memory, uint32_t capacity, size_t offset=0):
        if capacity == 0 or capacity & (capacity - 1):
            raise ValueError(f"the capacity of a ring is a power of two, not {capacity}")
        ring_attach(&self.end, borrow(memory, &self.buffer, offset, ring_bytes(capacity), 64), capacity)

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)

    @staticmethod
    def bytes_needed(uint32_t capacity):
        """Bytes that a ring takes up."""
        return ring_bytes(capacity)

    def free(self):
        """Producer: places that can be pushed to now."""
        return ring_free(&self.end)

    def push(self, descriptor):
        """Producer: write a descriptor, unseen until `publish`. False: the ring is full."""
        cdef Descriptor d
        memset(&d, 0, sizeof(d))
        (d.task, d.sequence, d.block, d.length, d.offset,
         d.batch, d.batch_size, d.status, d.content_type, d.flags) = descriptor
        return checked(ring_push(&self.end, &d)) == RING_OK

    def publish(self):
        """Producer: show the consumer all that was pushed."""
        ring_publish(&self.end)

    def pop(self):
        """Consumer: the next descriptor, or None. Its place is taken until `release`."""
        cdef Descriptor d
        memset(&d, 0, sizeof(d))
        if checked(ring_pop(&self.end, &d)) != RING_OK:
            return None
        return (d.task, d.sequence, d.block, d.length, d.offset,
                d.batch, d.batch_size, d.status, d.content_type, d.flags)

    def release(self):
        """Consumer: free the places of all that was popped."""
        ring_release(&self.end)

    def has_news(self):
        """Consumer: whether `pop` would return a descriptor or raise."""
        return ring_has_news(&self.end)

    def send_numbered(self, Doorbell bell, uint64_t first, uint64_t count):
        """Push `count` descriptors with tasks `first`, `first` + 1, …, each published and rung for, the GIL
        released; waits while the ring is full."""
        cdef int code
        with nogil:
            code = send_numbered(&self.end, bell.bell, first, count)
        checked(code)

    def receive_numbered(self, Doorbell bell, uint64_t first, uint64_t count, uint64_t timeout_ms):
        """Pop descriptors whose tasks are `first`, `first` + 1, …, the GIL released, asleep while there is none.
        Return how many came: less than `count` if one was out of order or a sleep lasted `timeout_ms`."""
        cdef uint64_t received = 0
        cdef int code
        with nogil:
            code = receive_numbered(&self.end, bell.bell, first, count, timeout_ms, &received)
        checked(code)
        return received

    def rally(self, Doorbell bell, Ring back, Doorbell peer, uint64_t count, bint serves, uint64_t timeout_ms):
        """Exchange `count` numbered descriptors with a process that does the same, the GIL released: receive on
        this ring, asleep at `bell`, and send on `back`, ringing `peer`. Each looks for an answer after a delay that
        varies, so that in the long run answers meet every moment of falling asleep. One side serves.
        Return how many came, as `receive_numbered` does."""
        cdef uint64_t received = 0
        cdef int code
        with nogil:
            code = rally(&self.end, bell.bell, &back.end, peer.bell, count, serves, timeout_ms, &received)
        checked(code)
        return received


cdef int checked(int code) except? RING_BROKEN:
    if code == RING_BROKEN:
        raise RuntimeError("the peer's index is impossible: the ring's memory has been corrupted")
    return code


cdef int send_numbered(RingEnd *end, Bell *bell, uint64_t first, uint64_t count) noexcept nogil:
    cdef Descriptor descriptor
    cdef uint64_t i
    cdef int code
    memset(&descriptor, 0, sizeof(descriptor))
    for i in range(count):
        descriptor.task = first + i
        code = ring_push(end, &descriptor)
        while code == RING_FULL:
            sched_yield()
            code = ring_push(end, &descriptor)
        if code != RING_OK:
            return code
        ring_publish(end)
        if bell_ring(bell):
            mosec_futex_wake(&bell.counter, 1)
    return RING_OK


cdef int receive_numbered(
    RingEnd *end, Bell *bell, uint64_t first, uint64_t count, uint64_t timeout_ms, uint64_t *received
) noexcept nogil:
    cdef Descriptor descriptor
    cdef uint32_t seen
    cdef bint woken
    cdef int code
    while received[0] < count:
        code = ring_pop(end, &descriptor)
        if code == RING_OK:
            if descriptor.task != first + received[0]:
                break
            received[0] += 1
        elif code == RING_BROKEN:
            return code
        else:
            ring_release(end)
            seen = bell_prepare(bell)
            woken = ring_has_news(end) or sleep_at(bell, seen, timeout_ms)
            bell_awake(bell)
            if not woken:  # without another look: a publication without a wake-up is what this is to find
                break
    ring_release(end)
    return RING_OK


cdef int rally(
    RingEnd *end, Bell *bell, RingEnd *back, Bell *peer, uint64_t count, bint serves, uint64_t timeout_ms,
    uint64_t *received
) noexcept nogil:
    cdef uint64_t turn, came
    cdef uint32_t delay
    cdef int code = RING_OK
    for turn in range(count):
        if serves:
            code = send_numbered(back, peer, turn, 1)
        delay = <uint32_t>turn * <uint32_t>0x9E3779B9 >> 20  # pseudo-random, below 4096: about a µs
        while delay:
            delay -= load_relaxed_u32(&peer.sleeping) | 1    # an atomic load is not optimised away
        came = 0
        if code == RING_OK:
            code = receive_numbered(end, bell, turn, 1, timeout_ms, &came)
        received[0] += came
        if came and not serves:
            code = send_numbered(back, peer, turn, 1)
        if code != RING_OK or not came:
            return code
    return RING_OK
