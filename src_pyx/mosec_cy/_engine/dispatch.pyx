"""Tasks and worker slots at work: batches go out to workers, answers and events come back, and each task ends once."""

from libc.string cimport memset, strlen
from posix.unistd cimport close, write

from mosec_cy._engine.batcher cimport (
    TASK_DISPATCHED,
    WITHDRAWN,
    Stage,
    Task,
    batcher_complete,
    batcher_deadline,
    batcher_enqueue,
    batcher_holds,
    batcher_next_batch,
    batcher_retry,
    batcher_slot_down,
    batcher_slot_drain,
    batcher_slot_up,
    batcher_reclaim,
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
    load_acquire_u64,
    load_relaxed_u64,
    mosec_futex_wake,
    mosec_pidfd_send_signal,
    store_relaxed_u32,
    store_relaxed_u64,
    store_release_u32,
    store_release_u64,
)
from mosec_cy._engine.list cimport NO_INDEX
from mosec_cy._engine.pool cimport (
    POOL_OK,
    POOL_PAYLOAD_OFFSET,
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
    ring_is_corrupt,
    ring_pop,
    ring_publish,
    ring_push,
    ring_release,
    ring_reset,
)
from mosec_cy._engine.segment cimport (
    PHASE_DECODE,
    PHASE_IDLE,
    PHASE_STEP,
    REPORT_SLOT_DEAD,
    REPORT_SLOT_IDLE,
    REPORT_SLOT_KILLED,
    REPORT_SLOT_OVERDUE,
    histogram_add_count,
    histogram_add_ns,
    runs_user_code,
    stream_fits,
)

# ---- tasks ---------------------------------------------------------------------------------------

# A task between its admission and its answer: its payload's block, its time-out, its client.

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
    store_relaxed_u64(&d.statistics.remaining, d.deadlines.count)  # relaxed: a gauge


cdef inline uint32_t _cost(const Dispatcher *d, uint32_t stage, uint64_t length, uint32_t told) noexcept nogil:
    # What a task costs in the stage: `length` bytes of its payload, or what the stage before has told.
    if d.cost_kinds[stage] == COST_BYTES:
        return <uint32_t>min(length, <uint64_t>0xFFFFFFFF)
    return told if d.cost_kinds[stage] == COST_PREVIOUS else 1


cdef uint64_t task_submit(Dispatcher *d, uint32_t entry, const Request *request) noexcept nogil:
    cdef TaskState *task = &d.tasks[entry]
    cdef uint64_t id = task_id(&d.batcher, entry)
    cdef uint32_t stage = d.pipelines[request.route].stages[0]
    task.route = request.route
    task.position = 0
    task.connection = request.connection
    task.connection_generation = request.generation
    task.block = request.block
    task.offset = POOL_PAYLOAD_OFFSET
    task.length = request.length
    task.flags = request.flags
    task.arrived_at = d.now
    task.deadline = request.deadline if request.deadline else d.now + d.timeout
    if d.pipelines[request.route].streams:
        task.streamed = task.acknowledged = 0
        store_release_u64(&d.acknowledged[entry], 0)     # pairs with the acquire in Sender._is_within_window
    deadlines_add(&d.deadlines, entry, task.deadline)
    _gauge(d)
    batcher_enqueue(&d.batcher, entry, stage, _cost(d, stage, request.length, 0), d.now)
    slots_dispatch(d, stage)
    return id


cdef void _stop_waiting(Dispatcher *d, uint32_t entry) noexcept nogil:
    # The task's client has been answered, or has left.
    deadlines_remove(&d.deadlines, entry)
    _gauge(d)


cdef const char *_coding_lines(uint32_t flags) noexcept nogil:
    # RFC 9110 section 12.5.5: `vary` also where this answer has no coding, or a cache would give it to every client.
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
    # The answer that a worker's descriptor describes; the descriptor has been checked.
    cdef const uint8_t *payload = NULL if item.block == NO_BLOCK else pool_block_data(&d.pool, item.block) + item.offset
    cdef Answer answer = _text_answer(d, item.status, payload, item.length)
    answer.content_type = d.content_types[item.content_type].text
    answer.content_type_n = d.content_types[item.content_type].n
    answer.block = item.block
    if item.status == 200 and item.flags & ANSWER_VARIES:
        answer.extra = _coding_lines(item.flags)
        answer.extra_n = strlen(answer.extra)
    return answer


