"""Streams of events, from the rows' rings to the clients.

A row may have so many bytes under way on each stream, see _fits. It learns of what has gone out by a word in shared
memory, which core writes and never reads: its own count decides.
"""

from libc.stdint cimport uint8_t
from libc.string cimport strlen

from mosec_cy._batcher cimport NO_INDEX, TASK_HANDED, Task, batcher_holds, task_of
from mosec_cy._linux cimport store_release_u64
from mosec_cy._pool cimport pool_block_data
from mosec_cy._ring cimport NO_BLOCK
from mosec_cy._router cimport Route
from mosec_cy._segment cimport STREAM_LITTLE, STREAM_WINDOW
from mosec_cy._tasks cimport block_drop, task_fail

cdef const char *NO_MEMORY = b"inference internal error: no shared memory for an event (--budget)"
cdef const char *SPOILT = b"inference internal error: the worker sent an impossible event"


cdef void stream_admit(Service *s, uint32_t slot) noexcept nogil:
    s.batcher.tasks[slot].streamed = 0
    s.batcher.tasks[slot].acknowledged = 0
    store_release_u64(&s.acknowledged[slot], 0)      # pairs with the acquire in Sender._is_within_window


cdef inline bint _is_streaming(const Service *s, const Task *task) noexcept nogil:
    cdef const Route *route = &s.routes[task.route]
    return route.streams and task.position + 1u == route.stage_count and task.connection != NO_INDEX


cdef inline bint _fits(const Task *task, uint64_t n) noexcept nogil:
    # Rows keep to this by themselves: what they know of acknowledged bytes is not newer than what core knows.
    cdef uint64_t under_way = task.streamed - task.acknowledged
    return under_way <= STREAM_LITTLE or n <= STREAM_WINDOW and under_way <= STREAM_WINDOW - n


cdef void _pass_on(Service *s, uint32_t slot, const Descriptor *d) noexcept nogil:
    cdef Task *task = &s.batcher.tasks[slot]
    cdef const uint8_t *data = NULL if d.block == NO_BLOCK else pool_block_data(&s.pool, d.block) + d.offset
    if d.status != 200 and data == NULL:
        task_fail(s, slot, d.status, <const uint8_t *>NO_MEMORY, strlen(NO_MEMORY))
    elif d.status != 200:
        task_fail(s, slot, d.status, data, d.length)
    elif not _fits(task, d.length):
        task_fail(s, slot, 500, <const uint8_t *>SPOILT, strlen(SPOILT))
    else:
        task.streamed += d.length
        s.stream(s.io, task.connection, task.connection_generation, data, d.length)


cdef void stream_event(Service *s, uint32_t row, const Descriptor *d, bint sound) noexcept nogil:
    # Dropped where nobody waits for it: the client has left or has been told the end; or it is not this row's to send.
    cdef uint32_t slot = task_of(&s.batcher, d.task)
    if slot != NO_INDEX and batcher_holds(&s.batcher, row, slot, d.sequence) and \
            _is_streaming(s, &s.batcher.tasks[slot]):
        if sound:
            _pass_on(s, slot, d)
        else:
            task_fail(s, slot, 500, <const uint8_t *>SPOILT, strlen(SPOILT))
    block_drop(s, d.block)


cdef void stream_acknowledge(void *context, uint64_t id, uint64_t pending) noexcept nogil:
    # `pending` counts the framing too, and so says too much of the events that are still to go: until it is 0.
    cdef Service *s = <Service *>context
    cdef uint32_t slot = task_of(&s.batcher, id)
    cdef Task *task
    if slot == NO_INDEX:
        return
    task = &s.batcher.tasks[slot]
    if task.connection == NO_INDEX or task.streamed - task.acknowledged <= pending:
        return
    task.acknowledged = task.streamed - pending
    store_release_u64(&s.acknowledged[slot], task.acknowledged)     # as in stream_admit
    if task.state == TASK_HANDED:
        s.links[task.row].to_stir = True
        s.wake_due = True
