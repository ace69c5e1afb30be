"""The batcher as Python objects, for tests and benchmarks: no socket and no clock."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from mosec_cy._engine.batcher cimport (
    NO_INDEX,
    TASK_FREE,
    TASK_NEW,
    WITHDRAWN,
    Batcher,
    Deadline,
    Deadlines,
    Slot,
    Stage,
    Task,
    batcher_complete,
    batcher_deadline,
    batcher_enqueue,
    batcher_holds,
    batcher_init,
    batcher_next_batch,
    batcher_retry,
    batcher_slot_down,
    batcher_slot_drain,
    batcher_slot_up,
    batcher_reclaim,
    batcher_withdraw,
    deadlines_add,
    deadlines_init,
    deadlines_remove,
    stage_forecast,
    task_free,
    task_id,
    task_new,
    task_of,
)
from mosec_cy._engine.linux cimport NEVER
from mosec_cy._engine.ring cimport word_cancelled, word_start


cdef class Scheduler:
    """A batcher over its own memory, with time as an argument.

    stages: (max_batch_size, max_wait_ns, number of slots) of each; slots are numbered through and down at first.
    costed, padded, max_batch_cost: as the stage's fields; None: no limit.
    automatic: batches close as the former says; max_wait_ns None: no limit.
    retry: times that each stage may run a task again after its slot died while running it.
    joins: whether each stage is one that tasks join.
    max_tasks: size of the task table. ring_capacity: descriptors, of each slot. words: writable buffer of
    8 * max_tasks zero bytes, for instance shared with another process; its own memory by default.
    All times are int nanoseconds. A wrong entry, stage, slot or state raises ValueError, before anything is changed.
    """

    cdef Batcher b
    cdef Stage *stages
    cdef Slot *slots
    cdef Task *tasks
    cdef uint64_t *own_words
    cdef uint32_t *entries
    cdef object shared

    def __cinit__(self, stages, uint32_t max_tasks=256, uint32_t ring_capacity=64, words=None, uint32_t retry=0,
                  bint automatic=False, bint costed=False, bint padded=False, max_batch_cost=None,
                  bint joins=False):
        cdef uint32_t slot_count = sum(slots for _, _, slots in stages)
        cdef uint32_t first_slot = 0
        cdef uint32_t s, i
        cdef uint64_t[::1] view
        self.stages = <Stage *>calloc(len(stages), sizeof(Stage))
        self.slots = <Slot *>calloc(slot_count, sizeof(Slot))
        self.tasks = <Task *>calloc(max_tasks, sizeof(Task))
        self.own_words = <uint64_t *>calloc(max_tasks, sizeof(uint64_t))
        self.entries = <uint32_t *>calloc(max_tasks, sizeof(uint32_t))
        if not (self.stages and self.slots and self.tasks and self.own_words and self.entries):
            raise MemoryError
        for s, (max_batch_size, max_wait_ns, slots) in enumerate(stages):
            if not 0 < max_batch_size <= ring_capacity:
                raise ValueError("max_batch_size must be from 1 to ring_capacity")
            self.stages[s].max_batch_size = max_batch_size
            self.stages[s].max_wait_ns = NEVER if max_wait_ns is None else max_wait_ns
            self.stages[s].retry = retry
            self.stages[s].automatic = automatic
            self.stages[s].costed = costed
            self.stages[s].padded = padded
            self.stages[s].max_batch_cost = NEVER if max_batch_cost is None else max_batch_cost
            self.stages[s].joins = joins
            for i in range(first_slot, first_slot + <uint32_t>slots):
                self.slots[i].stage = s
                self.slots[i].ring_capacity = ring_capacity
            first_slot += <uint32_t>slots
        if words is not None:
            self.shared = memoryview(words).cast("B").cast("Q")
            if len(self.shared) < max_tasks:
                raise ValueError("words must hold 8 bytes a task")
            view = self.shared
        batcher_init(&self.b, self.tasks, self.own_words if words is None else &view[0], max_tasks,
                     self.stages, len(stages), self.slots, slot_count)

    def __dealloc__(self):
        free(self.stages)
        free(self.slots)
        free(self.tasks)
        free(self.own_words)
        free(self.entries)

    cdef int check_new(self, uint32_t entry) except -1:
        if entry >= self.b.max_tasks or self.tasks[entry].state != TASK_NEW:
            raise ValueError("the task is not new")
        return 0

    cdef int check_used(self, uint32_t entry) except -1:
        if entry >= self.b.max_tasks or self.tasks[entry].state == TASK_FREE:
            raise ValueError("no such task")
        return 0

    cdef int check_slot(self, uint32_t slot) except -1:
        if slot >= self.b.slot_count:
            raise ValueError("no such slot")
        return 0

    cdef int check_stage(self, uint32_t stage) except -1:
        if stage >= self.b.stage_count:
            raise ValueError("no such stage")
        return 0

    def new(self):
        """Entry of a new task, or None when all are used."""
        cdef uint32_t entry = task_new(&self.b)
        return None if entry == NO_INDEX else entry

    def free(self, uint32_t entry):
        """Free a task that is in no queue and no ring."""
        self.check_new(entry)
        task_free(&self.b, entry)

    def id(self, uint32_t entry):
        """entry | generation << 32."""
        self.check_used(entry)
        return task_id(&self.b, entry)

    def find(self, uint64_t id):
        """Entry of the task with that id, or None when it is gone."""
        cdef uint32_t entry = task_of(&self.b, id)
        return None if entry == NO_INDEX else entry

    def enqueue(self, uint32_t entry, uint32_t stage, uint64_t now, uint32_t cost=1):
        """Put a task that is in no queue at the end of a stage's."""
        self.check_new(entry)
        self.check_stage(stage)
        batcher_enqueue(&self.b, entry, stage, cost, now)

    def retry(self, uint32_t entry):
        """Put a task that `slot_down` has listed back into its queue, to be dispatched alone; False: no try is left."""
        self.check_new(entry)
        self.check_stage(self.tasks[entry].stage)
        return batcher_retry(&self.b, entry)

    def withdraw(self, uint32_t entry):
        """True when it will not run (any more); False when a slot has started it: it is marked as cancelled."""
        self.check_used(entry)
        return batcher_withdraw(&self.b, entry) == WITHDRAWN

    def next_batch(self, uint32_t stage, uint64_t now):
        """(slot, [(entry, sequence), ...]) of the batch that was dispatched, or None."""
        cdef uint32_t count, slot = 0
        self.check_stage(stage)
        count = batcher_next_batch(&self.b, stage, now, self.entries, &slot)
        if count == 0:
            return None
        return slot, [(self.entries[i], self.tasks[self.entries[i]].sequence) for i in range(count)]

    def complete(self, uint32_t slot, uint32_t entry, uint32_t sequence, uint64_t now):
        """None when that slot may not answer the task; else the batch's ns if this was its last task, or 0."""
        cdef uint64_t batch_ns = 0
        if not batcher_complete(&self.b, slot, entry, sequence, now, &batch_ns):
            return None
        return batch_ns

    def holds(self, uint32_t slot, uint32_t entry, uint32_t sequence):
        """May that slot answer the task?"""
        return batcher_holds(&self.b, slot, entry, sequence)

    def reclaim(self, uint64_t now):
        """Number of overdue tasks that went back to their queues."""
        return batcher_reclaim(&self.b, now)

    def slot_up(self, uint32_t slot):
        """The slot may get work; its ring is empty."""
        self.check_slot(slot)
        batcher_slot_up(&self.b, slot)

    def slot_down(self, uint32_t slot):
        """The slot is dead; returns the entries of the tasks that it had started."""
        self.check_slot(slot)
        count = batcher_slot_down(&self.b, slot, self.entries)
        return [self.entries[i] for i in range(count)]

    def slot_drain(self, uint32_t slot):
        """No new work for the slot."""
        self.check_slot(slot)
        batcher_slot_drain(&self.b, slot)

    def set_room(self, uint32_t slot, uint32_t room):
        """Tell how many descriptors fit into the slot's ring."""
        self.check_slot(slot)
        self.slots[slot].room = min(room, self.slots[slot].ring_capacity)

    def forecast(self, uint32_t stage, uint64_t now):
        """ns that the stage would need for a task that arrived now; 0: the task need not be expected to wait."""
        self.check_stage(stage)
        return stage_forecast(&self.b, stage, now)

    def deadline(self, uint64_t now):
        """ns, when to call `reclaim` and `next_batch` if nothing happens before, or None."""
        cdef uint64_t at = batcher_deadline(&self.b, now)
        return None if at == <uint64_t>NEVER else at

    def start(self, uint32_t entry, uint32_t sequence):
        """The slot's side: True when the caller has started that dispatch."""
        if entry >= self.b.max_tasks:
            raise ValueError("no such task")
        return word_start(&self.b.words[entry], sequence)

    def cancelled(self, uint32_t entry, uint32_t sequence):
        """The slot's side: True when no client waits for the answer of that running dispatch."""
        if entry >= self.b.max_tasks:
            raise ValueError("no such task")
        return word_cancelled(&self.b.words[entry], sequence)

    def task(self, uint32_t entry):
        """Fields of a task entry, as a dict."""
        if entry >= self.b.max_tasks:
            raise ValueError("no such task")
        return self.tasks[entry]

    def slot(self, uint32_t slot):
        """Fields of a slot, as a dict."""
        self.check_slot(slot)
        return self.slots[slot]

    def stage(self, uint32_t stage):
        """Fields of a stage, as a dict."""
        self.check_stage(stage)
        return self.stages[stage]

    def queue(self, uint32_t stage):
        """Entries in the stage's queue, oldest first."""
        self.check_stage(stage)
        return self.walk(self.stages[stage].queue.head)

    def ring(self, uint32_t slot):
        """Entries in the slot's list, in order of dispatch."""
        self.check_slot(slot)
        return self.walk(self.slots[slot].dispatched.head)

    def up(self, uint32_t stage):
        """The stage's slots that are up, in order of their last batch; new ones are at the end."""
        self.check_stage(stage)
        slots = []
        slot = self.stages[stage].up.head
        while slot != NO_INDEX:
            slots.append(slot)
            slot = self.slots[slot].link.next
        return slots

    cdef list walk(self, uint32_t entry):
        entries = []
        while entry != NO_INDEX:
            entries.append(entry)
            entry = self.tasks[entry].link.next
        return entries

    cdef uint32_t pass_on(self, uint64_t now) noexcept nogil:
        """Dispatch all batches that stage 0 has for its slots now, and answer them; return the number of tasks."""
        cdef uint32_t dispatched = 0
        cdef uint32_t size = 1
        cdef uint32_t i, slot, entry, sequence
        cdef uint64_t batch_ns
        batcher_reclaim(&self.b, now)
        while size:
            size = batcher_next_batch(&self.b, 0, now, self.entries + dispatched, &slot)
            dispatched += size
        for i in range(dispatched):
            entry = self.entries[i]
            slot = self.tasks[entry].slot
            sequence = self.tasks[entry].sequence
            word_start(&self.b.words[entry], sequence)
            batcher_complete(&self.b, slot, entry, sequence, now + 1000, &batch_ns)
            self.slots[slot].room = self.slots[slot].ring_capacity
            task_free(&self.b, entry)
        return dispatched

    def run_through(self, uint32_t tasks, uint32_t rounds):
        """Benchmark: `rounds` times, `tasks` tasks through stage 0, from new to free; returns how many got through."""
        cdef uint64_t now = 0
        cdef uint32_t done = 0
        if not 0 < tasks <= self.b.max_tasks - self.b.used:
            raise ValueError("tasks must be from 1 to the number of free entries")
        with nogil:
            for _ in range(rounds):
                for _ in range(tasks):
                    batcher_enqueue(&self.b, task_new(&self.b), 0, 1, now)
                while self.stages[0].waiting > 0 and batcher_deadline(&self.b, now) != NEVER:
                    now += 1000
                    done += self.pass_on(now)
        return done