cdef void _end_task(Dispatcher *d, uint32_t entry, const Answer *answer) noexcept nogil:
    # Sends the answer to the client, if it still waits; the answer's block is core's and is released with it. The task
    # ends.
    cdef const TaskState *task = &d.tasks[entry]
    cdef bint taken = False
    if task.connection != NO_INDEX:
        _stop_waiting(d, entry)
        if answer.status == 200:
            histogram_add_ns(&d.statistics.total, d.now - task.arrived_at)
        taken = d.answer(d.io, task.connection, task.connection_generation, answer)
    else:
        store_relaxed_u64(&d.statistics.late, d.statistics.late + 1)       # relaxed: core alone writes
    if not taken:
        block_drop(d, answer.block)
    task_free(&d.batcher, entry)


cdef void _end_task_with_text(Dispatcher *d, uint32_t entry, int status, const char *text) noexcept nogil:
    cdef Answer answer = _text_answer(d, status, <const uint8_t *>text, strlen(text))
    _end_task(d, entry, &answer)


cdef void task_leave(Dispatcher *d, uint32_t entry) noexcept nogil:
    # The task goes at once if no slot has started it, else when that slot is done with it.
    cdef const Task *task = &d.batcher.tasks[entry]
    if task.state == TASK_DISPATCHED:
        _notify(d, task.slot, NOTIFY_FORCED)
    _stop_waiting(d, entry)
    d.tasks[entry].connection = NO_INDEX
    if batcher_withdraw(&d.batcher, entry) == WITHDRAWN:
        block_drop(d, d.tasks[entry].block)
        task_free(&d.batcher, entry)
    elif d.slots[task.slot].streams:
        _notify(d, task.slot, NOTIFY_STREAM)


cdef void task_fail(Dispatcher *d, uint32_t entry, int status, const uint8_t *text, uint64_t n) noexcept nogil:
    cdef uint32_t connection = d.tasks[entry].connection
    cdef uint32_t generation = d.tasks[entry].connection_generation
    cdef Answer answer = _text_answer(d, status, text, n)
    task_leave(d, entry)                # first: no slot shall start a task whose client has been told the end
    d.answer(d.io, connection, generation, &answer)


cdef void task_time_out(Dispatcher *d, uint32_t entry, const char *text) noexcept nogil:
    task_fail(d, entry, 408, <const uint8_t *>text, strlen(text))


cdef void task_expire(Dispatcher *d, uint32_t entry) noexcept nogil:
    task_time_out(d, entry, SERVICE_TIMEOUT)


cdef void _expire_tasks(Dispatcher *d) noexcept nogil:
    while d.deadlines.count and d.deadlines.heap[0].at <= d.now:
        task_expire(d, d.deadlines.heap[0].id)


# ---- slots at work --------------------------------------------------------------------------------

# Dispatches batches to the slots and takes their answers.

cdef extern from "<signal.h>" nogil:
    int SIGALRM, SIGKILL

cdef const char *NO_MEMORY = b"inference internal error: no shared memory for the answer (--budget)"
cdef const char *CORRUPT = b"inference internal error: the worker sent an impossible answer"


cdef inline void _notify(Dispatcher *d, uint32_t slot, uint8_t kind) noexcept nogil:
    d.slots[slot].notify |= kind
    d.notify_due = True


cdef void _wake(SlotState *state, bint forced) noexcept nogil:
    cdef uint64_t one = 1
    if forced:
        bell_force(&state.shared.bell)
    elif not bell_ring(&state.shared.bell):
        return
    if state.wake_fd >= 0:
        write(state.wake_fd, &one, sizeof(one))
    else:
        mosec_futex_wake(&state.shared.bell.counter, 1)


cdef void dispatch_notify(Dispatcher *d) noexcept nogil:
    # Apart from dispatching: a slot that is woken for each task would sleep again before the next one is there.
    cdef uint32_t slot
    cdef uint8_t kind
    if not d.notify_due:
        return
    d.notify_due = False
    for slot in range(d.batcher.slot_count):
        kind = d.slots[slot].notify
        d.slots[slot].notify = 0
        if kind & (NOTIFY_WORK | NOTIFY_FORCED):
            _wake(&d.slots[slot], kind & NOTIFY_FORCED)
        if kind & NOTIFY_STREAM and bell_ring(&d.slots[slot].shared.stream_bell):
            mosec_futex_wake(&d.slots[slot].shared.stream_bell.counter, FUTEX_ALL)


