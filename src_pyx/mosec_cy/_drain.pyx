"""What a shutdown does to requests that are inside: they are finished, or told so; none just ends."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport strlen

from mosec_cy._admission cimport STOPPING
from mosec_cy._batcher cimport NO_INDEX, TASK_FREE, TASK_QUEUED
from mosec_cy._tasks cimport task_fail


cdef void _refuse(Service *s, uint32_t slot) noexcept nogil:
    if s.batcher.tasks[slot].state != TASK_FREE and s.batcher.tasks[slot].connection != NO_INDEX:
        task_fail(s, slot, 503, <const uint8_t *>STOPPING, strlen(STOPPING))


cdef void drain_hopeless(Service *s) noexcept nogil:
    cdef uint32_t stage, slot, following
    for stage in range(s.batcher.stage_count):
        if s.batcher.stages[stage].waiting == 0 or s.batcher.stages[stage].rows:
            continue
        slot = s.batcher.stages[stage].queue.head
        while slot != NO_INDEX and s.batcher.tasks[slot].state == TASK_QUEUED:
            following = s.batcher.tasks[slot].link.next
            _refuse(s, slot)
            slot = following


cdef void drain_all(Service *s) noexcept nogil:
    cdef uint32_t slot
    for slot in range(s.batcher.fresh):
        _refuse(s, slot)