cdef class DeadlineHeap:
    """Deadlines over memory of their own, for tests of the C functions in batcher.pyx.

    ids: from 0 to `ids` - 1. A wrong id raises ValueError, before anything is changed.
    """

    cdef Deadlines d
    cdef readonly uint32_t ids
    cdef set inside

    def __cinit__(self, uint32_t ids):
        cdef Deadline *heap = <Deadline *>calloc(ids, sizeof(Deadline))
        cdef uint32_t *places = <uint32_t *>calloc(ids, sizeof(uint32_t))
        deadlines_init(&self.d, heap, places)
        self.ids = ids
        self.inside = set()
        if heap == NULL or places == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.d.heap)
        free(self.d.places)

    def __len__(self):
        return self.d.count

    def add(self, uint32_t id, uint64_t at):
        """Put an id in, due at `at` (ns)."""
        if id >= self.ids or id in self.inside:
            raise ValueError(f"id {id} is in there already, or is not below {self.ids}")
        self.inside.add(id)
        deadlines_add(&self.d, id, at)

    def remove(self, uint32_t id):
        """Take an id out."""
        if id not in self.inside:
            raise ValueError(f"id {id} is not in there")
        self.inside.remove(id)
        deadlines_remove(&self.d, id)

    def next(self):
        """(at, id) of the first that is due, or None."""
        return (self.d.heap[0].at, self.d.heap[0].id) if self.d.count else None