cdef void _push_batch(Dispatcher *d, uint32_t slot, uint32_t n) noexcept nogil:
    # Pushes the tasks in d.scratch to the slot's ring and publishes them together.
    cdef SlotState *state = &d.slots[slot]
    cdef Descriptor item
    cdef const Task *task
    cdef const TaskState *of
    cdef uint32_t i
    memset(&item, 0, sizeof(Descriptor))
    item.batch_size = n
    for i in range(n):
        task = &d.batcher.tasks[d.scratch[i]]
        of = &d.tasks[d.scratch[i]]
        item.task = task_id(&d.batcher, d.scratch[i])
        item.sequence = task.sequence
        item.block = of.block
        item.offset = of.offset
        item.length = of.length
        item.batch = task.batch
        item.flags = of.flags
        if of.position == 0:
            item.flags |= TASK_FIRST
        if of.position + 1u == d.pipelines[of.route].stage_count:
            item.flags |= TASK_LAST
        if task.tries < d.batcher.stages[task.stage].retry:
            item.flags |= TASK_REPEATABLE
        ring_push(&state.submit, &item)
    ring_publish(&state.submit)
    _notify(d, slot, NOTIFY_WORK)


cdef uint32_t _drop_late(Dispatcher *d, uint32_t n) noexcept nogil:
    # Answers those tasks in d.scratch whose time is over, and drops them: the answer that frees a slot may be found in
    # the same round as their deadline, and before it. Returns how many tasks remain.
    cdef uint32_t kept = 0
    cdef uint32_t i
    for i in range(n):
        if d.tasks[d.scratch[i]].deadline <= d.now:
            task_expire(d, d.scratch[i])
        else:
            d.scratch[kept] = d.scratch[i]
            kept += 1
    return kept


cdef void _see_room(Dispatcher *d, uint32_t slot) noexcept nogil:
    # Never more than fits into the ring of answers, in case the slot answers all of it before core looks again.
    cdef SlotState *state = &d.slots[slot]
    cdef uint32_t room = ring_free(&state.submit)
    if room == 0 and d.batcher.slots[slot].up and ring_is_corrupt(&state.submit):
        slot_give_up(d, slot)
    # Where events are sent they may take up one half of that ring, see Sender._may_stop_waiting.
    d.batcher.slots[slot].room = min(
        room, (<uint32_t>(state.complete.mask + 1) >> <uint32_t>state.streams) - d.batcher.slots[slot].outstanding)


cdef void _count_closed(StageStatistics *statistics, const Stage *stage) noexcept nogil:
    cdef uint64_t *closed = &statistics.closed[stage.closed_by]
    store_relaxed_u64(closed, closed[0] + 1)                                       # relaxed: core alone writes,
    store_relaxed_u64(&statistics.fixed_ns, <uint64_t>stage.former.time.fixed)     # and these are
    store_relaxed_u64(&statistics.slope_ns, <uint64_t>stage.former.time.slope)     # gauges


cdef void slots_dispatch(Dispatcher *d, uint32_t stage) noexcept nogil:
    cdef Stage *st = &d.batcher.stages[stage]
    cdef uint32_t n
    cdef uint32_t slot = st.up.head
    if st.waiting == 0:
        return
    while slot != NO_INDEX:
        _see_room(d, slot)
        slot = d.batcher.slots[slot].link.next
    while True:
        n = batcher_next_batch(&d.batcher, stage, d.now, d.scratch, &slot)
        if n == 0:
            return
        n = _drop_late(d, n)
        if n == 0:
            continue
        _push_batch(d, slot, n)
        if st.max_batch_size > 1:
            _count_closed(&d.stage_statistics[stage], st)
        if d.stage_timeouts[stage] and d.slots[slot].check_at == NEVER:
            d.slots[slot].check_at = d.now + d.stage_timeouts[stage]


cdef void _settle(Dispatcher *d, uint32_t entry, const Descriptor *item) noexcept nogil:
    # A checked completion of a task that core has again: on to the next stage, or to the client.
    cdef TaskState *task = &d.tasks[entry]
    cdef const Pipeline *pipeline = &d.pipelines[task.route]
    cdef Answer answer
    cdef uint32_t stage
    if task.connection == NO_INDEX or item.status != 200 or task.position + 1u >= pipeline.stage_count:
        if item.block == NO_BLOCK and item.status != 200:
            _end_task_with_text(d, entry, item.status, NO_MEMORY)
        else:
            answer = _worker_answer(d, item)
            _end_task(d, entry, &answer)
        return
    task.position += 1
    task.block = item.block
    task.offset = item.offset
    task.length = item.length
    task.flags = task.flags & ANSWER_WISHES | item.flags & PAYLOAD_FRAMED
    stage = pipeline.stages[task.position]
    batcher_enqueue(&d.batcher, entry, stage, _cost(d, stage, item.length, item.cost), d.now)
    slots_dispatch(d, stage)


