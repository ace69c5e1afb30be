"""A row's side of streams: events of the answers that `forward` works on."""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mosec_cy._channel cimport Channel
from mosec_cy._event_stream cimport event_bytes, event_write
from mosec_cy._linux cimport load_acquire_u32, load_acquire_u64, mosec_futex_wait, mosec_futex_wake
from mosec_cy._payload cimport Item
from mosec_cy._pool cimport POOL_PAYLOAD_OFFSET
from mosec_cy._ring cimport NO_BLOCK, STREAM_EVENT, TASK_LAST, Bell, Descriptor, bell_force, bell_prepare, ring_free
from mosec_cy._segment cimport ROW_STOP, STREAM_LITTLE, STREAM_WINDOW
from mosec_cy._word cimport word_cancelled

cdef enum:
    EVERYBODY = 0x7FFFFFFF             # of those who sleep on a futex

cdef enum Wait:                        # until
    WAIT_RING                          # there is room for events in the ring
    WAIT_CLIENT                        # the event may go out
    WAIT_CORE                          # core has taken what was sent before, or the event may go out

cdef bytes TOO_SLOW = b"the client reads too slowly for a batch of streams"


cdef class Sender:
    """Sends events of the answers in `channel.batch`, from any thread of the row's process.

    Args:
        channel: the row's connection to core.
    """

    cdef Channel channel
    cdef Py_ssize_t waiting            # threads

    def __init__(self, Channel channel not None):
        self.channel = channel

    cdef bint _is_over(self, Item item) noexcept:
        # The client has left or was told the end, `forward` has returned, core has ended, or the row is to end.
        if item.answered or item.stream_ended or self.channel.payloads.disabled or self.channel.has_lost(item):
            return True
        if word_cancelled(&self.channel.words[<uint32_t>item.task], item.sequence):
            return True
        # Acquire; pairs with the release in Segment.stop_row.
        return load_acquire_u32(&self.channel.shared.command) & ROW_STOP != 0

    cdef bint _is_within_window(self, Item item, uint64_t n) noexcept:
        # A word each task slot, by core: bytes of events that are with the client.
        cdef const uint64_t *acknowledged = &item.payloads.segment.acknowledged()[<uint32_t>item.task]
        # Acquire; pairs with the release in stream_acknowledge.
        cdef uint64_t under_way = item.streamed - load_acquire_u64(acknowledged)
        return under_way <= STREAM_LITTLE or n <= STREAM_WINDOW and under_way <= STREAM_WINDOW - n

    cdef bint _may_stop_waiting(self, Item item, uint64_t n, Wait what) noexcept:
        cdef uint32_t free = ring_free(&self.channel.complete)
        cdef uint32_t capacity = <uint32_t>self.channel.complete.mask + 1
        if what == WAIT_RING:
            # The other half is kept for the answers: core hands out no more tasks than fit there.
            return free > capacity // 2
        return self._is_within_window(item, n) or what == WAIT_CORE and free == capacity

    cdef int _wait(self, Item item, uint64_t n, Wait what) except -1:
        cdef Bell *bell = &self.channel.shared.stream_bell   # the item keeps it mapped, if the channel leaves it
        cdef uint32_t seen = bell_prepare(bell)
        if self._is_over(item) or self._may_stop_waiting(item, n, what):
            return 0
        self.waiting += 1
        with nogil:
            mosec_futex_wait(&bell.counter, seen, NULL)
        self.waiting -= 1
        PyErr_CheckSignals()           # an overrun of the stage's time-out is told by a signal
        return 0

    cdef bint _may_send(self, Item item, uint64_t n) except -1:
        cdef Wait for_window = WAIT_CLIENT if len(self.channel.batch) == 1 else WAIT_CORE
        while not self._is_over(item):
            if not self._may_stop_waiting(item, n, WAIT_RING):
                self._wait(item, n, WAIT_RING)
            elif self._is_within_window(item, n):
                return True
            elif not self._may_stop_waiting(item, n, for_window):
                self._wait(item, n, for_window)
            else:
                # Core has taken all of it, the client has not: others of the batch shall not wait for that.
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
            self._push(item, NO_BLOCK, 0, 500)       # core has the words for it
            return False
        event_write(room, NULL, b"", data, length)
        self._push(item, block, n, 200)
        return True

    def stir(self):
        """Have the threads that wait to send look again: `forward` has returned."""
        if self.waiting:
            bell_force(&self.channel.shared.stream_bell)
            mosec_futex_wake(&self.channel.shared.stream_bell.counter, EVERYBODY)
