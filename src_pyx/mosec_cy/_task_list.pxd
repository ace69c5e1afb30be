# Intrusive lists of tasks: a stage's queue, and what a row was handed. Inline, for the batcher alone.

from libc.stdint cimport uint32_t

from mosec_cy._batcher cimport NO_INDEX, Task


cdef inline void link_task(Task *tasks, uint32_t *head, uint32_t *tail, uint32_t slot, uint32_t after) noexcept nogil:
    """Put `slot` before `after`; NO_INDEX is the end."""
    cdef uint32_t before = tail[0]
    if after != NO_INDEX:
        before = tasks[after].previous
        tasks[after].previous = slot
    else:
        tail[0] = slot
    if before != NO_INDEX:
        tasks[before].next = slot
    else:
        head[0] = slot
    tasks[slot].previous = before
    tasks[slot].next = after


cdef inline void unlink_task(Task *tasks, uint32_t *head, uint32_t *tail, uint32_t slot) noexcept nogil:
    cdef uint32_t before = tasks[slot].previous
    cdef uint32_t after = tasks[slot].next
    if before != NO_INDEX:
        tasks[before].next = after
    else:
        head[0] = after
    if after != NO_INDEX:
        tasks[after].previous = before
    else:
        tail[0] = before