cdef bint _is_valid(Dispatcher *d, const Descriptor *item) noexcept nogil:
    # Whether a slot's answer is possible. (Of the other statuses some forbid a body, RFC 9110 section 6.4.1.)
    if item.content_type >= d.content_type_count or item.status != 200 and (item.status < 400 or item.status > 599):
        return False
    if item.block == NO_BLOCK:
        return item.length == 0
    return pool_check(&d.pool, item.block, item.offset, item.length) == POOL_OK


cdef bint _accept_block(Dispatcher *d, uint32_t slot, Descriptor *item) noexcept nogil:
    # The answer's block becomes core's. A slot that does not hold it alone may not answer with it.
    if item.block == NO_BLOCK:
        return True
    if pool_take_over(&d.pool, item.block, d.slots[slot].lessee) != POOL_OK:
        item.block = NO_BLOCK
        return False
    block_charge(d, item.block)
    return True


cdef void _answered(Dispatcher *d, uint32_t slot, const Task *task, int status) noexcept nogil:
    cdef SlotState *state = &d.slots[slot]
    state.batch_answered += 1
    state.batch_succeeded += status == 200
    state.batch_formed = max(state.batch_formed, task.dispatched_at - task.queued_at)


cdef void _batch_done(Dispatcher *d, uint32_t slot, uint64_t batch_ns) noexcept nogil:
    # Batches are counted as the slot has seen them: without tasks that were reclaimed or withdrawn before it started.
    cdef SlotState *state = &d.slots[slot]
    cdef uint32_t stage = d.batcher.slots[slot].stage
    if state.batch_succeeded:
        histogram_add_ns(&state.statistics.duration, batch_ns)
    if d.batcher.stages[stage].max_batch_size > 1:
        if d.batcher.stages[stage].joins:
            state.batch_answered += d.batcher.slots[slot].outstanding      # those that it ran beside
        histogram_add_count(&state.statistics.batch_size, state.batch_answered)
        histogram_add_ns(&state.statistics.batch_duration, state.batch_formed)
    slot_forget_batch(state)
    if d.stage_timeouts[stage] and d.batcher.slots[slot].outstanding:
        state.check_at = d.now + d.stage_timeouts[stage]


cdef void slot_forget_batch(SlotState *state) noexcept nogil:
    state.check_at = NEVER
    state.kill_at = NEVER
    state.batch_answered = state.batch_succeeded = 0
    state.batch_formed = 0


cdef void _complete(Dispatcher *d, uint32_t slot, Descriptor *item) noexcept nogil:
    cdef uint32_t entry = task_of(&d.batcher, item.task)
    cdef uint64_t batch_ns = 0
    cdef bint valid = _is_valid(d, item)
    valid = _accept_block(d, slot, item) and valid
    if item.flags & STREAM_EVENT:
        stream_event(d, slot, item, valid)
        return
    if entry == NO_INDEX or not batcher_complete(&d.batcher, slot, entry, item.sequence, d.now, &batch_ns):
        block_drop(d, item.block)
        return
    _answered(d, slot, &d.batcher.tasks[entry], item.status if valid else 500)
    if batch_ns:
        _batch_done(d, slot, batch_ns)
    block_drop(d, d.tasks[entry].block)
    d.tasks[entry].block = NO_BLOCK
    if valid:
        _settle(d, entry, item)
    else:
        block_drop(d, item.block)
        _end_task_with_text(d, entry, 500, CORRUPT)


cdef void slot_give_up(Dispatcher *d, uint32_t slot) noexcept nogil:
    # The slot gets no more work, and the tasks that it has not started go to other slots; slot_dead ends those that it
    # has started. The master's own slot has no process to kill: its routes time out, the users' routes go on.
    cdef SlotState *state = &d.slots[slot]
    if state.given_up:
        return
    state.given_up = True
    batcher_slot_drain(&d.batcher, slot)
    if state.pidfd >= 0:
        mosec_pidfd_send_signal(state.pidfd, SIGKILL)


cdef void slot_report_idle(Dispatcher *d, uint32_t slot) noexcept nogil:
    if d.batcher.slots[slot].outstanding == 0:
        d.slots[slot].leaving = False
        d.report(d.control, REPORT_SLOT_IDLE, slot, 0)


