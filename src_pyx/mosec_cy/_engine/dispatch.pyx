""""""

from libc.string cimport memset, strlen
from posix.unistd cimport write

from mosec_cy._engine.batcher cimport (
    NO_INDEX,
    TASK_HANDED,
    WITHDRAWN,
    Stage,
    Task,
    batcher_complete,
    batcher_enqueue,
    batcher_holds,
    batcher_next_batch,
    batcher_row_drain,
    batcher_withdraw,
    deadlines_add,
    deadlines_remove,
    task_free,
    task_id,
    task_of,
)
from mosec_cy._engine.linux cimport (
    FUTEX_ALL,
    NEVER,
    load_acquire_u32,
    load_relaxed_u64,
    mosec_futex_wake,
    mosec_pidfd_send_signal,
    store_relaxed_u64,
    store_release_u32,
    store_release_u64,
)
from mosec_cy._engine.pool cimport (
    POOL_OK,
    pool_block_data,
    pool_block_size,
    pool_check,
    pool_drop_core,
    pool_take_over,
    trimmer_note,
)
from mosec_cy._engine.ring cimport (
    ANSWER_GZIP,
    ANSWER_VARIES,
    ANSWER_WISHES,
    ANSWER_ZSTD,
    NO_BLOCK,
    PAYLOAD_FRAMED,
    RING_BROKEN,
    RING_OK,
    STREAM_EVENT,
    TASK_FIRST,
    TASK_LAST,
    TASK_REPEATABLE,
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
from mosec_cy._engine.segment cimport (
    PHASE_DECODE,
    PHASE_FORWARD,
    PHASE_IDLE,
    STREAM_LITTLE,
    STREAM_WINDOW,
    histogram_add_count,
    histogram_add_ns,
)

# ---- tasks ---------------------------------------------------------------------------------------

# A task between its acceptance and its answer: its payload's block, its time-out, its client.

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


# ---- rows at work --------------------------------------------------------------------------------

# The rows at work: batches go out to them, answers come back.

cdef extern from "<signal.h>" nogil:
    int SIGKILL

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
                mosec_futex_wake(&s.links[row].shared.stream_bell.counter, FUTEX_ALL)


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


# ---- rows that hang ------------------------------------------------------------------------------

# Rows that overrun their time, or hang. A timer has core look: time-outs cost the usual path nothing.

cdef extern from "<signal.h>" nogil:
    int SIGALRM

cdef const char *OVERRUN = b"mosec timeout error: `forward` timeout"


cdef void _overrun(Service *s, uint32_t row, uint32_t batch) noexcept nogil:
    # `forward` has used up the stage's time: its clients are answered, the worker is told, and gets a period of grace.
    cdef Link *link = &s.links[row]
    cdef uint32_t slot = s.batcher.rows[row].handed.head
    cdef uint32_t next
    while slot != NO_INDEX:
        next = s.batcher.tasks[slot].link.next
        if s.batcher.tasks[slot].batch == batch and s.batcher.tasks[slot].connection != NO_INDEX:
            task_time_out(s, slot, OVERRUN)
        slot = next
    store_release_u32(&link.shared.overdue, batch)           # pairs with the acquire in Channel.overdue
    if link.pidfd >= 0:
        mosec_pidfd_send_signal(link.pidfd, SIGALRM)
    link.kill_at = s.now + s.kill_grace
    link.to_stir = True                # it may wait for a client to read
    s.wake_due = True
    s.report(s.control, REPORT_ROW_OVERDUE, row, batch)


cdef bint _has_lost_tasks(Service *s, uint32_t row, uint32_t batch, uint32_t phase) noexcept nogil:
    # It idles and its rings are empty, but it has not answered all: some process has written over a task's word, so
    # that nobody could start it. Said only the second time, because between taking and working it looks the same.
    cdef Link *link = &s.links[row]
    cdef uint32_t before = link.idle_batch
    link.idle_batch = 0
    if phase != PHASE_IDLE or s.batcher.rows[row].outstanding == 0 or ring_free(&link.submit) <= link.submit.mask or \
            ring_has_news(&link.complete):
        return False
    link.idle_batch = max(batch, 1)
    return link.idle_batch == before


cdef inline uint64_t _patience(const Service *s, uint32_t row) noexcept nogil:
    # After that long in one phase nobody waits for what it does there. (`forward` has a time-out of its own.)
    return max(s.timeout, s.stage_timeouts[s.batcher.rows[row].stage])


cdef bint _hangs(Service *s, uint32_t row, uint32_t batch, uint32_t phase) noexcept nogil:
    # It still does what it did at the last look, without an answer since, and has done so for longer than that.
    cdef const Link *link = &s.links[row]
    return batch == link.seen_batch and phase == link.seen_phase and link.complete.own == link.seen_answers and \
        link.seen_since <= s.now and s.now - link.seen_since >= _patience(s, row)


cdef void _watch(Service *s, uint32_t row, uint32_t batch, uint32_t phase, uint64_t since) noexcept nogil:
    # Outside of `forward`: it decodes, encodes, or has not come to what is in its ring.
    cdef Link *link = &s.links[row]
    if link.seen_since == NEVER or batch != link.seen_batch or phase != link.seen_phase or \
            link.complete.own != link.seen_answers:
        link.seen_batch = batch
        link.seen_phase = phase
        link.seen_answers = link.complete.own
        # A batch may have waited long for a row that was busy with another core's, or stopped.
        link.seen_since = min(since, s.now) if phase == PHASE_DECODE else s.now
    if _hangs(s, row, batch, phase):
        link.kill_at = min(link.kill_at, s.now + s.kill_grace)     # if core itself stood still, that is its chance
    else:
        link.check_at = min(link.check_at, link.seen_since + _patience(s, row))


cdef uint64_t _next_check(Service *s, uint32_t row) noexcept nogil:
    if s.batcher.rows[row].outstanding:
        return s.now + s.stage_timeouts[s.batcher.rows[row].stage]
    if ring_free(&s.links[row].submit) <= s.links[row].submit.mask:
        return s.now + _patience(s, row)       # those have left, but a row that lives would have looked
    s.links[row].seen_since = NEVER
    return NEVER


cdef void _check(Service *s, uint32_t row) noexcept nogil:
    cdef Link *link = &s.links[row]
    cdef uint64_t timeout = s.stage_timeouts[s.batcher.rows[row].stage]
    # In this order: a phase and its start that are read after the batch are of that batch or a later one, so that no
    # batch is blamed for the one before it.
    cdef uint32_t batch = load_acquire_u32(&link.shared.batch)      # pairs with the release in Channel._started
    cdef uint32_t phase = load_acquire_u32(&link.shared.phase)      # pairs with the release in Channel.begin_forward
    cdef uint64_t since = load_relaxed_u64(&link.shared.since)      # the row's own word: at worst it harms itself
    if link.kill_at <= s.now:
        link.kill_at = NEVER
        if phase == PHASE_FORWARD and batch == link.shared.overdue or \
                phase != PHASE_FORWARD and _hangs(s, row, batch, phase):      # `overdue` is core's own word
            row_give_up(s, row)
            s.report(s.control, REPORT_ROW_KILLED, row, batch)
        link.check_at = min(link.check_at, _next_check(s, row))
    if link.given_up:
        link.check_at = NEVER
    elif link.check_at <= s.now:
        link.check_at = _next_check(s, row)
        if _has_lost_tasks(s, row, batch, phase):
            row_give_up(s, row)
        elif phase == PHASE_FORWARD:
            if since + timeout <= s.now:
                link.check_at = NEVER
                if batch != link.shared.overdue:       # else it has been told
                    _overrun(s, row, batch)
            elif since + timeout < link.check_at:
                link.check_at = since + timeout
        elif link.check_at != NEVER:
            _watch(s, row, batch, phase, since)


cdef void rows_expire(Service *s) noexcept nogil:
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        if s.links[row].check_at <= s.now or s.links[row].kill_at <= s.now:
            _check(s, row)


cdef uint64_t rows_deadline(const Service *s) noexcept nogil:
    cdef uint64_t soonest = NEVER
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        soonest = min(soonest, min(s.links[row].check_at, s.links[row].kill_at))
    return soonest


# ---- streams of events ---------------------------------------------------------------------------

# Streams of events, from the rows' rings to the clients.
#
# A row may have so many bytes under way on each stream, see _fits. It learns of what has gone out by a word in shared
# memory, which core writes and never reads: its own count decides.

cdef const char *NO_EVENT_MEMORY = b"inference internal error: no shared memory for an event (--budget)"
cdef const char *SPOILT_EVENT = b"inference internal error: the worker sent an impossible event"


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
        task_fail(s, slot, d.status, <const uint8_t *>NO_EVENT_MEMORY, strlen(NO_EVENT_MEMORY))
    elif d.status != 200:
        task_fail(s, slot, d.status, data, d.length)
    elif not _fits(task, d.length):
        task_fail(s, slot, 500, <const uint8_t *>SPOILT_EVENT, strlen(SPOILT_EVENT))
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
            task_fail(s, slot, 500, <const uint8_t *>SPOILT_EVENT, strlen(SPOILT_EVENT))
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
