"""Queues, batches, service times, forecast and deadlines: the scheduling of tasks. Pure: time is an argument.

A task is in one place at a time: the free list, nowhere (TASK_NEW: the caller has it), its stage's queue, or the list
of the slot that it was dispatched to. Queues are sorted by `turn`. A batch closes in
closed_batch: by head_batch or, by what its stage's former has learnt, by formed_batch.
"""

from libc.math cimport floor

from mosec_cy._engine.former cimport (
    CLOSED_COST,
    CLOSED_FULL,
    CLOSED_TARGET,
    CLOSED_WAIT,
    Formation,
    Situation,
    former_answered,
    former_arrived,
    former_completed,
    former_learn,
    former_form,
    former_init,
    former_time,
)
from mosec_cy._engine.linux cimport NEVER, bits_of
from mosec_cy._engine.list cimport list_insert, list_remove
from mosec_cy._engine.ring cimport word_cancel, word_dispatch, word_reclaim

# ---- slots and their pace ------------------------------------------------------------------------

# How long a slot's batches take: a moving average, robust against bursts and pauses.

cdef enum:
    MEMORY = 7    # weight of the past in the average: one batch counts 1 / (1 + MEMORY)


cdef inline uint64_t since(uint64_t now, uint64_t then) noexcept nogil:
    return now - then if now > then else 0