cdef void slot_poll(Dispatcher *d, uint32_t slot) noexcept nogil:
    cdef SlotState *state = &d.slots[slot]
    cdef Descriptor item
    cdef uint64_t most = state.complete.mask + 1        # one ring at most: a slot that writes without end gets no more
    cdef uint64_t n = 0
    cdef int rc = RING_OK
    while n < most and rc == RING_OK:
        rc = ring_pop(&state.complete, &item)
        if rc == RING_OK:
            _complete(d, slot, &item)
            n += 1
    if rc == RING_BROKEN:
        slot_give_up(d, slot)
    elif n:
        ring_release(&state.complete)
        if state.streams:
            _notify(d, slot, NOTIFY_STREAM)
        if state.leaving:
            slot_report_idle(d, slot)
    slots_dispatch(d, d.batcher.slots[slot].stage)


cdef bint dispatch_has_news(const Dispatcher *d) noexcept nogil:
    cdef uint32_t slot
    for slot in range(d.batcher.slot_count):
        if ring_has_news(&d.slots[slot].complete) and not d.slots[slot].given_up:
            return True
    return False


cdef void dispatch_poll(Dispatcher *d) noexcept nogil:
    cdef uint32_t slot
    for slot in range(d.batcher.slot_count):
        if ring_has_news(&d.slots[slot].complete) and not d.slots[slot].given_up:
            slot_poll(d, slot)
        if d.batcher.slots[slot].late:
            _see_room(d, slot)         # the pop of a reclaimed descriptor gives no notice, but frees the slot for work


# ---- slots that hang ------------------------------------------------------------------------------

# Finds slots that overrun their time-out or hang. Core looks when a timer is due, and when the liveness probe asks: the
# usual path costs nothing.

cdef const char *OVERRUN = b"mosec timeout error: `forward` timeout"


cdef const char *START_OVERRUN = b"mosec timeout error: `start` timeout"
cdef const char *STEP_OVERRUN = b"mosec timeout error: `step` timeout"


cdef inline const Stage *_of_stage(const Dispatcher *d, uint32_t slot) noexcept nogil:
    return &d.batcher.stages[d.batcher.slots[slot].stage]


cdef inline bint _is_told_overdue(const SlotState *state) noexcept nogil:
    # The worker has been told so of the batch and phase in which the last look found it. (Core's own words.)
    return (state.progress.seen.batch == state.shared.overdue
            and state.progress.seen.phase == state.shared.overdue_phase)


cdef void _overrun(Dispatcher *d, uint32_t slot) noexcept nogil:
    # `forward` has used up the stage's time: its clients are answered, the worker is told and gets a grace period. A
    # step works for all tasks that the slot has taken; batches are numbered in the order in which they are taken.
    cdef SlotState *state = &d.slots[slot]
    cdef bint step = state.progress.seen.phase == PHASE_STEP
    cdef const char *text = STEP_OVERRUN if step else START_OVERRUN if _of_stage(d, slot).joins else OVERRUN
    cdef uint32_t batch = state.progress.seen.batch
    cdef uint32_t entry = d.batcher.slots[slot].dispatched.head
    cdef uint32_t next
    cdef int32_t later
    while entry != NO_INDEX:
        next = d.batcher.tasks[entry].link.next
        later = <int32_t>(d.batcher.tasks[entry].batch - batch)
        if (later == 0 or step and later < 0) and d.tasks[entry].connection != NO_INDEX:
            task_time_out(d, entry, text)
        entry = next
    store_relaxed_u32(&state.shared.overdue_phase, state.progress.seen.phase)    # relaxed; the next store releases it
    store_release_u32(&state.shared.overdue, batch)           # pairs with the acquire in Channel.overdue
    if state.pidfd >= 0:
        mosec_pidfd_send_signal(state.pidfd, SIGALRM)
    state.kill_at = d.now + d.kill_grace
    _notify(d, slot, NOTIFY_STREAM)     # it may wait for a client to read
    d.report(d.control, REPORT_SLOT_OVERDUE, slot, batch)


cdef bint _has_lost_tasks(Dispatcher *d, uint32_t slot) noexcept nogil:
    # The slot idles and its rings are empty, but it has not answered all: a process has overwritten a task's word, so
    # that no slot could start the task. True only at the second look, as a slot between taking and working looks alike.
    cdef SlotState *state = &d.slots[slot]
    cdef uint32_t before = state.idle_batch
    state.idle_batch = 0
    if state.progress.seen.phase != PHASE_IDLE or d.batcher.slots[slot].outstanding == 0:
        return False
    if ring_free(&state.submit) <= state.submit.mask or ring_has_news(&state.complete):
        return False
    state.idle_batch = max(state.progress.seen.batch, <uint32_t>1)
    return state.idle_batch == before


