# A row's payloads in shared memory, and the claims that keep them valid for as long as somebody looks into them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._pool cimport Pool
from mosec_cy._ring cimport Descriptor
from mosec_cy._segment cimport Segment

cdef enum:                             # Descriptor.flags
    PAYLOAD_FRAMED = 1                 # a pickle with its buffers beside it, see _frame; else it has nothing beside it
    TASK_FIRST = 2                     # to a row: the payload is the request's body
    TASK_LAST = 4                      # to a row: the result is the client's answer
    TASK_REPEATABLE = 16               # to a row: the payload may be needed once more, work on a copy of it
    STREAM_EVENT = 8                   # to core: an event; the answer goes on (other statuses than 200: ends)
    BODY_GZIP = 256                    # to a first row: the body has this content coding
    BODY_ZSTD = 512
    ANSWER_GZIP = 1024                 # to a last row: the client prefers this coding; from it: the answer has it
    ANSWER_ZSTD = 2048
    ANSWER_NOT_PLAIN = 4096            # to a last row: the client refuses an answer without a coding
    ANSWER_VARIES = 8192               # from a last row: the answer's coding depends on the request
    ANSWER_WISHES = 7168               # ANSWER_GZIP | ANSWER_ZSTD | ANSWER_NOT_PLAIN

cdef enum:
    # Bytes of events that one stream may have under way: sent by the row, not yet with the kernel. Where it is little,
    # one more event may go, whatever its size.
    STREAM_WINDOW = 1 << 20
    STREAM_LITTLE = 1 << 16

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
