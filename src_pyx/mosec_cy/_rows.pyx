"""The rows at work: batches go out to them, answers come back."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport write

from mosec_cy._batcher cimport (
    NEVER,
    NO_INDEX,
    Stage,
    Task,
    batcher_complete,
    batcher_enqueue,
    batcher_next_batch,
    batcher_row_drain,
    task_id,
    task_of,
)
from mosec_cy._linux cimport mosec_futex_wake, mosec_pidfd_send_signal
from mosec_cy._pool cimport POOL_OK, pool_block_data, pool_check, pool_take_over
from mosec_cy._ring cimport (
    ANSWER_WISHES,
    NO_BLOCK,
    PAYLOAD_FRAMED,
    RING_BROKEN,
    RING_OK,
    STREAM_EVENT,
    TASK_FIRST,
    TASK_LAST,
    TASK_REPEATABLE,
    Descriptor,
    bell_force,
    bell_ring,
    ring_free,
    ring_has_news,
    ring_is_spoilt,
    ring_pop,
    ring_publish,
    ring_push,
    ring_release,
)
from mosec_cy._router cimport Route
from mosec_cy._segment cimport histogram_add_count, histogram_add_ns
from mosec_cy._state cimport REPORT_ROW_IDLE, Link
from mosec_cy._streams cimport stream_event
from mosec_cy._tasks cimport block_charge, block_drop, task_end, task_end_text, task_expire

cdef extern from "<signal.h>" nogil:
    int SIGKILL

cdef enum:
    EVERYBODY = 0x7FFFFFFF             # of those who sleep on a futex

cdef const char *NO_MEMORY = b"inference internal error: no shared memory for the answer (--budget)"
cdef const char *SPOILT = b"inference internal error: the worker sent an impossible answer"


cdef void _wake(Link *link) noexcept nogil:
    cdef uint64_t one = 1
    if link.to_rouse:
        link.to_rouse = False
        bell_force(&link.shared.bell)
    elif not bell_ring(&link.shared.bell):
        return
    if link.wake_fd >= 0:
        write(link.wake_fd, &one, sizeof(one))
    else:
        mosec_futex_wake(&link.shared.bell.counter, 1)


cdef void rows_wake(Service *s) noexcept nogil:
    # Apart from handing out: a row that is woken for each task goes to sleep again before the next one is there.
    cdef uint32_t row
    if not s.wake_due:
        return
    s.wake_due = False
    for row in range(s.batcher.row_count):
        if s.links[row].to_wake or s.links[row].to_rouse:
            s.links[row].to_wake = False
            _wake(&s.links[row])
        if s.links[row].to_stir:
            s.links[row].to_stir = False
            if bell_ring(&s.links[row].shared.stream_bell):
                mosec_futex_wake(&s.links[row].shared.stream_bell.counter, EVERYBODY)


cdef void _hand_out(Service *s, uint32_t row, uint32_t n) noexcept nogil:
    # Tasks of s.scratch to the row's ring, seen by the row all at once.
    cdef Link *link = &s.links[row]
    cdef Descriptor d
    cdef Task *task
    cdef uint32_t i
    memset(&d, 0, sizeof(Descriptor))
    d.batch_size = n
    for i in range(n):
        task = &s.batcher.tasks[s.scratch[i]]
        d.task = task_id(&s.batcher, s.scratch[i])
        d.sequence = task.sequence
        d.block = task.block
        d.offset = task.offset
        d.length = task.length
        d.batch = task.batch
        d.flags = task.flags
        if task.position == 0:
            d.flags |= TASK_FIRST
        if task.position + 1u == s.routes[task.route].stage_count:
            d.flags |= TASK_LAST
        if task.tries < s.batcher.stages[task.stage].retry:
            d.flags |= TASK_REPEATABLE
        ring_push(&link.submit, &d)
    ring_publish(&link.submit)
    link.to_wake = True
    s.wake_due = True


cdef uint32_t _drop_late(Service *s, uint32_t n) noexcept nogil:
    # Of the tasks in s.scratch, those whose time is over are answered so and not sent: what frees a row may be found
    # in the same round as their deadline, and before it. How many remain.
    cdef uint32_t kept = 0
    cdef uint32_t i
    for i in range(n):
        if s.batcher.tasks[s.scratch[i]].deadline <= s.now:
            task_expire(s, s.scratch[i])
        else:
            s.scratch[kept] = s.scratch[i]
            kept += 1
    return kept


cdef void _see_room(Service *s, uint32_t row) noexcept nogil:
    # Never more than fits into the ring of answers, if the row answered it all before core looks again.
    cdef Link *link = &s.links[row]
    cdef uint32_t room = ring_free(&link.submit)
    if room == 0 and s.batcher.rows[row].up and ring_is_spoilt(&link.submit):
        row_give_up(s, row)
    # Where events are sent they may take up one half of it, see Sender._may_stop_waiting.
    s.batcher.rows[row].room = min(
        room, (<uint32_t>(link.complete.mask + 1) >> <uint32_t>link.streams) - s.batcher.rows[row].outstanding)


cdef void rows_dispatch(Service *s, uint32_t stage) noexcept nogil:
    cdef Stage *st = &s.batcher.stages[stage]
    cdef uint32_t n
    cdef uint32_t row = st.up.head
    if st.waiting == 0:
        return
    while row != NO_INDEX:
        _see_room(s, row)
        row = s.batcher.rows[row].link.next
    while True:
        n = batcher_next_batch(&s.batcher, stage, s.now, s.scratch, &row)
        if n == 0:
            return
        n = _drop_late(s, n)
        if n == 0:
            continue
        _hand_out(s, row, n)
        if s.stage_timeouts[stage] and s.links[row].check_at == NEVER:
            s.links[row].check_at = s.now + s.stage_timeouts[stage]


cdef void _settle(Service *s, uint32_t slot, const Descriptor *d) noexcept nogil:
    # A checked completion of a task that is core's again: on to the next stage, or to the client.
    cdef Task *task = &s.batcher.tasks[slot]
    cdef const Route *route = &s.routes[task.route]
    cdef uint32_t stage
    if task.connection == NO_INDEX or d.status != 200 or task.position + 1u >= route.stage_count:
        if d.block == NO_BLOCK and d.status != 200:
            task_end_text(s, slot, d.status, NO_MEMORY)
        else:
            task.flags = d.flags
            task_end(s, slot, d.status, d.content_type,
                     NULL if d.block == NO_BLOCK else pool_block_data(&s.pool, d.block) + d.offset, d.length, d.block)
        return
    task.position += 1
    task.block = d.block
    task.offset = d.offset
    task.length = d.length
    task.flags = task.flags & ANSWER_WISHES | d.flags & PAYLOAD_FRAMED
    stage = route.stages[task.position]
    batcher_enqueue(&s.batcher, slot, stage, s.now)
    rows_dispatch(s, stage)


cdef bint _sound(Service *s, const Descriptor *d) noexcept nogil:
    # What a row says of its answer is possible. (Of the other statuses some forbid a body, RFC 9110 section 6.4.1.)
    if d.content_type >= s.content_type_count or d.status != 200 and (d.status < 400 or d.status > 599):
        return False
    if d.block == NO_BLOCK:
        return d.length == 0
    return pool_check(&s.pool, d.block, d.offset, d.length) == POOL_OK


cdef bint _accept_block(Service *s, uint32_t row, Descriptor *d) noexcept nogil:
    # The answer's block becomes core's. A row that does not hold it alone may not answer with it.
    if d.block == NO_BLOCK:
        return True
    if pool_take_over(&s.pool, d.block, s.links[row].lessee) != POOL_OK:
        d.block = NO_BLOCK
        return False
    block_charge(s, d.block)
    return True


cdef void _answered(Service *s, uint32_t row, const Task *task, int status) noexcept nogil:
    cdef Link *link = &s.links[row]
    link.batch_answered += 1
    link.batch_succeeded += status == 200
    link.batch_formed = max(link.batch_formed, task.handed_at - task.queued_at)


cdef void _batch_done(Service *s, uint32_t row, uint64_t batch_ns) noexcept nogil:
    # Batches are counted as the row has seen them: without what was taken back or given up before it started.
    cdef Link *link = &s.links[row]
    cdef uint32_t stage = s.batcher.rows[row].stage
    if link.batch_succeeded:
        histogram_add_ns(&link.statistics.duration, batch_ns)
    if s.batcher.stages[stage].max_batch_size > 1:
        histogram_add_count(&link.statistics.batch_size, link.batch_answered)
        histogram_add_ns(&link.statistics.batch_duration, link.batch_formed)
    row_forget_batch(link)
    if s.stage_timeouts[stage] and s.batcher.rows[row].outstanding:
        link.check_at = s.now + s.stage_timeouts[stage]


cdef void row_forget_batch(Link *link) noexcept nogil:
    link.check_at = NEVER
    link.kill_at = NEVER
    link.batch_answered = link.batch_succeeded = 0
    link.batch_formed = 0


cdef void _complete(Service *s, uint32_t row, Descriptor *d) noexcept nogil:
    cdef uint32_t slot = task_of(&s.batcher, d.task)
    cdef uint64_t batch_ns = 0
    cdef bint sound = _sound(s, d)
    sound = _accept_block(s, row, d) and sound
    if d.flags & STREAM_EVENT:
        stream_event(s, row, d, sound)
        return
    if slot == NO_INDEX or not batcher_complete(&s.batcher, row, slot, d.sequence, s.now, &batch_ns):
        block_drop(s, d.block)
        return
    _answered(s, row, &s.batcher.tasks[slot], d.status if sound else 500)
    if batch_ns:
        _batch_done(s, row, batch_ns)
    block_drop(s, s.batcher.tasks[slot].block)
    s.batcher.tasks[slot].block = NO_BLOCK
    if sound:
        _settle(s, slot, d)
    else:
        block_drop(s, d.block)
        task_end_text(s, slot, 500, SPOILT)


cdef void row_give_up(Service *s, uint32_t row) noexcept nogil:
    # It gets no more work, what it has not started goes to others, and its death does the rest. The master's own row
    # has no process to kill: its routes time out, the users' go on.
    cdef Link *link = &s.links[row]
    if link.given_up:
        return
    link.given_up = True
    batcher_row_drain(&s.batcher, row)
    if link.pidfd >= 0:
        mosec_pidfd_send_signal(link.pidfd, SIGKILL)


cdef void row_report_idle(Service *s, uint32_t row) noexcept nogil:
    if s.batcher.rows[row].outstanding == 0:
        s.links[row].leaving = False
        s.report(s.control, REPORT_ROW_IDLE, row, 0)


cdef void row_poll(Service *s, uint32_t row) noexcept nogil:
    cdef Link *link = &s.links[row]
    cdef Descriptor d
    cdef uint64_t most = link.complete.mask + 1        # a row that writes without end gets its turn, no more
    cdef uint64_t n = 0
    cdef int rc = RING_OK
    while n < most and rc == RING_OK:
        rc = ring_pop(&link.complete, &d)
        if rc == RING_OK:
            _complete(s, row, &d)
            n += 1
    if rc == RING_BROKEN:
        row_give_up(s, row)
    elif n:
        ring_release(&link.complete)
        if link.streams:
            link.to_stir = True
            s.wake_due = True
        if link.leaving:
            row_report_idle(s, row)
    rows_dispatch(s, s.batcher.rows[row].stage)


cdef bint rows_have_news(Service *s) noexcept nogil:
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        if ring_has_news(&s.links[row].complete) and not s.links[row].given_up:
            return True
    return False


cdef void rows_poll(Service *s) noexcept nogil:
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        if ring_has_news(&s.links[row].complete) and not s.links[row].given_up:
            row_poll(s, row)
        if s.batcher.rows[row].late:
            _see_room(s, row)          # a row that pops what was taken back says nothing, and may take from others then