cdef void progress_look(ProgressWatch *watch, const Progress *progress, uint64_t since, uint64_t now) noexcept nogil:
    cdef const Progress *seen = &watch.seen
    if since == NEVER:
        watch.since = NEVER
    elif watch.since == NEVER or progress.batch != seen.batch or progress.phase != seen.phase or \
            progress.began != seen.began or progress.taken != seen.taken or progress.answered != seen.answered:
        watch.since = min(since, now)
    watch.seen = progress[0]


cdef bint progress_lacks(const ProgressWatch *watch, uint64_t limit, uint64_t now) noexcept nogil:
    return watch.since <= now and now - watch.since >= limit


cdef inline bint _has_work(const Dispatcher *d, uint32_t slot) noexcept nogil:
    # Where clients have left, a live slot still pops their tasks.
    return d.batcher.slots[slot].outstanding != 0 or ring_free(&d.slots[slot].submit) <= d.slots[slot].submit.mask


cdef void slot_look(Dispatcher *d, uint32_t slot) noexcept nogil:
    cdef SlotState *state = &d.slots[slot]
    cdef Progress progress
    cdef uint64_t since = NEVER
    # In this order: a phase and its start that are read after the batch are of that batch or a later one, so that no
    # batch is blamed for the one before it.
    progress.batch = load_acquire_u32(&state.shared.batch)           # pairs with the release in Channel._started
    progress.phase = load_acquire_u32(&state.shared.phase)           # pairs with the release in Channel.begin_forward
    progress.began = load_relaxed_u64(&state.shared.since)           # relaxed: the acquire of `phase` is before it
    progress.taken = load_acquire_u64(&state.submit.memory.tail)     # pairs with the release in ring_release
    progress.answered = state.complete.own
    if _has_work(d, slot):
        # A batch may have waited long for a slot that was busy with another core's, or stopped. Its start is the slot's
        # own word: at worst it harms itself.
        since = progress.began if progress.phase == PHASE_DECODE else d.now
    progress_look(&state.progress, &progress, since, d.now)


cdef inline uint64_t _time_limit(const Dispatcher *d, uint32_t stage) noexcept nogil:
    # After that long in one phase no client waits for the result any more. (`forward` has a time-out of its own.)
    return max(d.timeout, d.stage_timeouts[stage])


cdef bint _hangs(const Dispatcher *d, uint32_t slot) noexcept nogil:
    return progress_lacks(&d.slots[slot].progress, _time_limit(d, d.batcher.slots[slot].stage), d.now)


cdef bint stage_stalled(Dispatcher *d, uint32_t stage, uint64_t margin) noexcept nogil:
    cdef uint64_t limit = _time_limit(d, stage) + d.kill_grace + margin
    cdef uint32_t slot
    cdef bint some_hang = False
    cdef bint all_hang = True
    for slot in range(d.batcher.slot_count):
        if d.batcher.slots[slot].stage != stage:
            continue
        slot_look(d, slot)
        if progress_lacks(&d.slots[slot].progress, limit, d.now):
            some_hang = True
        elif d.batcher.slots[slot].up or d.slots[slot].progress.since != NEVER:
            all_hang = False
    return some_hang and all_hang


cdef void _watch(Dispatcher *d, uint32_t slot) noexcept nogil:
    # Outside of `forward`: the slot decodes, encodes, or has not come to what is in its ring.
    cdef SlotState *state = &d.slots[slot]
    if _hangs(d, slot):
        state.kill_at = min(state.kill_at, d.now + d.kill_grace)     # grace period, in case core itself stood still
    else:
        state.check_at = min(state.check_at, state.progress.since + _time_limit(d, d.batcher.slots[slot].stage))


cdef uint64_t _next_check(const Dispatcher *d, uint32_t slot) noexcept nogil:
    cdef uint32_t stage = d.batcher.slots[slot].stage
    if d.batcher.slots[slot].outstanding:
        return d.now + d.stage_timeouts[stage]
    return d.now + _time_limit(d, stage) if _has_work(d, slot) else NEVER


