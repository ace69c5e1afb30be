"""Tasks and worker slots at work: batches go out to workers, answers and events come back, and each task ends once."""

from libc.string cimport memset, strlen
from posix.unistd cimport close, write

from mosec_cy._engine.batcher cimport (
    TASK_HANDED,
    WITHDRAWN,
    Stage,
    Task,
    batcher_complete,
    batcher_deadline,
    batcher_enqueue,
    batcher_holds,
    batcher_next_batch,
    batcher_retry,
    batcher_row_down,
    batcher_row_drain,
    batcher_row_up,
    batcher_take_back,
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
from mosec_cy._engine.list cimport NO_INDEX
from mosec_cy._engine.pool cimport (
    POOL_OK,
    pool_block_data,
    pool_block_size,
    pool_check,
    pool_drop_core,
    pool_lessee,
    pool_sweep,
    pool_take_over,
    trimmer_note,
    trimmer_run,
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
    ring_reset,
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


cdef void block_charge(Dispatcher *d, uint32_t block) noexcept nogil:
    d.charged += pool_block_size(&d.pool, block)
    store_relaxed_u64(&d.statistics.charged, d.charged)      # relaxed: a gauge


cdef void block_drop(Dispatcher *d, uint32_t block) noexcept nogil:
    if block != NO_BLOCK:
        pool_drop_core(&d.pool, block)
        d.charged -= pool_block_size(&d.pool, block)
        store_relaxed_u64(&d.statistics.charged, d.charged)  # relaxed: a gauge
        trimmer_note(&d.trimmer, block, d.now)


cdef inline void _gauge(Dispatcher *d) noexcept nogil:
    store_relaxed_u64(&d.statistics.remaining, d.inside)     # relaxed: a gauge


cdef void task_admit(Dispatcher *d, uint32_t slot, uint64_t deadline) noexcept nogil:
    cdef Task *task = &d.batcher.tasks[slot]
    task.arrived_at = d.now
    task.deadline = deadline if deadline else d.now + d.timeout
    deadlines_add(&d.deadlines, slot, task.deadline)
    d.inside += 1
    _gauge(d)


cdef void _stop_waiting(Dispatcher *d, uint32_t slot) noexcept nogil:
    # Its client has been answered, or has left.
    deadlines_remove(&d.deadlines, slot)
    d.inside -= 1
    _gauge(d)


cdef const char *_coding_lines(uint32_t flags) noexcept nogil:
    # RFC 9110 section 12.5.5: `vary` also where this answer has no coding, or a cache would give it to everybody.
    if flags & ANSWER_GZIP:
        return b"content-encoding: gzip\r\nvary: accept-encoding\r\n"
    if flags & ANSWER_ZSTD:
        return b"content-encoding: zstd\r\nvary: accept-encoding\r\n"
    return b"vary: accept-encoding\r\n"


cdef Answer _text_answer(const Dispatcher *d, int status, const uint8_t *text, uint64_t n) noexcept nogil:
    cdef Answer answer
    answer.status = status
    answer.content_type = d.content_types[0].text
    answer.content_type_n = d.content_types[0].n
    answer.payload = text
    answer.payload_n = n
    answer.block = NO_BLOCK
    answer.extra = NULL
    answer.extra_n = 0
    return answer


cdef Answer _worker_answer(const Dispatcher *d, const Descriptor *item) noexcept nogil:
    # What a worker's descriptor says, which has been checked.
    cdef const uint8_t *payload = NULL if item.block == NO_BLOCK else pool_block_data(&d.pool, item.block) + item.offset
    cdef Answer answer = _text_answer(d, item.status, payload, item.length)
    answer.content_type = d.content_types[item.content_type].text
    answer.content_type_n = d.content_types[item.content_type].n
    answer.block = item.block
    if item.status == 200 and item.flags & ANSWER_VARIES:
        answer.extra = _coding_lines(item.flags)
        answer.extra_n = strlen(answer.extra)
    return answer


cdef void _end_task(Dispatcher *d, uint32_t slot, const Answer *answer) noexcept nogil:
    # The answer to the client, if it still waits; its block is core's and goes with it. The task ends.
    cdef Task *task = &d.batcher.tasks[slot]
    cdef bint taken = False
    if task.connection != NO_INDEX:
        _stop_waiting(d, slot)
        if answer.status == 200:
            histogram_add_ns(&d.statistics.total, d.now - task.arrived_at)
        taken = d.answer(d.io, task.connection, task.connection_generation, answer)
    else:
        store_relaxed_u64(&d.statistics.late, d.statistics.late + 1)       # relaxed: core alone writes
    if not taken:
        block_drop(d, answer.block)
    task_free(&d.batcher, slot)


cdef void _end_task_with_text(Dispatcher *d, uint32_t slot, int status, const char *text) noexcept nogil:
    cdef Answer answer = _text_answer(d, status, <const uint8_t *>text, strlen(text))
    _end_task(d, slot, &answer)


cdef void task_leave(Dispatcher *d, uint32_t slot) noexcept nogil:
    # Nobody waits for this task any more. It goes at once if no row has started it, else when that row is done.
    cdef Task *task = &d.batcher.tasks[slot]
    if task.state == TASK_HANDED:
        _notify(d, task.row, NOTIFY_FORCED)
    _stop_waiting(d, slot)
    task.connection = NO_INDEX
    if batcher_withdraw(&d.batcher, slot) == WITHDRAWN:
        block_drop(d, task.block)
        task_free(&d.batcher, slot)
    elif d.links[task.row].streams:
        _notify(d, task.row, NOTIFY_STREAM)


cdef void task_fail(Dispatcher *d, uint32_t slot, int status, const uint8_t *text, uint64_t n) noexcept nogil:
    cdef uint32_t connection = d.batcher.tasks[slot].connection
    cdef uint32_t generation = d.batcher.tasks[slot].connection_generation
    cdef Answer answer = _text_answer(d, status, text, n)
    task_leave(d, slot)                # first: no row shall start what the client has been told is over
    d.answer(d.io, connection, generation, &answer)


cdef void task_time_out(Dispatcher *d, uint32_t slot, const char *text) noexcept nogil:
    task_fail(d, slot, 408, <const uint8_t *>text, strlen(text))


cdef void task_expire(Dispatcher *d, uint32_t slot) noexcept nogil:
    task_time_out(d, slot, SERVICE_TIMEOUT)


cdef void _expire_tasks(Dispatcher *d) noexcept nogil:
    while d.deadlines.count and d.deadlines.heap[0].at <= d.now:
        task_expire(d, d.deadlines.heap[0].id)


# ---- rows at work --------------------------------------------------------------------------------

# The rows at work: batches go out to them, answers come back.

cdef extern from "<signal.h>" nogil:
    int SIGKILL

cdef const char *NO_MEMORY = b"inference internal error: no shared memory for the answer (--budget)"
cdef const char *SPOILT = b"inference internal error: the worker sent an impossible answer"


cdef inline void _notify(Dispatcher *d, uint32_t row, uint8_t kind) noexcept nogil:
    d.links[row].notify |= kind
    d.notify_due = True


cdef void _wake(Link *link, bint forced) noexcept nogil:
    cdef uint64_t one = 1
    if forced:
        bell_force(&link.shared.bell)
    elif not bell_ring(&link.shared.bell):
        return
    if link.wake_fd >= 0:
        write(link.wake_fd, &one, sizeof(one))
    else:
        mosec_futex_wake(&link.shared.bell.counter, 1)


cdef void dispatch_notify(Dispatcher *d) noexcept nogil:
    # Apart from handing out: a row that is woken for each task goes to sleep again before the next one is there.
    cdef uint32_t row
    cdef uint8_t kind
    if not d.notify_due:
        return
    d.notify_due = False
    for row in range(d.batcher.row_count):
        kind = d.links[row].notify
        d.links[row].notify = 0
        if kind & (NOTIFY_WORK | NOTIFY_FORCED):
            _wake(&d.links[row], kind & NOTIFY_FORCED)
        if kind & NOTIFY_STREAM and bell_ring(&d.links[row].shared.stream_bell):
            mosec_futex_wake(&d.links[row].shared.stream_bell.counter, FUTEX_ALL)


cdef void _hand_out(Dispatcher *d, uint32_t row, uint32_t n) noexcept nogil:
    # Tasks of d.scratch to the row's ring, seen by the row all at once.
    cdef Link *link = &d.links[row]
    cdef Descriptor item
    cdef Task *task
    cdef uint32_t i
    memset(&item, 0, sizeof(Descriptor))
    item.batch_size = n
    for i in range(n):
        task = &d.batcher.tasks[d.scratch[i]]
        item.task = task_id(&d.batcher, d.scratch[i])
        item.sequence = task.sequence
        item.block = task.block
        item.offset = task.offset
        item.length = task.length
        item.batch = task.batch
        item.flags = task.flags
        if task.position == 0:
            item.flags |= TASK_FIRST
        if task.position + 1u == d.pipelines[task.route].stage_count:
            item.flags |= TASK_LAST
        if task.tries < d.batcher.stages[task.stage].retry:
            item.flags |= TASK_REPEATABLE
        ring_push(&link.submit, &item)
    ring_publish(&link.submit)
    _notify(d, row, NOTIFY_WORK)


cdef uint32_t _drop_late(Dispatcher *d, uint32_t n) noexcept nogil:
    # Of the tasks in d.scratch, those whose time is over are answered so and not sent: what frees a row may be found
    # in the same round as their deadline, and before it. How many remain.
    cdef uint32_t kept = 0
    cdef uint32_t i
    for i in range(n):
        if d.batcher.tasks[d.scratch[i]].deadline <= d.now:
            task_expire(d, d.scratch[i])
        else:
            d.scratch[kept] = d.scratch[i]
            kept += 1
    return kept


cdef void _see_room(Dispatcher *d, uint32_t row) noexcept nogil:
    # Never more than fits into the ring of answers, if the row answered it all before core looks again.
    cdef Link *link = &d.links[row]
    cdef uint32_t room = ring_free(&link.submit)
    if room == 0 and d.batcher.rows[row].up and ring_is_spoilt(&link.submit):
        row_give_up(d, row)
    # Where events are sent they may take up one half of it, see Sender._may_stop_waiting.
    d.batcher.rows[row].room = min(
        room, (<uint32_t>(link.complete.mask + 1) >> <uint32_t>link.streams) - d.batcher.rows[row].outstanding)


cdef void rows_dispatch(Dispatcher *d, uint32_t stage) noexcept nogil:
    cdef Stage *st = &d.batcher.stages[stage]
    cdef uint32_t n
    cdef uint32_t row = st.up.head
    if st.waiting == 0:
        return
    while row != NO_INDEX:
        _see_room(d, row)
        row = d.batcher.rows[row].link.next
    while True:
        n = batcher_next_batch(&d.batcher, stage, d.now, d.scratch, &row)
        if n == 0:
            return
        n = _drop_late(d, n)
        if n == 0:
            continue
        _hand_out(d, row, n)
        if d.stage_timeouts[stage] and d.links[row].check_at == NEVER:
            d.links[row].check_at = d.now + d.stage_timeouts[stage]


cdef void _settle(Dispatcher *d, uint32_t slot, const Descriptor *item) noexcept nogil:
    # A checked completion of a task that is core's again: on to the next stage, or to the client.
    cdef Task *task = &d.batcher.tasks[slot]
    cdef const Pipeline *pipeline = &d.pipelines[task.route]
    cdef Answer answer
    cdef uint32_t stage
    if task.connection == NO_INDEX or item.status != 200 or task.position + 1u >= pipeline.stage_count:
        if item.block == NO_BLOCK and item.status != 200:
            _end_task_with_text(d, slot, item.status, NO_MEMORY)
        else:
            answer = _worker_answer(d, item)
            _end_task(d, slot, &answer)
        return
    task.position += 1
    task.block = item.block
    task.offset = item.offset
    task.length = item.length
    task.flags = task.flags & ANSWER_WISHES | item.flags & PAYLOAD_FRAMED
    stage = pipeline.stages[task.position]
    batcher_enqueue(&d.batcher, slot, stage, d.now)
    rows_dispatch(d, stage)


cdef bint _sound(Dispatcher *d, const Descriptor *item) noexcept nogil:
    # What a row says of its answer is possible. (Of the other statuses some forbid a body, RFC 9110 section 6.4.1.)
    if item.content_type >= d.content_type_count or item.status != 200 and (item.status < 400 or item.status > 599):
        return False
    if item.block == NO_BLOCK:
        return item.length == 0
    return pool_check(&d.pool, item.block, item.offset, item.length) == POOL_OK


cdef bint _accept_block(Dispatcher *d, uint32_t row, Descriptor *item) noexcept nogil:
    # The answer's block becomes core's. A row that does not hold it alone may not answer with it.
    if item.block == NO_BLOCK:
        return True
    if pool_take_over(&d.pool, item.block, d.links[row].lessee) != POOL_OK:
        item.block = NO_BLOCK
        return False
    block_charge(d, item.block)
    return True


cdef void _answered(Dispatcher *d, uint32_t row, const Task *task, int status) noexcept nogil:
    cdef Link *link = &d.links[row]
    link.batch_answered += 1
    link.batch_succeeded += status == 200
    link.batch_formed = max(link.batch_formed, task.handed_at - task.queued_at)


cdef void _batch_done(Dispatcher *d, uint32_t row, uint64_t batch_ns) noexcept nogil:
    # Batches are counted as the row has seen them: without what was taken back or given up before it started.
    cdef Link *link = &d.links[row]
    cdef uint32_t stage = d.batcher.rows[row].stage
    if link.batch_succeeded:
        histogram_add_ns(&link.statistics.duration, batch_ns)
    if d.batcher.stages[stage].max_batch_size > 1:
        histogram_add_count(&link.statistics.batch_size, link.batch_answered)
        histogram_add_ns(&link.statistics.batch_duration, link.batch_formed)
    row_forget_batch(link)
    if d.stage_timeouts[stage] and d.batcher.rows[row].outstanding:
        link.check_at = d.now + d.stage_timeouts[stage]


cdef void row_forget_batch(Link *link) noexcept nogil:
    link.check_at = NEVER
    link.kill_at = NEVER
    link.batch_answered = link.batch_succeeded = 0
    link.batch_formed = 0


cdef void _complete(Dispatcher *d, uint32_t row, Descriptor *item) noexcept nogil:
    cdef uint32_t slot = task_of(&d.batcher, item.task)
    cdef uint64_t batch_ns = 0
    cdef bint sound = _sound(d, item)
    sound = _accept_block(d, row, item) and sound
    if item.flags & STREAM_EVENT:
        stream_event(d, row, item, sound)
        return
    if slot == NO_INDEX or not batcher_complete(&d.batcher, row, slot, item.sequence, d.now, &batch_ns):
        block_drop(d, item.block)
        return
    _answered(d, row, &d.batcher.tasks[slot], item.status if sound else 500)
    if batch_ns:
        _batch_done(d, row, batch_ns)
    block_drop(d, d.batcher.tasks[slot].block)
    d.batcher.tasks[slot].block = NO_BLOCK
    if sound:
        _settle(d, slot, item)
    else:
        block_drop(d, item.block)
        _end_task_with_text(d, slot, 500, SPOILT)


cdef void row_give_up(Dispatcher *d, uint32_t row) noexcept nogil:
    # It gets no more work, what it has not started goes to others, and its death does the rest. The master's own row
    # has no process to kill: its routes time out, the users' go on.
    cdef Link *link = &d.links[row]
    if link.given_up:
        return
    link.given_up = True
    batcher_row_drain(&d.batcher, row)
    if link.pidfd >= 0:
        mosec_pidfd_send_signal(link.pidfd, SIGKILL)


cdef void row_report_idle(Dispatcher *d, uint32_t row) noexcept nogil:
    if d.batcher.rows[row].outstanding == 0:
        d.links[row].leaving = False
        d.report(d.control, REPORT_ROW_IDLE, row, 0)


cdef void row_poll(Dispatcher *d, uint32_t row) noexcept nogil:
    cdef Link *link = &d.links[row]
    cdef Descriptor item
    cdef uint64_t most = link.complete.mask + 1        # a row that writes without end gets its turn, no more
    cdef uint64_t n = 0
    cdef int rc = RING_OK
    while n < most and rc == RING_OK:
        rc = ring_pop(&link.complete, &item)
        if rc == RING_OK:
            _complete(d, row, &item)
            n += 1
    if rc == RING_BROKEN:
        row_give_up(d, row)
    elif n:
        ring_release(&link.complete)
        if link.streams:
            _notify(d, row, NOTIFY_STREAM)
        if link.leaving:
            row_report_idle(d, row)
    rows_dispatch(d, d.batcher.rows[row].stage)


cdef bint dispatch_has_news(const Dispatcher *d) noexcept nogil:
    cdef uint32_t row
    for row in range(d.batcher.row_count):
        if ring_has_news(&d.links[row].complete) and not d.links[row].given_up:
            return True
    return False


cdef void dispatch_poll(Dispatcher *d) noexcept nogil:
    cdef uint32_t row
    for row in range(d.batcher.row_count):
        if ring_has_news(&d.links[row].complete) and not d.links[row].given_up:
            row_poll(d, row)
        if d.batcher.rows[row].late:
            _see_room(d, row)          # a row that pops what was taken back says nothing, and may take from others then


# ---- rows that hang ------------------------------------------------------------------------------

# Rows that overrun their time, or hang. A timer has core look: time-outs cost the usual path nothing.

cdef extern from "<signal.h>" nogil:
    int SIGALRM

cdef const char *OVERRUN = b"mosec timeout error: `forward` timeout"


cdef void _overrun(Dispatcher *d, uint32_t row, uint32_t batch) noexcept nogil:
    # `forward` has used up the stage's time: its clients are answered, the worker is told, and gets a period of grace.
    cdef Link *link = &d.links[row]
    cdef uint32_t slot = d.batcher.rows[row].handed.head
    cdef uint32_t next
    while slot != NO_INDEX:
        next = d.batcher.tasks[slot].link.next
        if d.batcher.tasks[slot].batch == batch and d.batcher.tasks[slot].connection != NO_INDEX:
            task_time_out(d, slot, OVERRUN)
        slot = next
    store_release_u32(&link.shared.overdue, batch)           # pairs with the acquire in Channel.overdue
    if link.pidfd >= 0:
        mosec_pidfd_send_signal(link.pidfd, SIGALRM)
    link.kill_at = d.now + d.kill_grace
    _notify(d, row, NOTIFY_STREAM)     # it may wait for a client to read
    d.report(d.control, REPORT_ROW_OVERDUE, row, batch)


cdef bint _has_lost_tasks(Dispatcher *d, uint32_t row, uint32_t batch, uint32_t phase) noexcept nogil:
    # It idles and its rings are empty, but it has not answered all: some process has written over a task's word, so
    # that nobody could start it. Said only the second time, because between taking and working it looks the same.
    cdef Link *link = &d.links[row]
    cdef uint32_t before = link.idle_batch
    link.idle_batch = 0
    if phase != PHASE_IDLE or d.batcher.rows[row].outstanding == 0 or ring_free(&link.submit) <= link.submit.mask or \
            ring_has_news(&link.complete):
        return False
    link.idle_batch = max(batch, 1)
    return link.idle_batch == before


cdef inline uint64_t _patience(const Dispatcher *d, uint32_t row) noexcept nogil:
    # After that long in one phase nobody waits for what it does there. (`forward` has a time-out of its own.)
    return max(d.timeout, d.stage_timeouts[d.batcher.rows[row].stage])


cdef bint _hangs(Dispatcher *d, uint32_t row, uint32_t batch, uint32_t phase) noexcept nogil:
    # It still does what it did at the last look, without an answer since, and has done so for longer than that.
    cdef const Link *link = &d.links[row]
    return batch == link.seen_batch and phase == link.seen_phase and link.complete.own == link.seen_answers and \
        link.seen_since <= d.now and d.now - link.seen_since >= _patience(d, row)


cdef void _watch(Dispatcher *d, uint32_t row, uint32_t batch, uint32_t phase, uint64_t since) noexcept nogil:
    # Outside of `forward`: it decodes, encodes, or has not come to what is in its ring.
    cdef Link *link = &d.links[row]
    if link.seen_since == NEVER or batch != link.seen_batch or phase != link.seen_phase or \
            link.complete.own != link.seen_answers:
        link.seen_batch = batch
        link.seen_phase = phase
        link.seen_answers = link.complete.own
        # A batch may have waited long for a row that was busy with another core's, or stopped.
        link.seen_since = min(since, d.now) if phase == PHASE_DECODE else d.now
    if _hangs(d, row, batch, phase):
        link.kill_at = min(link.kill_at, d.now + d.kill_grace)     # if core itself stood still, that is its chance
    else:
        link.check_at = min(link.check_at, link.seen_since + _patience(d, row))


cdef uint64_t _next_check(Dispatcher *d, uint32_t row) noexcept nogil:
    if d.batcher.rows[row].outstanding:
        return d.now + d.stage_timeouts[d.batcher.rows[row].stage]
    if ring_free(&d.links[row].submit) <= d.links[row].submit.mask:
        return d.now + _patience(d, row)       # those have left, but a row that lives would have looked
    d.links[row].seen_since = NEVER
    return NEVER


cdef void _check(Dispatcher *d, uint32_t row) noexcept nogil:
    cdef Link *link = &d.links[row]
    cdef uint64_t timeout = d.stage_timeouts[d.batcher.rows[row].stage]
    # In this order: a phase and its start that are read after the batch are of that batch or a later one, so that no
    # batch is blamed for the one before it.
    cdef uint32_t batch = load_acquire_u32(&link.shared.batch)      # pairs with the release in Channel._started
    cdef uint32_t phase = load_acquire_u32(&link.shared.phase)      # pairs with the release in Channel.begin_forward
    cdef uint64_t since = load_relaxed_u64(&link.shared.since)      # the row's own word: at worst it harms itself
    if link.kill_at <= d.now:
        link.kill_at = NEVER
        if phase == PHASE_FORWARD and batch == link.shared.overdue or \
                phase != PHASE_FORWARD and _hangs(d, row, batch, phase):      # `overdue` is core's own word
            row_give_up(d, row)
            d.report(d.control, REPORT_ROW_KILLED, row, batch)
        link.check_at = min(link.check_at, _next_check(d, row))
    if link.given_up:
        link.check_at = NEVER
    elif link.check_at <= d.now:
        link.check_at = _next_check(d, row)
        if _has_lost_tasks(d, row, batch, phase):
            row_give_up(d, row)
        elif phase == PHASE_FORWARD:
            if since + timeout <= d.now:
                link.check_at = NEVER
                if batch != link.shared.overdue:       # else it has been told
                    _overrun(d, row, batch)
            elif since + timeout < link.check_at:
                link.check_at = since + timeout
        elif link.check_at != NEVER:
            _watch(d, row, batch, phase, since)


cdef void _expire_rows(Dispatcher *d) noexcept nogil:
    cdef uint32_t row
    for row in range(d.batcher.row_count):
        if d.links[row].check_at <= d.now or d.links[row].kill_at <= d.now:
            _check(d, row)


cdef uint64_t _rows_deadline(const Dispatcher *d) noexcept nogil:
    cdef uint64_t soonest = NEVER
    cdef uint32_t row
    for row in range(d.batcher.row_count):
        soonest = min(soonest, min(d.links[row].check_at, d.links[row].kill_at))
    return soonest


# ---- streams of events ---------------------------------------------------------------------------

# Streams of events, from the rows' rings to the clients.
#
# A row may have so many bytes under way on each stream, see _fits. It learns of what has gone out by a word in shared
# memory, which core writes and never reads: its own count decides.

cdef const char *NO_EVENT_MEMORY = b"inference internal error: no shared memory for an event (--budget)"
cdef const char *SPOILT_EVENT = b"inference internal error: the worker sent an impossible event"


cdef void stream_admit(Dispatcher *d, uint32_t slot) noexcept nogil:
    d.batcher.tasks[slot].streamed = 0
    d.batcher.tasks[slot].acknowledged = 0
    store_release_u64(&d.acknowledged[slot], 0)      # pairs with the acquire in Sender._is_within_window


cdef inline bint _is_streaming(const Dispatcher *d, const Task *task) noexcept nogil:
    cdef const Pipeline *pipeline = &d.pipelines[task.route]
    return pipeline.streams and task.position + 1u == pipeline.stage_count and task.connection != NO_INDEX


cdef inline bint _fits(const Task *task, uint64_t n) noexcept nogil:
    # Rows keep to this by themselves: what they know of acknowledged bytes is not newer than what core knows.
    cdef uint64_t under_way = task.streamed - task.acknowledged
    return under_way <= STREAM_LITTLE or n <= STREAM_WINDOW and under_way <= STREAM_WINDOW - n


cdef void _pass_on(Dispatcher *d, uint32_t slot, const Descriptor *item) noexcept nogil:
    cdef Task *task = &d.batcher.tasks[slot]
    cdef const uint8_t *data = NULL if item.block == NO_BLOCK else pool_block_data(&d.pool, item.block) + item.offset
    if item.status != 200 and data == NULL:
        task_fail(d, slot, item.status, <const uint8_t *>NO_EVENT_MEMORY, strlen(NO_EVENT_MEMORY))
    elif item.status != 200:
        task_fail(d, slot, item.status, data, item.length)
    elif not _fits(task, item.length):
        task_fail(d, slot, 500, <const uint8_t *>SPOILT_EVENT, strlen(SPOILT_EVENT))
    else:
        task.streamed += item.length
        d.stream(d.io, task.connection, task.connection_generation, data, item.length)


cdef void stream_event(Dispatcher *d, uint32_t row, const Descriptor *item, bint sound) noexcept nogil:
    # Dropped where nobody waits for it: the client has left or has been told the end; or it is not this row's to send.
    cdef uint32_t slot = task_of(&d.batcher, item.task)
    if slot != NO_INDEX and batcher_holds(&d.batcher, row, slot, item.sequence) and \
            _is_streaming(d, &d.batcher.tasks[slot]):
        if sound:
            _pass_on(d, slot, item)
        else:
            task_fail(d, slot, 500, <const uint8_t *>SPOILT_EVENT, strlen(SPOILT_EVENT))
    block_drop(d, item.block)


cdef void stream_acknowledge(Dispatcher *d, uint64_t id, uint64_t pending) noexcept nogil:
    # `pending` counts the framing too, and so says too much of the events that are still to go: until it is 0.
    cdef uint32_t slot = task_of(&d.batcher, id)
    cdef Task *task
    if slot == NO_INDEX:
        return
    task = &d.batcher.tasks[slot]
    if task.connection == NO_INDEX or task.streamed - task.acknowledged <= pending:
        return
    task.acknowledged = task.streamed - pending
    store_release_u64(&d.acknowledged[slot], task.acknowledged)     # as in stream_admit
    if task.state == TASK_HANDED:
        _notify(d, task.row, NOTIFY_STREAM)


# ---- life of a row -------------------------------------------------------------------------------

cdef const char *WORKER_DIED = b"inference internal error: the worker process died"


cdef void row_started(Dispatcher *d, uint32_t row, uint32_t incarnation, int32_t pid, int pidfd) noexcept nogil:
    cdef Link *link = &d.links[row]
    link.incarnation = incarnation
    link.lessee = pool_lessee(row, incarnation)
    link.pid = pid
    link.pidfd = pidfd
    link.given_up = False
    link.idle_batch = 0
    link.leaving = False
    link.seen_since = NEVER
    row_forget_batch(link)


cdef void row_ready(Dispatcher *d, uint32_t row, uint32_t incarnation) noexcept nogil:
    if d.links[row].incarnation == incarnation and not d.links[row].given_up:
        batcher_row_up(&d.batcher, row)
        rows_dispatch(d, d.batcher.rows[row].stage)


cdef void row_drain(Dispatcher *d, uint32_t row, uint32_t incarnation) noexcept nogil:
    if d.links[row].incarnation == incarnation:
        batcher_row_drain(&d.batcher, row)
        d.links[row].leaving = True
        row_report_idle(d, row)
        rows_dispatch(d, d.batcher.rows[row].stage)


cdef bint _runs_again(Dispatcher *d, uint32_t row, uint32_t slot) noexcept nogil:
    # A task whose row died under it goes back to the queue, if its stage is to run such a task again and its client has
    # heard nothing yet. Not after a row that core itself gave up: a task that hung had the time that there is.
    cdef const Task *task = &d.batcher.tasks[slot]
    if task.connection == NO_INDEX or d.links[row].given_up or d.pipelines[task.route].streams and task.streamed:
        return False
    return batcher_retry(&d.batcher, slot)


cdef void row_dead(Dispatcher *d, uint32_t row) noexcept nogil:
    # The process has ended (its pidfd says so, not a signal that was sent): what it completed counts, what it had
    # started is answered or runs again, what it had not goes to others. Only then its claims are cleared and its rings
    # made new.
    cdef Link *link = &d.links[row]
    cdef uint32_t failed = 0
    cdef uint32_t i, n, slot
    batcher_row_drain(&d.batcher, row)
    row_poll(d, row)
    n = batcher_row_down(&d.batcher, row, d.scratch)
    for i in range(n):
        slot = d.scratch[i]
        if _runs_again(d, row, slot):
            continue
        failed += d.batcher.tasks[slot].connection != NO_INDEX
        block_drop(d, d.batcher.tasks[slot].block)
        d.batcher.tasks[slot].block = NO_BLOCK
        _end_task_with_text(d, slot, 500, WORKER_DIED)
    pool_sweep(&d.pool, link.lessee)
    ring_reset(&link.submit)
    ring_reset(&link.complete)
    close(link.pidfd)
    link.pidfd = -1
    link.given_up = True           # until its next process: master may have called this one ready just now
    row_forget_batch(link)
    d.report(d.control, REPORT_ROW_DEAD, row, failed)
    link.pid = 0                   # another process may get that number
    rows_dispatch(d, d.batcher.rows[row].stage)


# ---- round by round ------------------------------------------------------------------------------


cdef void _wake_late(Dispatcher *d) noexcept nogil:
    # They have not started what they were handed: they run something long, or a process has written over their bells.
    cdef uint32_t row
    for row in range(d.batcher.row_count):
        if d.batcher.rows[row].late:
            _notify(d, row, NOTIFY_FORCED)


cdef void dispatch_expire(Dispatcher *d) noexcept nogil:
    cdef uint32_t stage
    _expire_tasks(d)
    _expire_rows(d)
    trimmer_run(&d.trimmer, d.now)
    if batcher_take_back(&d.batcher, d.now):
        _wake_late(d)
    for stage in range(d.batcher.stage_count):
        rows_dispatch(d, stage)


cdef uint64_t dispatch_deadline(const Dispatcher *d) noexcept nogil:
    cdef uint64_t soonest = min(batcher_deadline(&d.batcher, d.now), d.trimmer.next_at)
    if d.deadlines.count:
        soonest = min(soonest, d.deadlines.heap[0].at)
    return min(soonest, _rows_deadline(d))
