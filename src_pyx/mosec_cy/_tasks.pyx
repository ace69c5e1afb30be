"""A task between its acceptance and its answer: its payload's block, its time-out, its client."""

from libc.string cimport strlen

from mosec_cy._batcher cimport NEVER, NO_INDEX, TASK_HANDED, WITHDRAWN, Task, batcher_withdraw, task_free
from mosec_cy._deadlines cimport deadlines_add, deadlines_remove
from mosec_cy._http1_service cimport Answer
from mosec_cy._linux cimport store_relaxed_u64
from mosec_cy._pool cimport pool_block_size, pool_drop_core
from mosec_cy._ring cimport ANSWER_GZIP, ANSWER_VARIES, ANSWER_ZSTD, NO_BLOCK
from mosec_cy._segment cimport histogram_add_ns
from mosec_cy._trimmer cimport trimmer_note

cdef const char *SERVICE_TIMEOUT = b"inference timeout"


cdef void block_charge(Service *s, uint32_t block) noexcept nogil:
    s.charged += pool_block_size(&s.pool, block)
    store_relaxed_u64(&s.statistics.charged, s.charged)      # relaxed: a gauge


cdef void block_drop(Service *s, uint32_t block) noexcept nogil:
    if block != NO_BLOCK:
        pool_drop_core(&s.pool, block)
        s.charged -= pool_block_size(&s.pool, block)
        store_relaxed_u64(&s.statistics.charged, s.charged)  # relaxed: a gauge
        trimmer_note(&s.trimmer, block, s.now)


cdef void _timer_append(Service *s, uint32_t slot) noexcept nogil:
    cdef Task *task = &s.batcher.tasks[slot]
    task.timer_next = NO_INDEX
    task.timer_previous = s.timer_tail
    if s.timer_tail == NO_INDEX:
        s.timer_head = slot
    else:
        s.batcher.tasks[s.timer_tail].timer_next = slot
    s.timer_tail = slot


cdef void _timer_remove(Service *s, uint32_t slot) noexcept nogil:
    cdef Task *task = &s.batcher.tasks[slot]
    if task.timer_previous == NO_INDEX:
        s.timer_head = task.timer_next
    else:
        s.batcher.tasks[task.timer_previous].timer_next = task.timer_next
    if task.timer_next == NO_INDEX:
        s.timer_tail = task.timer_previous
    else:
        s.batcher.tasks[task.timer_next].timer_previous = task.timer_previous


cdef inline void _gauge(Service *s) noexcept nogil:
    store_relaxed_u64(&s.statistics.remaining, s.inside)     # relaxed: a gauge


cdef void task_admit(Service *s, uint32_t slot, uint64_t deadline) noexcept nogil:
    cdef Task *task = &s.batcher.tasks[slot]
    task.arrived_at = s.now
    task.has_own_deadline = deadline != 0
    if deadline == 0:
        task.deadline = s.now + s.timeout
        _timer_append(s, slot)
    else:
        task.deadline = deadline
        deadlines_add(&s.deadlines, slot, deadline)
    s.inside += 1
    _gauge(s)


cdef void _stop_waiting(Service *s, uint32_t slot) noexcept nogil:
    # Its client has been answered, or has left.
    if s.batcher.tasks[slot].has_own_deadline:
        deadlines_remove(&s.deadlines, slot)
    else:
        _timer_remove(s, slot)
    s.inside -= 1
    _gauge(s)


cdef const char *_coding_lines(uint32_t flags) noexcept nogil:
    # RFC 9110 section 12.5.5: `vary` also where this answer has no coding, or a cache would give it to everybody.
    if flags & ANSWER_GZIP:
        return b"content-encoding: gzip\r\nvary: accept-encoding\r\n"
    if flags & ANSWER_ZSTD:
        return b"content-encoding: zstd\r\nvary: accept-encoding\r\n"
    return b"vary: accept-encoding\r\n"


