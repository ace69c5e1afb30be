"""The scheduler's pure part: queues, deadlines, batches, hand-ahead and take-back.

A task is in one place at a time: the free list, nowhere (NEW: the caller has it), its stage's queue, or the list of the
row that it was handed to. Queues are sorted by `turn`. `_scheduler.Scheduler` is the same structs as a Python object.
"""


from mosec_cy._engine.linux cimport NEVER
from mosec_cy._engine.list cimport list_insert, list_remove
from mosec_cy._engine.ring cimport word_cancel, word_hand, word_take_back

# ---- how long batches take -----------------------------------------------------------------------

# How long a row's batches take: a moving average, robust against bursts and pauses.

cdef enum:
    MEMORY = 7    # weight of the past in the average: one batch counts 1 / (1 + MEMORY)


cdef inline uint64_t since(uint64_t now, uint64_t then) noexcept nogil:
    return now - then if now > then else 0


cdef uint64_t pace_measure(Row *row, uint64_t handed_at, uint64_t now) noexcept nogil:
    """The row has completed a batch: returns its duration (at least 1 ns) and moves the average.

    Batches that complete at one `now` are one observation (their sum over their number): taken one by one, the average
    would depend on how far into the burst it is read. An observation at most doubles the average, so that a pause
    of the row does not end hand-ahead; a thousand times slower regime is still followed within ten. The first one does
    not count beside a shorter second one.
    """
    cdef uint64_t duration = since(now, max(handed_at, row.busy_since))
    if duration > 0 or row.burst == 0:
        row.base_ns = 0 if row.observations == 1 and duration < row.batch_ns else row.batch_ns
        row.observations += row.observations < PACE_KNOWN
        row.burst_ns = duration
        row.burst = 1
    else:
        row.burst += 1
    row.busy_since = now
    if row.base_ns == 0:
        row.batch_ns = row.burst_ns // row.burst
    else:
        row.batch_ns = min((MEMORY * row.base_ns + row.burst_ns) // (MEMORY + row.burst), 2 * row.base_ns)
    row.batch_ns = max(row.batch_ns, <uint64_t>1)
    return max(duration, <uint64_t>1)


cdef void pace_forget(Row *row) noexcept nogil:
    row.batch_ns = 0
    row.base_ns = 0
    row.burst = 0
    row.observations = 0


cdef inline void put_up(Batcher *b, uint32_t row) noexcept nogil:
    list_insert(&b.stages[b.rows[row].stage].up, &b.rows[0].link, sizeof(Row), row, NO_INDEX)


cdef inline void take_up(Batcher *b, uint32_t row) noexcept nogil:
    list_remove(&b.stages[b.rows[row].stage].up, &b.rows[0].link, sizeof(Row), row)


cdef void batcher_init(Batcher *b, Task *tasks, uint64_t *words, uint32_t slots, Stage *stages, uint32_t stage_count,
                       Row *rows, uint32_t row_count) noexcept nogil:
    cdef uint32_t i
    b[0] = Batcher(tasks=tasks, words=words, slots=slots, free_head=NO_INDEX, fresh=0, used=0, turns=0,
                   stages=stages, stage_count=stage_count, rows=rows, row_count=row_count)
    for i in range(stage_count):
        stages[i].queue = stages[i].up = List(head=NO_INDEX, tail=NO_INDEX)
    for i in range(row_count):
        rows[i].handed = List(head=NO_INDEX, tail=NO_INDEX)
        rows[i].take_back_at = NEVER


cdef uint32_t task_new(Batcher *b) noexcept nogil:
    cdef uint32_t slot = b.free_head
    if slot != NO_INDEX:
        b.free_head = b.tasks[slot].link.next
    elif b.fresh < b.slots:
        # Slots are first touched when they are needed: a large table costs an idle process no memory.
        slot = b.fresh
        b.fresh += 1
        b.tasks[slot].generation = 1
    else:
        return NO_INDEX
    b.used += 1
    b.tasks[slot].state = TASK_NEW
    return slot


cdef void task_free(Batcher *b, uint32_t slot) noexcept nogil:
    cdef Task *task = &b.tasks[slot]
    task.state = TASK_FREE
    task.generation += 1
    task.generation += task.generation == 0  # never 0
    task.link.next = b.free_head
    b.free_head = slot
    b.used -= 1


cdef uint64_t task_id(const Batcher *b, uint32_t slot) noexcept nogil:
    return slot | <uint64_t>b.tasks[slot].generation << 32


cdef uint32_t task_of(const Batcher *b, uint64_t id) noexcept nogil:
    cdef uint32_t slot = <uint32_t>id
    # The generation of a free slot is the one that its next task will have: an id can be guessed, so ask the state too.
    if slot >= b.slots or b.tasks[slot].generation != id >> 32 or b.tasks[slot].state == TASK_FREE:
        return <uint32_t>NO_INDEX
    return slot


cdef void batcher_enqueue(Batcher *b, uint32_t slot, uint32_t stage, uint64_t now) noexcept nogil:
    cdef Task *task = &b.tasks[slot]
    cdef Stage *at = &b.stages[stage]
    task.state = TASK_QUEUED
    task.stage = stage
    task.tries = 0
    task.queued_at = now
    task.turn = b.turns
    b.turns += 1
    list_insert(&at.queue, &b.tasks[0].link, sizeof(Task), slot, NO_INDEX)
    at.waiting += 1


cdef uint32_t requeue(Batcher *b, uint32_t slot, uint32_t near) noexcept nogil:
    """Put a task back where its turn is, searching from `near` (a queued task or NO_INDEX, the end); returns the task
    behind it: tasks that come back together mostly belong there, in order."""
    cdef Task *task = &b.tasks[slot]
    cdef Stage *stage = &b.stages[task.stage]
    cdef uint32_t before
    while near != NO_INDEX and b.tasks[near].turn < task.turn:
        near = b.tasks[near].link.next
    while True:
        before = b.tasks[near].link.previous if near != NO_INDEX else stage.queue.tail
        if before == NO_INDEX or b.tasks[before].turn < task.turn:
            break
        near = before
    task.state = TASK_QUEUED
    list_insert(&stage.queue, &b.tasks[0].link, sizeof(Task), slot, near)
    stage.waiting += 1
    stage.lone += task.tries > 0
    return near


cdef bint batcher_retry(Batcher *b, uint32_t slot) noexcept nogil:
    cdef Stage *stage = &b.stages[b.tasks[slot].stage]
    if b.tasks[slot].tries > stage.retry:
        return False
    requeue(b, slot, stage.queue.head)
    return True


cdef inline void leave_queue(Batcher *b, uint32_t slot) noexcept nogil:
    cdef Stage *stage = &b.stages[b.tasks[slot].stage]
    list_remove(&stage.queue, &b.tasks[0].link, sizeof(Task), slot)
    stage.waiting -= 1
    stage.lone -= b.tasks[slot].tries > 0


cdef bint leave_row(Batcher *b, uint32_t slot) noexcept nogil:
    """Take a task from its row's list; true when it was the last of its batch."""
    cdef Task *task = &b.tasks[slot]
    cdef Row *row = &b.rows[task.row]
    cdef ListLink link = task.link
    cdef bint last = ((link.previous == NO_INDEX or b.tasks[link.previous].batch != task.batch)
                      and (link.next == NO_INDEX or b.tasks[link.next].batch != task.batch))
    list_remove(&row.handed, &b.tasks[0].link, sizeof(Task), slot)
    task.state = TASK_NEW
    row.outstanding -= 1
    b.stages[row.stage].running -= 1
    if last:
        row.batches -= 1
    if row.outstanding == 0:
        row.take_back_at = NEVER
    return last


cdef inline bint reclaim(Batcher *b, uint32_t slot) noexcept nogil:
    """Make a handed task unstartable; false when its row has started it."""
    if not word_take_back(&b.words[slot], b.tasks[slot].sequence):
        return False
    b.tasks[slot].sequence += 1
    return True


cdef uint32_t return_unstarted(Batcher *b, uint32_t index, uint64_t now, uint64_t age) noexcept nogil:
    """Requeue what was handed to the row at least `age` ago and is not started."""
    cdef Row *row = &b.rows[index]
    cdef uint32_t near = b.stages[row.stage].queue.head
    cdef uint32_t slot = row.handed.head
    cdef uint32_t following, count = 0
    row.take_back_at = NEVER
    while slot != NO_INDEX:
        following = b.tasks[slot].link.next
        if now < b.tasks[slot].handed_at + age:
            row.take_back_at = b.tasks[slot].handed_at + TAKE_BACK_NS
            break
        if reclaim(b, slot):
            leave_row(b, slot)
            near = requeue(b, slot, near)
            count += 1
        slot = following
    return count


cdef void batcher_row_up(Batcher *b, uint32_t row) noexcept nogil:
    if not b.rows[row].up:
        put_up(b, row)
        b.stages[b.rows[row].stage].rows += 1
    b.rows[row].up = True
    b.rows[row].late = False
    b.rows[row].room = b.rows[row].ring_capacity
    pace_forget(&b.rows[row])


cdef void batcher_row_drain(Batcher *b, uint32_t row) noexcept nogil:
    if b.rows[row].up:
        take_up(b, row)
        b.stages[b.rows[row].stage].rows -= 1
    b.rows[row].up = False
    return_unstarted(b, row, NEVER, 0)


cdef uint32_t batcher_row_down(Batcher *b, uint32_t row, uint32_t *started) noexcept nogil:
    cdef uint32_t slot, count = 0
    batcher_row_drain(b, row)
    while b.rows[row].handed.head != NO_INDEX:
        slot = b.rows[row].handed.head
        leave_row(b, slot)
        b.tasks[slot].tries += b.tasks[slot].tries < 255
        started[count] = slot
        count += 1
    return count


cdef inline bint takes_ahead(const Row *row, uint64_t now) noexcept nogil:
    """May a busy row be handed one more batch?"""
    if row.batch_ns == 0 or row.batch_ns > HAND_AHEAD_MAX_BATCH_NS:
        return False
    # The batch that runs may be the first slow one: what was taken back on its account must not be handed back.
    if now > row.busy_since + HAND_AHEAD_MAX_BATCH_NS:
        return False
    # One batch may always wait: else the row would stand still for a round trip after each.
    return row.batches <= 1 or row.batches * row.batch_ns <= HAND_AHEAD_NS


cdef inline bint is_open(const Row *row, uint32_t size, uint64_t now) noexcept nogil:
    """Can a batch of `size` be handed to it, with good hope that it starts soon?"""
    if row.room < size or (row.late and row.room < row.ring_capacity):
        return False
    return row.outstanding == 0 or takes_ahead(row, now)


cdef uint32_t choose_row(const Batcher *b, const Stage *stage, uint32_t size, uint64_t now) noexcept nogil:
    cdef uint32_t i = stage.up.head
    cdef uint32_t best = NO_INDEX, last_resort = NO_INDEX
    cdef const Row *row
    while i != NO_INDEX:
        row = &b.rows[i]
        if is_open(row, size, now):
            if row.outstanding == 0:
                return i
            if best == NO_INDEX or row.batches < b.rows[best].batches:
                best = i
        elif last_resort == NO_INDEX and row.outstanding == 0 and row.room >= size:
            last_resort = i
        i = row.link.next
    return best if best != NO_INDEX else last_resort


cdef uint32_t ordinary_run(const Batcher *b, const Stage *stage, uint32_t most) noexcept nogil:
    """Tasks at the head of the queue, up to `most`, before the first that goes out alone."""
    cdef uint32_t slot = stage.queue.head
    cdef uint32_t count = 0
    while count < most and slot != NO_INDEX and b.tasks[slot].tries == 0:
        slot = b.tasks[slot].link.next
        count += 1
    return count


cdef inline uint32_t head_batch(const Batcher *b, const Stage *stage, uint64_t *closing) noexcept nogil:
    """Size of the batch at the head of the queue (not empty), and when it closes; 0: it cannot grow."""
    cdef uint64_t queued_at = b.tasks[stage.queue.head].queued_at
    cdef uint32_t size = min(stage.waiting, stage.max_batch_size)
    closing[0] = 0
    if stage.lone and ordinary_run(b, stage, size) < size:
        return max(ordinary_run(b, stage, size), <uint32_t>1)
    if size < stage.max_batch_size:
        closing[0] = queued_at + min(stage.max_wait_ns, <uint64_t>NEVER - queued_at)
    return size


cdef void hand_out(Batcher *b, Stage *stage, uint32_t index, uint64_t now) noexcept nogil:
    """The task at the head of the queue goes to the row, into its latest batch."""
    cdef Row *row = &b.rows[index]
    cdef uint32_t slot = stage.queue.head
    cdef Task *task = &b.tasks[slot]
    leave_queue(b, slot)
    list_insert(&row.handed, &b.tasks[0].link, sizeof(Task), slot, NO_INDEX)
    task.state = TASK_HANDED
    task.row = index
    task.batch = row.batch
    task.handed_at = now
    task.sequence += 1
    word_hand(&b.words[slot], task.sequence)


cdef uint32_t batcher_next_batch(Batcher *b, uint32_t stage, uint64_t now, uint32_t *out, uint32_t *row) noexcept nogil:
    cdef Stage *of = &b.stages[stage]
    cdef Row *to
    cdef uint32_t i, index, size
    cdef uint64_t closing
    if of.waiting == 0:
        return 0
    size = head_batch(b, of, &closing)
    if closing > now:
        return 0
    index = choose_row(b, of, size, now)
    if index == NO_INDEX:
        return 0
    to = &b.rows[index]
    if to.outstanding == 0:
        to.busy_since = now
    to.take_back_at = min(to.take_back_at, now + TAKE_BACK_NS)
    if index != of.up.tail:
        take_up(b, index)
        put_up(b, index)
    to.batch += 1
    to.batches += 1
    to.outstanding += size
    to.room -= size
    of.running += size
    for i in range(size):
        out[i] = of.queue.head
        hand_out(b, of, index, now)
    row[0] = index
    return size


cdef bint batcher_holds(const Batcher *b, uint32_t row, uint32_t slot, uint32_t sequence) noexcept nogil:
    if slot >= b.slots:
        return False
    return b.tasks[slot].state == TASK_HANDED and b.tasks[slot].row == row and b.tasks[slot].sequence == sequence


cdef bint batcher_complete(Batcher *b, uint32_t row, uint32_t slot, uint32_t sequence, uint64_t now,
                           uint64_t *batch_ns) noexcept nogil:
    batch_ns[0] = 0
    if not batcher_holds(b, row, slot, sequence):
        return False
    b.rows[row].late = False
    if leave_row(b, slot):
        batch_ns[0] = pace_measure(&b.rows[row], b.tasks[slot].handed_at, now)
    return True


cdef int batcher_withdraw(Batcher *b, uint32_t slot) noexcept nogil:
    cdef Task *task = &b.tasks[slot]
    if task.state == TASK_QUEUED:
        leave_queue(b, slot)
        task.state = TASK_NEW
    elif task.state == TASK_HANDED:
        if not reclaim(b, slot):
            word_cancel(&b.words[slot])
            return RUNNING
        leave_row(b, slot)
    return WITHDRAWN


cdef bint may_move(const Batcher *b, const Stage *stage, uint32_t from_row, uint64_t now) noexcept nogil:
    """Can another row of the stage take work at once?"""
    cdef uint32_t i = stage.up.head
    while i != NO_INDEX:
        if i != from_row and is_open(&b.rows[i], 1, now):
            return True
        i = b.rows[i].link.next
    return False


cdef uint32_t batcher_take_back(Batcher *b, uint64_t now) noexcept nogil:
    cdef uint32_t s, i, count, total = 0
    cdef Stage *stage
    cdef Row *row
    for s in range(b.stage_count):
        stage = &b.stages[s]
        if stage.rows < 2 or stage.running == 0:
            continue
        i = stage.up.head
        while i != NO_INDEX:
            row = &b.rows[i]
            if row.take_back_at <= now and may_move(b, stage, i, now):
                count = return_unstarted(b, i, now, TAKE_BACK_NS)
                if count > 0:
                    row.late = True
                    # Until the caller has looked at the ring anew, it does not count as seen empty.
                    row.room = min(row.room, row.ring_capacity - 1)
                total += count
            i = row.link.next
    return total


cdef bint popping_matters(const Batcher *b, const Stage *stage) noexcept nogil:
    """Is a row idle that gets work, or other rows' work, only once it has popped what is stale in its ring?"""
    cdef uint32_t i = stage.up.head
    while i != NO_INDEX:
        if b.rows[i].outstanding == 0 and b.rows[i].room < b.rows[i].ring_capacity:
            return True
        i = b.rows[i].link.next
    return False


cdef uint64_t queue_deadline(const Batcher *b, const Stage *stage, uint64_t now) noexcept nogil:
    """When to ask for a batch of the queue (not empty)."""
    cdef uint64_t closing
    cdef uint32_t size = head_batch(b, stage, &closing)
    if choose_row(b, stage, size, now) != NO_INDEX:
        return max(closing, now)
    # Nobody tells when a row pops stale descriptors: look again after a while.
    return max(closing, now + TAKE_BACK_NS) if popping_matters(b, stage) else NEVER


cdef uint64_t take_back_deadline(const Batcher *b, const Stage *stage, uint64_t now) noexcept nogil:
    """When to look for tasks that their rows have not started."""
    cdef uint64_t nearest = NEVER
    cdef uint64_t stuck = NEVER        # of tasks that no other row can take now
    cdef uint32_t i = stage.up.head
    while i != NO_INDEX:
        if b.rows[i].take_back_at < min(nearest, stuck):
            if may_move(b, stage, i, now):
                nearest = b.rows[i].take_back_at
            else:
                stuck = b.rows[i].take_back_at
        i = b.rows[i].link.next
    if stuck < nearest and popping_matters(b, stage):
        nearest = min(nearest, max(stuck, now + TAKE_BACK_NS))
    return nearest


cdef uint64_t batcher_deadline(const Batcher *b, uint64_t now) noexcept nogil:
    cdef uint64_t nearest = NEVER
    cdef uint32_t s
    cdef const Stage *stage
    for s in range(b.stage_count):
        stage = &b.stages[s]
        if stage.waiting > 0:
            nearest = min(nearest, queue_deadline(b, stage, now))
        if stage.rows > 1 and stage.running > 0:
            nearest = min(nearest, take_back_deadline(b, stage, now))
    return nearest


# ---- forecast ------------------------------------------------------------------------------------

# How long a stage will need for a task that comes now.
#
# While a queue is long, batches are full. So the rows that are up take max_batch_size tasks each, again and again,
# each in the time that its batches have taken lately (the moving average of the batcher). The one that it has at work
# may only have begun; if that has lasted longer than others did, it may last as long again: a row that stands still
# is noticed before it answers, but is not taken to be as slow for ever. The first batch of a process says nothing:
# who refused others by it would hardly ever see the second.

cdef enum:
    LONGEST = 0x20_0000_0000_0000          # ns, 104 days; sums of as many as there are stages do not overflow


cdef inline double _free_in(const Row *row, uint64_t now) noexcept nogil:
    if row.outstanding and row.busy_since + row.batch_ns < now:
        return <double>(now - row.busy_since)
    return <double>row.batch_ns


cdef double _done_in(const Batcher *b, const Stage *of, uint64_t now, double within) noexcept nogil:
    # ns until the queue and a batch more are done, by those rows that are free `within` so many ns: where t is that
    # time, the batches that each row does of them, (t - free_in) / batch_ns, add up.
    cdef double batches = of.waiting // of.max_batch_size + 1
    cdef double pace = 0                   # batches a ns, of the rows that have been measured
    cdef double begun = 0                  # batches that they do meanwhile of what they have
    cdef double free_in
    cdef uint32_t i = of.up.head
    cdef uint32_t known = 0
    cdef uint32_t others = 0               # new processes, which will be like these
    cdef const Row *row
    while i != NO_INDEX:
        row = &b.rows[i]
        i = row.link.next
        if row.observations < PACE_KNOWN:
            others += 1
            continue
        free_in = _free_in(row, now)
        if free_in <= within:
            pace += 1.0 / <double>row.batch_ns
            begun += free_in / <double>row.batch_ns
            known += 1
    if known == 0:
        return 0
    return (batches * known / (known + others) + begun) / pace


cdef uint64_t stage_forecast(const Batcher *b, uint32_t stage, uint64_t now) noexcept nogil:
    cdef const Stage *of = &b.stages[stage]
    cdef double done_in = 2.0 ** 64
    cdef double sooner
    if of.waiting <= of.rows * of.max_batch_size:
        return 0
    sooner = _done_in(b, of, now, done_in)
    while sooner < done_in:                # without those that have no part in it; one less each time, or it is the end
        done_in = sooner
        sooner = _done_in(b, of, now, done_in)
    return <uint64_t>min(done_in + 0.5, <double>LONGEST)


# ---- deadlines -----------------------------------------------------------------------------------

# Deadlines in any order: an indexed binary heap (Williams 1964), from which any entry can be removed.

cdef inline void _put(Deadlines *d, uint32_t place, Deadline entry) noexcept nogil:
    d.heap[place] = entry
    d.places[entry.id] = place


cdef uint32_t _rise(Deadlines *d, uint32_t place, uint64_t at) noexcept nogil:
    # Where an entry for `at` belongs on the way from the hole `place` to the top; later ones move down.
    cdef uint32_t above
    while place > 0:
        above = (place - 1) // 2
        if d.heap[above].at <= at:
            break
        _put(d, place, d.heap[above])
        place = above
    return place


cdef uint32_t _sink(Deadlines *d, uint32_t place, uint64_t at) noexcept nogil:
    # Likewise on the way to the bottom; earlier ones move up.
    cdef uint32_t below = 2 * place + 1
    while below < d.count:
        if below + 1 < d.count and d.heap[below + 1].at < d.heap[below].at:
            below += 1
        if at <= d.heap[below].at:
            break
        _put(d, place, d.heap[below])
        place = below
        below = 2 * place + 1
    return place


cdef void deadlines_init(Deadlines *d, Deadline *heap, uint32_t *places) noexcept nogil:
    d.heap = heap
    d.places = places
    d.count = 0


cdef void deadlines_add(Deadlines *d, uint32_t id, uint64_t at) noexcept nogil:
    d.count += 1
    _put(d, _rise(d, d.count - 1, at), Deadline(at=at, id=id))


cdef void deadlines_remove(Deadlines *d, uint32_t id) noexcept nogil:
    cdef uint32_t place = d.places[id]
    cdef Deadline last
    d.count -= 1
    if place == d.count:
        return
    last = d.heap[d.count]
    place = _sink(d, _rise(d, place, last.at), last.at)
    _put(d, place, last)