cdef void _check(Dispatcher *d, uint32_t slot) noexcept nogil:
    cdef SlotState *state = &d.slots[slot]
    cdef const Progress *seen = &state.progress.seen
    cdef uint64_t timeout = d.stage_timeouts[d.batcher.slots[slot].stage]
    cdef uint64_t since
    slot_look(d, slot)
    since = seen.began
    if state.kill_at <= d.now:
        state.kill_at = NEVER
        if _is_told_overdue(state) if runs_user_code(seen.phase) else _hangs(d, slot):
            slot_give_up(d, slot)
            d.report(d.control, REPORT_SLOT_KILLED, slot, seen.batch)
        state.check_at = min(state.check_at, _next_check(d, slot))
    if state.given_up:
        state.check_at = NEVER
    elif state.check_at <= d.now:
        state.check_at = _next_check(d, slot)
        if _has_lost_tasks(d, slot):
            slot_give_up(d, slot)
        elif runs_user_code(seen.phase):
            if since + timeout <= d.now:
                state.check_at = NEVER
                if not _is_told_overdue(state):
                    _overrun(d, slot)
            elif since + timeout < state.check_at:
                state.check_at = since + timeout
        elif state.check_at != NEVER:
            _watch(d, slot)


cdef void _expire_slots(Dispatcher *d) noexcept nogil:
    cdef uint32_t slot
    for slot in range(d.batcher.slot_count):
        if d.slots[slot].check_at <= d.now or d.slots[slot].kill_at <= d.now:
            _check(d, slot)


cdef uint64_t _slots_deadline(const Dispatcher *d) noexcept nogil:
    cdef uint64_t soonest = NEVER
    cdef uint32_t slot
    for slot in range(d.batcher.slot_count):
        soonest = min(soonest, min(d.slots[slot].check_at, d.slots[slot].kill_at))
    return soonest


# ---- streams of events ---------------------------------------------------------------------------

# Events on their way from the slots' rings to the clients.
#
# A slot may have a limited number of bytes under way on each stream, see stream_fits. Core tells it how many have gone
# out by a word in shared memory that core writes and never reads: core's own count decides.

cdef const char *NO_EVENT_MEMORY = b"inference internal error: no shared memory for an event (--budget)"
cdef const char *CORRUPT_EVENT = b"inference internal error: the worker sent an impossible event"


cdef inline bint _is_streaming(const Dispatcher *d, const TaskState *task) noexcept nogil:
    cdef const Pipeline *pipeline = &d.pipelines[task.route]
    return pipeline.streams and task.position + 1u == pipeline.stage_count and task.connection != NO_INDEX


cdef void _pass_on(Dispatcher *d, uint32_t entry, const Descriptor *item) noexcept nogil:
    cdef TaskState *task = &d.tasks[entry]
    cdef const uint8_t *data = NULL if item.block == NO_BLOCK else pool_block_data(&d.pool, item.block) + item.offset
    if item.status != 200 and data == NULL:
        task_fail(d, entry, item.status, <const uint8_t *>NO_EVENT_MEMORY, strlen(NO_EVENT_MEMORY))
    elif item.status != 200:
        task_fail(d, entry, item.status, data, item.length)
    elif not stream_fits(task.streamed - task.acknowledged, item.length):
        # Slots keep to it by themselves: what a slot knows of acknowledged bytes is not newer than what core knows.
        task_fail(d, entry, 500, <const uint8_t *>CORRUPT_EVENT, strlen(CORRUPT_EVENT))
    else:
        task.streamed += item.length
        d.stream(d.io, task.connection, task.connection_generation, data, item.length)


cdef void stream_event(Dispatcher *d, uint32_t slot, const Descriptor *item, bint valid) noexcept nogil:
    # Dropped where no client waits for it (it has left, or was told the end), or where this slot may not send it.
    cdef uint32_t entry = task_of(&d.batcher, item.task)
    if entry != NO_INDEX and batcher_holds(&d.batcher, slot, entry, item.sequence) and \
            _is_streaming(d, &d.tasks[entry]):
        if valid:
            _pass_on(d, entry, item)
        else:
            task_fail(d, entry, 500, <const uint8_t *>CORRUPT_EVENT, strlen(CORRUPT_EVENT))
    block_drop(d, item.block)


cdef void stream_acknowledge(Dispatcher *d, uint64_t id, uint64_t pending) noexcept nogil:
    # `pending` includes the framing, and so overstates the bytes of events that are still to be sent, until it is 0.
    cdef uint32_t entry = task_of(&d.batcher, id)
    cdef TaskState *task
    if entry == NO_INDEX:
        return
    task = &d.tasks[entry]
    if task.connection == NO_INDEX or task.streamed - task.acknowledged <= pending:
        return
    task.acknowledged = task.streamed - pending
    store_release_u64(&d.acknowledged[entry], task.acknowledged)     # as in task_submit
    if d.batcher.tasks[entry].state == TASK_DISPATCHED:
        _notify(d, d.batcher.tasks[entry].slot, NOTIFY_STREAM)