cdef bint _answer(Service *s, uint32_t connection, uint32_t generation, int status, uint32_t content_type,
                  const uint8_t *payload, uint64_t length, uint32_t block, uint32_t flags) noexcept nogil:
    # False if that client is there no more: the block is still ours.
    cdef Answer answer
    answer.status = status
    answer.content_type = s.content_types[content_type].text
    answer.content_type_n = s.content_types[content_type].n
    answer.payload = payload
    answer.payload_n = length
    answer.block = block
    answer.extra = NULL
    answer.extra_n = 0
    if flags & ANSWER_VARIES:
        answer.extra = _coding_lines(flags)
        answer.extra_n = strlen(answer.extra)
    return s.answer(s.io, connection, generation, &answer)


cdef void task_end(Service *s, uint32_t slot, int status, uint32_t content_type, const uint8_t *payload,
                   uint64_t length, uint32_t block) noexcept nogil:
    # The answer to the client, if it still waits; `block` is core's and goes with it. The task ends.
    cdef Task *task = &s.batcher.tasks[slot]
    cdef bint taken = False
    if task.connection != NO_INDEX:
        _stop_waiting(s, slot)
        if status == 200:
            histogram_add_ns(&s.statistics.total, s.now - task.arrived_at)
        taken = _answer(s, task.connection, task.connection_generation, status, content_type, payload, length, block,
                        task.flags if status == 200 else 0)
    else:
        store_relaxed_u64(&s.statistics.late, s.statistics.late + 1)       # relaxed: core alone writes
    if not taken:
        block_drop(s, block)
    task_free(&s.batcher, slot)


cdef void task_end_text(Service *s, uint32_t slot, int status, const char *text) noexcept nogil:
    task_end(s, slot, status, 0, <const uint8_t *>text, strlen(text), NO_BLOCK)


cdef void task_leave(Service *s, uint32_t slot) noexcept nogil:
    # Nobody waits for this task any more. It goes at once if no row has started it, else when that row is done.
    cdef Task *task = &s.batcher.tasks[slot]
    if task.state == TASK_HANDED:
        s.links[task.row].to_rouse = s.wake_due = True
    _stop_waiting(s, slot)
    task.connection = NO_INDEX
    if batcher_withdraw(&s.batcher, slot) == WITHDRAWN:
        block_drop(s, task.block)
        task_free(&s.batcher, slot)
    elif s.links[task.row].streams:
        s.links[task.row].to_stir = True
        s.wake_due = True


cdef void task_fail(Service *s, uint32_t slot, int status, const uint8_t *text, uint64_t n) noexcept nogil:
    cdef uint32_t connection = s.batcher.tasks[slot].connection
    cdef uint32_t generation = s.batcher.tasks[slot].connection_generation
    task_leave(s, slot)                # first: no row shall start what the client has been told is over
    _answer(s, connection, generation, status, 0, text, n, NO_BLOCK, 0)


cdef void task_time_out(Service *s, uint32_t slot, const char *text) noexcept nogil:
    task_fail(s, slot, 408, <const uint8_t *>text, strlen(text))


cdef void task_expire(Service *s, uint32_t slot) noexcept nogil:
    task_time_out(s, slot, SERVICE_TIMEOUT)


cdef void tasks_expire(Service *s) noexcept nogil:
    while s.timer_head != NO_INDEX and s.batcher.tasks[s.timer_head].deadline <= s.now:
        task_expire(s, s.timer_head)
    while s.deadlines.count and s.deadlines.heap[0].at <= s.now:
        task_expire(s, s.deadlines.heap[0].id)


cdef uint64_t tasks_deadline(const Service *s) noexcept nogil:
    cdef uint64_t soonest = NEVER if s.timer_head == NO_INDEX else s.batcher.tasks[s.timer_head].deadline
    return min(soonest, s.deadlines.heap[0].at) if s.deadlines.count else soonest