cdef uint64_t pace_measure(Slot *slot, uint64_t dispatched_at, uint64_t now) noexcept nogil:
    """The slot has completed a batch: returns its duration (at least 1 ns) and moves the average.

    Batches that complete at one `now` are one observation (their sum over their number): taken one by one, the average
    would depend on how far into the burst it is read. An observation at most doubles the average, so that a pause
    of the slot does not end dispatch ahead; a regime a thousand times slower is still followed within ten observations.
    The first observation does not count beside a shorter second one.
    """
    cdef uint64_t duration = since(now, max(dispatched_at, slot.busy_since))
    if duration > 0 or slot.burst == 0:
        slot.base_ns = 0 if slot.observations == 1 and duration < slot.batch_ns else slot.batch_ns
        slot.observations += slot.observations < PACE_KNOWN
        slot.burst_ns = duration
        slot.burst = 1
    else:
        slot.burst += 1
    slot.busy_since = now
    if slot.base_ns == 0:
        slot.batch_ns = slot.burst_ns // slot.burst
    else:
        slot.batch_ns = min((MEMORY * slot.base_ns + slot.burst_ns) // (MEMORY + slot.burst), 2 * slot.base_ns)
    slot.batch_ns = max(slot.batch_ns, <uint64_t>1)
    return max(duration, <uint64_t>1)


cdef void pace_forget(Slot *slot) noexcept nogil:
    slot.batch_ns = 0
    slot.base_ns = 0
    slot.burst = 0
    slot.observations = 0


cdef inline double answered_cost(const Stage *stage, const Slot *slot) noexcept nogil:
    """What the batch has cost of which all tasks are answered."""
    return <double>slot.answered * slot.answered_most if stage.padded else <double>slot.answered_cost


cdef inline void forget_answered(Slot *slot) noexcept nogil:
    slot.answered = slot.answered_most = 0
    slot.answered_cost = 0


cdef void learn(Stage *stage, Slot *slot, uint64_t batch_ns, uint64_t now) noexcept nogil:
    """All tasks of a batch are answered. Of those that complete at one `now` the first has the time of all."""
    cdef double cost = answered_cost(stage, slot)
    former_completed(&stage.former, slot.answered, <double>slot.answered_cost, now)
    if batch_ns > 1 and slot.taught:
        if slot.taught_ns:
            former_learn(&stage.former, slot.taught_cost / slot.taught, slot.taught_ns / slot.taught)
        slot.taught = 0
        slot.taught_cost = slot.taught_ns = 0
    slot.taught += 1
    slot.taught_cost += cost
    if slot.observations > 1:         # a process's first batch may include loading and compilation
        slot.taught_ns += batch_ns


cdef inline void put_up(Batcher *b, uint32_t slot) noexcept nogil:
    list_insert(&b.stages[b.slots[slot].stage].up, &b.slots[0].link, sizeof(Slot), slot, NO_INDEX)


cdef inline void take_up(Batcher *b, uint32_t slot) noexcept nogil:
    list_remove(&b.stages[b.slots[slot].stage].up, &b.slots[0].link, sizeof(Slot), slot)


cdef void batcher_init(Batcher *b, Task *tasks, uint64_t *words, uint32_t max_tasks, Stage *stages,
                       uint32_t stage_count, Slot *slots, uint32_t slot_count) noexcept nogil:
    cdef uint32_t i, k
    b[0] = Batcher(tasks=tasks, words=words, max_tasks=max_tasks, free_head=NO_INDEX, fresh=0, used=0, turns=0,
                   stages=stages, stage_count=stage_count, slots=slots, slot_count=slot_count)
    for i in range(stage_count):
        stages[i].queue = stages[i].up = List(head=NO_INDEX, tail=NO_INDEX)
        stages[i].learns = stages[i].automatic or stages[i].costed
        stages[i].closes_at = NEVER
        for k in range(<uint32_t>COST_CLASSES):
            stages[i].classes[k].tasks = List(head=NO_INDEX, tail=NO_INDEX)
        former_init(&stages[i].former, stages[i].max_batch_size, stages[i].max_wait_ns)
    for i in range(slot_count):
        slots[i].dispatched = List(head=NO_INDEX, tail=NO_INDEX)
        slots[i].reclaim_at = NEVER


cdef uint32_t task_new(Batcher *b) noexcept nogil:
    cdef uint32_t entry = b.free_head
    if entry != NO_INDEX:
        b.free_head = b.tasks[entry].link.next
    elif b.fresh < b.max_tasks:
        # Entries are first touched when they are needed: a large table costs an idle process no memory.
        entry = b.fresh
        b.fresh += 1
        b.tasks[entry].generation = 1
    else:
        return NO_INDEX
    b.used += 1
    b.tasks[entry].state = TASK_NEW
    return entry


cdef void task_free(Batcher *b, uint32_t entry) noexcept nogil:
    cdef Task *task = &b.tasks[entry]
    task.state = TASK_FREE
    task.generation += 1
    task.generation += task.generation == 0  # never 0
    task.link.next = b.free_head
    b.free_head = entry
    b.used -= 1


cdef uint64_t task_id(const Batcher *b, uint32_t entry) noexcept nogil:
    return entry | <uint64_t>b.tasks[entry].generation << 32


cdef uint32_t task_of(const Batcher *b, uint64_t id) noexcept nogil:
    cdef uint32_t entry = <uint32_t>id
    # The generation of a free entry is the one that its next task will have. An id can be guessed, so the state is
    # checked too.
    if entry >= b.max_tasks or b.tasks[entry].generation != id >> 32 or b.tasks[entry].state == TASK_FREE:
        return <uint32_t>NO_INDEX
    return entry


cdef inline uint32_t class_of(uint32_t cost) noexcept nogil:
    """Two classes an octave: from 2^(k / 2) on."""
    cdef uint32_t octave = bits_of(cost) - 1
    return 2 * octave + (<uint64_t>cost * cost >> (2 * octave + 1) != 0)


cdef inline double class_cost(uint32_t k) noexcept nogil:
    """A cost in the middle of the class."""
    return (1.68 if k & 1 else 1.19) * <double>(<uint64_t>1 << (k >> 1))


cdef void enter_class(Batcher *b, Stage *stage, uint32_t entry) noexcept nogil:
    """Put a task into its class, by its turn."""
    cdef uint32_t k = class_of(b.tasks[entry].cost)
    cdef CostClass *of = &stage.classes[k]
    cdef uint32_t after = NO_INDEX
    if of.tasks.tail != NO_INDEX and b.tasks[of.tasks.tail].turn > b.tasks[entry].turn:
        after = of.tasks.head         # it comes back: most that wait are younger
        while b.tasks[after].turn < b.tasks[entry].turn:
            after = b.tasks[after].mates.next
    list_insert(&of.tasks, &b.tasks[0].mates, sizeof(Task), entry, after)
    of.count += 1
    stage.used_classes |= <uint64_t>1 << k
    stage.waiting_cost += b.tasks[entry].cost


cdef void leave_class(Batcher *b, Stage *stage, uint32_t entry) noexcept nogil:
    cdef uint32_t k = class_of(b.tasks[entry].cost)
    cdef CostClass *of = &stage.classes[k]
    list_remove(&of.tasks, &b.tasks[0].mates, sizeof(Task), entry)
    of.count -= 1
    if of.count == 0:
        stage.used_classes &= ~(<uint64_t>1 << k)
    stage.waiting_cost -= b.tasks[entry].cost


cdef uint32_t nearest_class(uint64_t classes, uint32_t k) noexcept nogil:
    """The class of `classes` (not empty) that is next to class k; of two the cheaper one."""
    cdef uint64_t below = classes & ((<uint64_t>2 << k) - 1)
    cdef uint64_t above = classes & ~((<uint64_t>2 << k) - 1)
    cdef uint32_t low = bits_of(below) - 1              # of none it is the largest number
    cdef uint32_t high = bits_of(above & (~above + 1)) - 1
    if below == 0:
        return high
    return low if above == 0 or k - low <= high - k else high


cdef uint64_t joining(const Stage *stage, uint32_t first) noexcept nogil:
    """The classes whose tasks may go with one of class `first`: where a batch saved is worth more than the padding."""
    cdef uint64_t left = stage.used_classes & ~(<uint64_t>1 << first)
    cdef uint64_t joined = <uint64_t>1 << first
    cdef uint32_t n = stage.classes[first].count
    cdef double top = class_cost(first)
    cdef double cost, padding
    cdef uint32_t k
    if not stage.padded:
        return stage.used_classes
    while left and n < stage.max_batch_size:
        k = nearest_class(left, first)
        left &= ~(<uint64_t>1 << k)
        cost = class_cost(k)
        padding = stage.classes[k].count * (top - cost) if cost < top else n * (cost - top)
        if stage.former.time.fixed > stage.former.time.slope * padding:
            joined |= <uint64_t>1 << k
            n += stage.classes[k].count
            top = max(top, cost)
    return joined


cdef void batcher_enqueue(Batcher *b, uint32_t entry, uint32_t stage, uint32_t cost, uint64_t now) noexcept nogil:
    cdef Task *task = &b.tasks[entry]
    cdef Stage *at = &b.stages[stage]
    task.state = TASK_QUEUED
    task.stage = stage
    task.tries = 0
    task.queued_at = now
    task.turn = b.turns
    b.turns += 1
    list_insert(&at.queue, &b.tasks[0].link, sizeof(Task), entry, NO_INDEX)
    at.waiting += 1
    if at.learns:
        task.cost = max(cost, <uint32_t>1)
        if at.automatic:
            former_arrived(&at.former, at.waiting + at.running > 1, now)
        if at.costed:
            enter_class(b, at, entry)


cdef uint32_t requeue(Batcher *b, uint32_t entry, uint32_t near) noexcept nogil:
    """Put a task back into its stage's queue by its turn, searching from `near` (a queued task or NO_INDEX, the end).
    Returns the task behind it: tasks that are reclaimed together mostly belong before that one, in order."""
    cdef Task *task = &b.tasks[entry]
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
    list_insert(&stage.queue, &b.tasks[0].link, sizeof(Task), entry, near)
    stage.waiting += 1
    stage.lone += task.tries > 0
    if stage.costed:
        enter_class(b, stage, entry)
    return near


cdef bint batcher_retry(Batcher *b, uint32_t entry) noexcept nogil:
    cdef Stage *stage = &b.stages[b.tasks[entry].stage]
    if b.tasks[entry].tries > stage.retry:
        return False
    requeue(b, entry, stage.queue.head)
    return True


cdef inline void leave_queue(Batcher *b, uint32_t entry) noexcept nogil:
    cdef Stage *stage = &b.stages[b.tasks[entry].stage]
    list_remove(&stage.queue, &b.tasks[0].link, sizeof(Task), entry)
    stage.waiting -= 1
    stage.lone -= b.tasks[entry].tries > 0
    if stage.costed:
        leave_class(b, stage, entry)


cdef bint leave_slot(Batcher *b, uint32_t entry) noexcept nogil:
    """Take a task from its slot's list; true when it was the last of its batch."""
    cdef Task *task = &b.tasks[entry]
    cdef Slot *slot = &b.slots[task.slot]
    cdef ListLink link = task.link
    cdef bint last = ((link.previous == NO_INDEX or b.tasks[link.previous].batch != task.batch)
                      and (link.next == NO_INDEX or b.tasks[link.next].batch != task.batch))
    list_remove(&slot.dispatched, &b.tasks[0].link, sizeof(Task), entry)
    task.state = TASK_NEW
    slot.outstanding -= 1
    b.stages[slot.stage].running -= 1
    if last:
        slot.batches -= 1
    if slot.outstanding == 0:
        slot.reclaim_at = NEVER
    return last


cdef inline bint reclaim_task(Batcher *b, uint32_t entry) noexcept nogil:
    """Make a dispatched task impossible to start; false when its slot has started it."""
    if not word_reclaim(&b.words[entry], b.tasks[entry].sequence):
        return False
    b.tasks[entry].sequence += 1
    return True


cdef uint32_t return_unstarted(Batcher *b, uint32_t index, uint64_t now, uint64_t age) noexcept nogil:
    """Requeue the tasks that were dispatched to the slot at least `age` ago and are not started."""
    cdef Slot *slot = &b.slots[index]
    cdef uint32_t near = b.stages[slot.stage].queue.head
    cdef uint32_t entry = slot.dispatched.head
    cdef uint32_t following, count = 0
    slot.reclaim_at = NEVER
    while entry != NO_INDEX:
        following = b.tasks[entry].link.next
        if now < b.tasks[entry].dispatched_at + age:
            slot.reclaim_at = b.tasks[entry].dispatched_at + RECLAIM_NS
            break
        if reclaim_task(b, entry):
            leave_slot(b, entry)
            near = requeue(b, entry, near)
            count += 1
        entry = following
    return count


cdef void batcher_slot_up(Batcher *b, uint32_t slot) noexcept nogil:
    if not b.slots[slot].up:
        put_up(b, slot)
        b.stages[b.slots[slot].stage].slots += 1
    b.slots[slot].up = True
    b.slots[slot].late = False
    b.slots[slot].room = b.slots[slot].ring_capacity
    forget_answered(&b.slots[slot])
    b.slots[slot].taught = 0
    b.slots[slot].taught_cost = b.slots[slot].taught_ns = 0
    pace_forget(&b.slots[slot])


cdef void batcher_slot_drain(Batcher *b, uint32_t slot) noexcept nogil:
    if b.slots[slot].up:
        take_up(b, slot)
        b.stages[b.slots[slot].stage].slots -= 1
    b.slots[slot].up = False
    return_unstarted(b, slot, NEVER, 0)


cdef uint32_t batcher_slot_down(Batcher *b, uint32_t slot, uint32_t *started) noexcept nogil:
    cdef uint32_t entry, count = 0
    batcher_slot_drain(b, slot)
    while b.slots[slot].dispatched.head != NO_INDEX:
        entry = b.slots[slot].dispatched.head
        leave_slot(b, entry)
        b.tasks[entry].tries += b.tasks[entry].tries < 255
        started[count] = entry
        count += 1
    return count


cdef inline bint takes_ahead(const Slot *slot, uint64_t now) noexcept nogil:
    """May a busy slot be dispatched one more batch?"""
    if slot.batch_ns == 0 or slot.batch_ns > AHEAD_MAX_BATCH_NS:
        return False
    # The batch that runs may be the first slow one: tasks reclaimed because of it must not be dispatched back.
    if now > slot.busy_since + AHEAD_MAX_BATCH_NS:
        return False
    # One batch may always wait: otherwise the slot would stand still for a round trip after each.
    return slot.batches <= 1 or slot.batches * slot.batch_ns <= AHEAD_NS


cdef inline bint is_open(const Slot *slot, uint32_t size, uint64_t now) noexcept nogil:
    """Can a batch of `size` be dispatched to it and be expected to start soon?"""
    if slot.room < size or (slot.late and slot.room < slot.ring_capacity):
        return False
    return slot.outstanding == 0 or takes_ahead(slot, now)


cdef uint32_t choose_slot(const Batcher *b, const Stage *stage, uint32_t size, uint64_t now) noexcept nogil:
    cdef uint32_t i = stage.up.head
    cdef uint32_t best = NO_INDEX, last_resort = NO_INDEX
    cdef const Slot *slot
    while i != NO_INDEX:
        slot = &b.slots[i]
        if is_open(slot, size, now):
            if slot.outstanding == 0:
                return i
            if best == NO_INDEX or slot.batches < b.slots[best].batches:
                best = i
        elif last_resort == NO_INDEX and slot.outstanding == 0 and slot.room >= size:
            last_resort = i
        i = slot.link.next
    return best if best != NO_INDEX else last_resort


cdef uint32_t ordinary_run(const Batcher *b, const Stage *stage, uint32_t most) noexcept nogil:
    """Tasks at the head of the queue, up to `most`, before the first that is dispatched alone."""
    cdef uint32_t entry = stage.queue.head
    cdef uint32_t count = 0
    while count < most and entry != NO_INDEX and b.tasks[entry].tries == 0:
        entry = b.tasks[entry].link.next
        count += 1
    return count


cdef inline uint64_t busy_for(const Stage *stage, const Slot *slot, uint64_t now) noexcept nogil:
    """ns until a busy slot of an automatic stage should be done with the work that it has."""
    cdef double whole = former_time(&stage.former, slot.outstanding * stage.former.mean_cost)
    cdef double done = <double>since(now, slot.busy_since)
    return <uint64_t>(whole - done) if whole > done else 0


cdef bint survey(const Batcher *b, const Stage *stage, uint64_t now, Situation *s) noexcept nogil:
    """How a batch of the queue finds the stage's slots. False when none can take one."""
    cdef uint32_t i = stage.up.head
    cdef bint ahead = False, last_resort = False
    cdef const Slot *slot
    s.now = now
    s.waiting = stage.waiting
    s.oldest = b.tasks[stage.queue.head].queued_at
    s.replicas = stage.slots
    s.idle = 0
    s.free_in = NEVER
    while i != NO_INDEX:
        slot = &b.slots[i]
        if slot.outstanding:
            s.free_in = min(s.free_in, busy_for(stage, slot, now))
            ahead = ahead or is_open(slot, 1, now)
        elif is_open(slot, 1, now):
            s.idle += 1
        else:
            last_resort = last_resort or slot.room > 0
        i = slot.link.next
    if s.idle == 0 and last_resort and not ahead:
        s.idle = 1
    return s.idle > 0 or ahead


cdef uint32_t formed_batch(const Batcher *b, Stage *stage, uint64_t now, uint64_t *closing) noexcept nogil:
    """As head_batch, of an automatic stage."""
    cdef Situation s
    cdef Formation formation
    cdef uint32_t size
    closing[0] = NEVER
    if not survey(b, stage, now, &s):
        return 0
    former_form(&stage.former, &s, &formation)
    stage.closed_by = formation.reason
    stage.target = formation.size
    size = min(stage.waiting, stage.max_batch_size if stage.costed else formation.size)
    if stage.waiting_cost >= stage.max_batch_cost:
        stage.closed_by = CLOSED_COST
        closing[0] = 0
        return size
    if stage.lone and not stage.costed and ordinary_run(b, stage, size) < size:
        closing[0] = 0
        return max(ordinary_run(b, stage, size), <uint32_t>1)
    closing[0] = formation.closes_at
    return size


cdef inline uint32_t head_batch(const Batcher *b, const Stage *stage, uint64_t *closing) noexcept nogil:
    """Size of the batch at the head of the queue (not empty), and when it closes; 0: it cannot grow."""
    cdef uint64_t queued_at = b.tasks[stage.queue.head].queued_at
    cdef uint32_t size = min(stage.waiting, stage.max_batch_size)
    closing[0] = 0
    if stage.waiting_cost >= stage.max_batch_cost:
        return size
    if stage.lone and ordinary_run(b, stage, size) < size:
        return max(ordinary_run(b, stage, size), <uint32_t>1)
    if size < stage.max_batch_size:
        closing[0] = queued_at + min(stage.max_wait_ns, <uint64_t>NEVER - queued_at)
    return size


cdef inline void dispatch_task(Batcher *b, uint32_t entry, uint32_t index, uint64_t now) noexcept nogil:
    """A task of the queue goes to the slot, into its latest batch."""
    cdef Slot *slot = &b.slots[index]
    cdef Task *task = &b.tasks[entry]
    leave_queue(b, entry)
    list_insert(&slot.dispatched, &b.tasks[0].link, sizeof(Task), entry, NO_INDEX)
    task.state = TASK_DISPATCHED
    task.slot = index
    task.batch = slot.batch
    task.dispatched_at = now
    task.sequence += 1
    word_dispatch(&b.words[entry], task.sequence)


cdef uint32_t dispatch_like(Batcher *b, Stage *stage, uint32_t most, uint32_t index, uint64_t now,
                            uint32_t *out) noexcept nogil:
    """The task at the head of the queue goes to the slot, and with it up to `most` tasks of like cost."""
    cdef uint32_t entry = stage.queue.head
    cdef uint32_t first = class_of(b.tasks[entry].cost)
    cdef uint64_t joined = joining(stage, first)
    cdef uint64_t total, together = 0
    cdef double target = stage.former.mean_cost * stage.target if stage.automatic else <double>NEVER
    cdef uint32_t cost, k, largest = 0, count = 0
    while True:
        cost = b.tasks[entry].cost
        largest = max(largest, cost)
        together += cost
        total = <uint64_t>largest * (count + 1) if stage.padded else together
        if count and total > stage.max_batch_cost:
            stage.closed_by = CLOSED_COST
            break
        if count and <double>total > target:
            stage.closed_by = CLOSED_TARGET
            break
        out[count] = entry
        count += 1
        dispatch_task(b, entry, index, now)
        if count == most or b.tasks[entry].tries:
            break
        joined &= stage.used_classes
        while joined:                 # a task that is dispatched alone holds up its class alone
            k = nearest_class(joined, first)
            entry = stage.classes[k].tasks.head
            if b.tasks[entry].tries == 0:
                break
            joined &= ~(<uint64_t>1 << k)
        if joined == 0:
            if stage.waiting:         # what is left would only pad
                stage.closed_by = CLOSED_COST
            break
    if count == stage.max_batch_size:
        stage.closed_by = CLOSED_FULL
    return count


# ---- joining -------------------------------------------------------------------------------------

# A stage whose slots run one batch without end. Tasks leave it one by one, and others take their places.

cdef inline bint has_place(const Batcher *b, const Stage *stage, const Slot *slot) noexcept nogil:
    """May the task at the head of the queue join what the slot runs? One that goes alone does so in an idle slot."""
    if slot.outstanding == 0:
        return True
    return (slot.outstanding < stage.max_batch_size and b.tasks[stage.queue.head].tries == 0
            and b.tasks[slot.dispatched.head].tries == 0)


cdef uint32_t choose_place(const Batcher *b, const Stage *stage) noexcept nogil:
    cdef uint32_t i = stage.up.head
    cdef uint32_t best = NO_INDEX, last_resort = NO_INDEX
    cdef const Slot *slot
    while i != NO_INDEX:
        slot = &b.slots[i]
        if slot.room > 0 and has_place(b, stage, slot):
            if not slot.late or slot.room == slot.ring_capacity:
                if best == NO_INDEX or slot.outstanding < b.slots[best].outstanding:
                    best = i
            elif last_resort == NO_INDEX and slot.outstanding == 0:
                last_resort = i
        i = slot.link.next
    return best if best != NO_INDEX else last_resort


cdef bint another_idles(const Batcher *b, const Stage *stage, uint32_t from_slot) noexcept nogil:
    """A slot takes tasks between two steps only. That is no reason to reclaim them; that another could start is."""
    cdef uint32_t i = stage.up.head
    while i != NO_INDEX:
        if i != from_slot and b.slots[i].outstanding == 0 and is_open(&b.slots[i], 1, 0):
            return True
        i = b.slots[i].link.next
    return False


cdef uint64_t join_deadline(const Batcher *b, const Stage *stage, uint64_t now) noexcept nogil:
    """When to ask for a join of the task at the head of the queue."""
    cdef uint32_t i = stage.up.head
    if choose_place(b, stage) != NO_INDEX:
        return now
    while i != NO_INDEX:
        # Its ring is in the way, and a slot that pops stale descriptors notifies no process: look again after a while.
        if has_place(b, stage, &b.slots[i]):
            return now + RECLAIM_NS
        i = b.slots[i].link.next
    return NEVER


cdef uint32_t closed_batch(Batcher *b, Stage *stage, uint64_t now) noexcept nogil:
    """Size of the batch that closes now, or 0."""
    cdef uint64_t closing
    cdef uint32_t size
    if stage.automatic:
        size = formed_batch(b, stage, now, &closing)
        stage.closes_at = closing
        stage.asked = max(size, <uint32_t>1)
    else:
        size = head_batch(b, stage, &closing)
        stage.closed_by = CLOSED_FULL if closing == 0 else CLOSED_WAIT
    return size if closing <= now else 0


cdef uint32_t batcher_next_batch(Batcher *b, uint32_t stage, uint64_t now, uint32_t *out,
                                 uint32_t *slot) noexcept nogil:
    cdef Stage *of = &b.stages[stage]
    cdef Slot *to
    cdef uint32_t i, index
    cdef uint32_t size = 1
    if of.waiting == 0:
        return 0
    if of.joins:
        index = choose_place(b, of)
    else:
        size = closed_batch(b, of, now)
        index = choose_slot(b, of, size, now) if size else <uint32_t>NO_INDEX
    if index == NO_INDEX:
        return 0
    to = &b.slots[index]
    if to.outstanding == 0:
        to.busy_since = now
        forget_answered(to)           # of a batch whose last tasks were withdrawn
    to.reclaim_at = min(to.reclaim_at, now + RECLAIM_NS)
    if index != of.up.tail:
        take_up(b, index)
        put_up(b, index)
    to.batch += 1
    to.batches += 1
    if of.costed:
        size = dispatch_like(b, of, size, index, now, out)
    else:
        for i in range(size):
            out[i] = of.queue.head
            dispatch_task(b, out[i], index, now)
    to.outstanding += size
    to.room -= size
    of.running += size
    slot[0] = index
    return size


cdef bint batcher_holds(const Batcher *b, uint32_t slot, uint32_t entry, uint32_t sequence) noexcept nogil:
    cdef const Task *task
    if entry >= b.max_tasks:
        return False
    task = &b.tasks[entry]
    return task.state == TASK_DISPATCHED and task.slot == slot and task.sequence == sequence


cdef bint batcher_complete(Batcher *b, uint32_t slot, uint32_t entry, uint32_t sequence, uint64_t now,
                           uint64_t *batch_ns) noexcept nogil:
    cdef Slot *of
    cdef Stage *stage
    batch_ns[0] = 0
    if not batcher_holds(b, slot, entry, sequence):
        return False
    of = &b.slots[slot]
    stage = &b.stages[of.stage]
    of.late = False
    if stage.learns:
        of.answered += 1
        of.answered_cost += b.tasks[entry].cost
        of.answered_most = max(of.answered_most, b.tasks[entry].cost)
        if stage.automatic:
            former_answered(&stage.former, now)
    if leave_slot(b, entry):
        if stage.joins:
            of.busy_since = 0         # others stay meanwhile: what is measured is how long this task has stayed
        batch_ns[0] = pace_measure(of, b.tasks[entry].dispatched_at, now)
        if stage.learns:
            learn(stage, of, batch_ns[0], now)
            forget_answered(of)
    return True


cdef int batcher_withdraw(Batcher *b, uint32_t entry) noexcept nogil:
    cdef Task *task = &b.tasks[entry]
    if task.state == TASK_QUEUED:
        leave_queue(b, entry)
        task.state = TASK_NEW
    elif task.state == TASK_DISPATCHED:
        if not reclaim_task(b, entry):
            word_cancel(&b.words[entry])
            return RUNNING
        leave_slot(b, entry)
    return WITHDRAWN


cdef bint may_move(const Batcher *b, const Stage *stage, uint32_t from_slot, uint64_t now) noexcept nogil:
    """Can another slot of the stage take work at once?"""
    cdef uint32_t i = stage.up.head
    if stage.joins:
        return another_idles(b, stage, from_slot)
    while i != NO_INDEX:
        if i != from_slot and is_open(&b.slots[i], 1, now):
            return True
        i = b.slots[i].link.next
    return False


cdef uint32_t batcher_reclaim(Batcher *b, uint64_t now) noexcept nogil:
    cdef uint32_t s, i, count, total = 0
    cdef Stage *stage
    cdef Slot *slot
    for s in range(b.stage_count):
        stage = &b.stages[s]
        if stage.slots < 2 or stage.running == 0:
            continue
        i = stage.up.head
        while i != NO_INDEX:
            slot = &b.slots[i]
            if slot.reclaim_at <= now and may_move(b, stage, i, now):
                count = return_unstarted(b, i, now, RECLAIM_NS)
                if count > 0:
                    slot.late = True
                    # Until the caller has looked at the ring again, it does not count as seen empty.
                    slot.room = min(slot.room, slot.ring_capacity - 1)
                total += count
            i = slot.link.next
    return total


cdef bint popping_matters(const Batcher *b, const Stage *stage) noexcept nogil:
    """Is a slot idle that can get work, or work of other slots, only once it has popped stale descriptors?"""
    cdef uint32_t i = stage.up.head
    while i != NO_INDEX:
        if b.slots[i].outstanding == 0 and b.slots[i].room < b.slots[i].ring_capacity:
            return True
        i = b.slots[i].link.next
    return False


cdef uint64_t queue_deadline(const Batcher *b, const Stage *stage, uint64_t now) noexcept nogil:
    """When to ask for a batch of the queue (not empty)."""
    cdef uint64_t closing = stage.closes_at
    cdef uint32_t size
    if stage.joins:
        return join_deadline(b, stage, now)
    if stage.automatic:
        if closing == NEVER:
            return now + RECLAIM_NS if popping_matters(b, stage) else NEVER
        size = stage.asked
    else:
        size = head_batch(b, stage, &closing)
    if choose_slot(b, stage, size, now) != NO_INDEX:
        return max(closing, now)
    # A slot that pops stale descriptors notifies no process: look again after a while.
    return max(closing, now + RECLAIM_NS) if popping_matters(b, stage) else NEVER


cdef uint64_t reclaim_deadline(const Batcher *b, const Stage *stage, uint64_t now) noexcept nogil:
    """When to look for tasks that their slots have not started."""
    cdef uint64_t nearest = NEVER
    cdef uint64_t stuck = NEVER        # for tasks that no other slot can take now
    cdef uint32_t i = stage.up.head
    while i != NO_INDEX:
        if b.slots[i].reclaim_at < min(nearest, stuck):
            if may_move(b, stage, i, now):
                nearest = b.slots[i].reclaim_at
            else:
                stuck = b.slots[i].reclaim_at
        i = b.slots[i].link.next
    if stuck < nearest and popping_matters(b, stage):
        nearest = min(nearest, max(stuck, now + RECLAIM_NS))
    return nearest


cdef uint64_t batcher_deadline(const Batcher *b, uint64_t now) noexcept nogil:
    cdef uint64_t nearest = NEVER
    cdef uint32_t s
    cdef const Stage *stage
    for s in range(b.stage_count):
        stage = &b.stages[s]
        if stage.waiting > 0:
            nearest = min(nearest, queue_deadline(b, stage, now))
        if stage.slots > 1 and stage.running > 0:
            nearest = min(nearest, reclaim_deadline(b, stage, now))
    return nearest


# ---- forecast ------------------------------------------------------------------------------------

# How long a stage will need for a task that arrives now.
#
# While a queue is long, batches are full: of max_batch_size tasks, or as many as max_batch_cost admits. The slots that
# are up take them again and again, each in the time that its batches have taken lately (the moving average of the
# batcher); or, where batches are smaller while the queue is short, in the time that one of these should take by what
# was learnt. The batch that a slot is
# working on may only have begun. If it has lasted longer than earlier ones, it may last as long again: a slot that
# stands still is noticed before it answers, but is not expected to be that slow for ever. The first batch of a process
# does not count: a stage that refused requests because of it would hardly ever see the second.

cdef enum:
    LONGEST = 0x20_0000_0000_0000          # ns, 104 days; the sum over all stages does not overflow


cdef inline double _full_batches(const Stage *of) noexcept nogil:
    """How many batches the queue makes, at least 1."""
    cdef double by_count = <double>of.waiting / of.max_batch_size
    return max(by_count, <double>of.waiting_cost / of.max_batch_cost, 1.0) if of.costed else max(by_count, 1.0)


cdef inline double _full_ns(const Stage *of, const Slot *slot) noexcept nogil:
    """Time of one of them."""
    if of.learns:
        return max(former_time(&of.former, (of.waiting_cost if of.costed else of.waiting) / _full_batches(of)), 1.0)
    return <double>slot.batch_ns


cdef inline double _free_in(const Slot *slot, double batch_ns, uint64_t now) noexcept nogil:
    return max(<double>since(now, slot.busy_since), batch_ns) if slot.outstanding else batch_ns


cdef double _done_in(const Batcher *b, const Stage *of, uint64_t now, double within) noexcept nogil:
    # ns until the queue and one batch more are done, by those slots that are free `within` so many ns. If t is that
    # time, each slot does (t - free_in) / batch_ns of those batches, and these numbers add up to all of them.
    cdef double batches = floor(_full_batches(of)) + 1
    cdef double pace = 0                   # batches a ns, of the slots that have been measured
    cdef double begun = 0                  # batches that they do until then of the work they have
    cdef double free_in, batch_ns
    cdef uint32_t i = of.up.head
    cdef uint32_t known = 0
    cdef uint32_t others = 0               # new processes, which are expected to be like these
    cdef const Slot *slot
    while i != NO_INDEX:
        slot = &b.slots[i]
        i = slot.link.next
        if slot.observations < PACE_KNOWN:
            others += 1
            continue
        batch_ns = _full_ns(of, slot)
        free_in = _free_in(slot, batch_ns, now)
        if free_in <= within:
            pace += 1.0 / batch_ns
            begun += free_in / batch_ns
            known += 1
    if known == 0:
        return 0
    return (batches * known / (known + others) + begun) / pace


cdef uint64_t stage_forecast(const Batcher *b, uint32_t stage, uint64_t now) noexcept nogil:
    cdef const Stage *of = &b.stages[stage]
    cdef double done_in = 2.0 ** 64
    cdef double sooner
    if not stage_is_full(of):
        return 0
    sooner = _done_in(b, of, now, done_in)
    while sooner < done_in:                # without slots that have no part in it; one less each time, or it is done
        done_in = sooner
        sooner = _done_in(b, of, now, done_in)
    return <uint64_t>min(done_in + 0.5, <double>LONGEST)


# ---- deadlines -----------------------------------------------------------------------------------

# Deadlines in any order: an indexed binary heap (Williams 1964), from which any entry can be removed.

cdef inline void _put(Deadlines *d, uint32_t place, Deadline entry) noexcept nogil:
    d.heap[place] = entry
    d.places[entry.id] = place


cdef uint32_t _rise(Deadlines *d, uint32_t place, uint64_t at) noexcept nogil:
    # The place of an entry for `at` on the way from the hole `place` to the top; later entries move down.
    cdef uint32_t above
    while place > 0:
        above = (place - 1) // 2
        if d.heap[above].at <= at:
            break
        _put(d, place, d.heap[above])
        place = above
    return place


cdef uint32_t _sink(Deadlines *d, uint32_t place, uint64_t at) noexcept nogil:
    # Likewise on the way to the bottom; earlier entries move up.
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