# ---- life of a slot -------------------------------------------------------------------------------

cdef const char *WORKER_DIED = b"inference internal error: the worker process died"


cdef void slot_started(Dispatcher *d, uint32_t slot, uint32_t incarnation, int32_t pid, int pidfd) noexcept nogil:
    cdef SlotState *state = &d.slots[slot]
    state.incarnation = incarnation
    state.lessee = pool_lessee(slot, incarnation)
    state.pid = pid
    state.pidfd = pidfd
    state.given_up = False
    state.idle_batch = 0
    state.leaving = False
    state.progress.since = NEVER
    slot_forget_batch(state)


cdef void slot_ready(Dispatcher *d, uint32_t slot, uint32_t incarnation) noexcept nogil:
    if d.slots[slot].incarnation == incarnation and not d.slots[slot].given_up:
        batcher_slot_up(&d.batcher, slot)
        slots_dispatch(d, d.batcher.slots[slot].stage)


cdef void slot_drain(Dispatcher *d, uint32_t slot, uint32_t incarnation) noexcept nogil:
    if d.slots[slot].incarnation == incarnation:
        batcher_slot_drain(&d.batcher, slot)
        d.slots[slot].leaving = True
        slot_report_idle(d, slot)
        slots_dispatch(d, d.batcher.slots[slot].stage)


cdef bint _runs_again(Dispatcher *d, uint32_t slot, uint32_t entry) noexcept nogil:
    # A task whose slot died while running it goes back to the queue, if its stage may run it again and its client has
    # received nothing yet. Not after a slot that core itself gave up: a task that hung has used up its time.
    cdef const TaskState *task = &d.tasks[entry]
    if task.connection == NO_INDEX or d.slots[slot].given_up or d.pipelines[task.route].streams and task.streamed:
        return False
    return batcher_retry(&d.batcher, entry)


cdef void slot_dead(Dispatcher *d, uint32_t slot) noexcept nogil:
    # The process has ended (reported by its pidfd, not inferred from a signal that was sent). What it completed counts;
    # tasks that it had started are answered or run again; the others go to other slots. Only then its claims are
    # cleared and its rings reset.
    cdef SlotState *state = &d.slots[slot]
    cdef uint32_t failed = 0
    cdef uint32_t i, n, entry
    batcher_slot_drain(&d.batcher, slot)
    slot_poll(d, slot)
    n = batcher_slot_down(&d.batcher, slot, d.scratch)
    for i in range(n):
        entry = d.scratch[i]
        if _runs_again(d, slot, entry):
            continue
        failed += d.tasks[entry].connection != NO_INDEX
        block_drop(d, d.tasks[entry].block)
        d.tasks[entry].block = NO_BLOCK
        _end_task_with_text(d, entry, 500, WORKER_DIED)
    pool_sweep(&d.pool, state.lessee)
    ring_reset(&state.submit)
    ring_reset(&state.complete)
    close(state.pidfd)
    state.pidfd = -1
    state.given_up = True           # until the next process starts: master may just have reported this one ready
    slot_forget_batch(state)
    d.report(d.control, REPORT_SLOT_DEAD, slot, failed)
    state.pid = 0                   # another process may get that number
    slots_dispatch(d, d.batcher.slots[slot].stage)


# ---- round by round ------------------------------------------------------------------------------


cdef void _wake_late(Dispatcher *d) noexcept nogil:
    # Late slots have not started what was dispatched to them: they run something long, or their bells were overwritten.
    cdef uint32_t slot
    for slot in range(d.batcher.slot_count):
        if d.batcher.slots[slot].late:
            _notify(d, slot, NOTIFY_FORCED)


cdef void dispatch_expire(Dispatcher *d) noexcept nogil:
    cdef uint32_t stage
    _expire_tasks(d)
    _expire_slots(d)
    trimmer_run(&d.trimmer, d.now)
    if batcher_reclaim(&d.batcher, d.now):
        _wake_late(d)
    for stage in range(d.batcher.stage_count):
        slots_dispatch(d, stage)


cdef uint64_t dispatch_deadline(const Dispatcher *d) noexcept nogil:
    cdef uint64_t soonest = min(batcher_deadline(&d.batcher, d.now), d.trimmer.next_at)
    if d.deadlines.count:
        soonest = min(soonest, d.deadlines.heap[0].at)
    return min(soonest, _slots_deadline(d))
