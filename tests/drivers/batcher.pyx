"""Batcher, as Python objects: what tests and benchmarks drive, with no socket and no clock."""

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
    Row,
    Stage,
    Task,
    batcher_complete,
    batcher_deadline,
    batcher_enqueue,
    batcher_holds,
    batcher_init,
    batcher_next_batch,
    batcher_retry,
    batcher_row_down,
    batcher_row_drain,
    batcher_row_up,
    batcher_take_back,
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

    stages: (max_batch_size, max_wait_ns, number of rows) of each; rows are numbered through and down at first.
    retry: how often each stage runs a task again whose row has died under it.
    slots: tasks that it has place for. ring_capacity: descriptors, of each row. words: writable buffer of
    8 * slots zero bytes, for instance shared with another process; its own memory by default.
    All times are int nanoseconds. A wrong slot, stage, row or state raises ValueError, before anything is changed.
    """

    cdef Batcher b
    cdef Stage *stages
    cdef Row *rows
    cdef Task *tasks
    cdef uint64_t *own_words
    cdef uint32_t *slots
    cdef object shared

    def __cinit__(self, stages, uint32_t slots=256, uint32_t ring_capacity=64, words=None, uint32_t retry=0):
        cdef uint32_t row_count = sum(rows for _, _, rows in stages)
        cdef uint32_t first_row = 0
        cdef uint32_t s, i
        cdef uint64_t[::1] view
        self.stages = <Stage *>calloc(len(stages), sizeof(Stage))
        self.rows = <Row *>calloc(row_count, sizeof(Row))
        self.tasks = <Task *>calloc(slots, sizeof(Task))
        self.own_words = <uint64_t *>calloc(slots, sizeof(uint64_t))
        self.slots = <uint32_t *>calloc(slots, sizeof(uint32_t))
        if not (self.stages and self.rows and self.tasks and self.own_words and self.slots):
            raise MemoryError
        for s, (max_batch_size, max_wait_ns, rows) in enumerate(stages):
            if not 0 < max_batch_size <= ring_capacity:
                raise ValueError("max_batch_size must be from 1 to ring_capacity")
            self.stages[s].max_batch_size = max_batch_size
            self.stages[s].max_wait_ns = max_wait_ns
            self.stages[s].retry = retry
            for i in range(first_row, first_row + <uint32_t>rows):
                self.rows[i].stage = s
                self.rows[i].ring_capacity = ring_capacity
            first_row += <uint32_t>rows
        if words is not None:
            self.shared = memoryview(words).cast("B").cast("Q")
            if len(self.shared) < slots:
                raise ValueError("words must hold 8 bytes a slot")
            view = self.shared
        batcher_init(&self.b, self.tasks, self.own_words if words is None else &view[0], slots,
                     self.stages, len(stages), self.rows, row_count)

    def __dealloc__(self):
        free(self.stages)
        free(self.rows)
        free(self.tasks)
        free(self.own_words)
        free(self.slots)

    cdef int check_new(self, uint32_t slot) except -1:
        if slot >= self.b.slots or self.tasks[slot].state != TASK_NEW:
            raise ValueError("the task is not new")
        return 0

    cdef int check_used(self, uint32_t slot) except -1:
        if slot >= self.b.slots or self.tasks[slot].state == TASK_FREE:
            raise ValueError("no such task")
        return 0

    cdef int check_row(self, uint32_t row) except -1:
        if row >= self.b.row_count:
            raise ValueError("no such row")
        return 0

    cdef int check_stage(self, uint32_t stage) except -1:
        if stage >= self.b.stage_count:
            raise ValueError("no such stage")
        return 0

    def new(self):
        """Slot of a new task, or None when all are used."""
        cdef uint32_t slot = task_new(&self.b)
        return None if slot == NO_INDEX else slot

    def free(self, uint32_t slot):
        """Give up a task that is in no queue and no ring."""
        self.check_new(slot)
        task_free(&self.b, slot)

    def id(self, uint32_t slot):
        """slot | generation << 32."""
        self.check_used(slot)
        return task_id(&self.b, slot)

    def find(self, uint64_t id):
        """Slot of the task with that id, or None when it is gone."""
        cdef uint32_t slot = task_of(&self.b, id)
        return None if slot == NO_INDEX else slot

    def enqueue(self, uint32_t slot, uint32_t stage, uint64_t now):
        """Put a task that is in no queue at the end of a stage's."""
        self.check_new(slot)
        self.check_stage(stage)
        batcher_enqueue(&self.b, slot, stage, now)

    def retry(self, uint32_t slot):
        """Put a task that `row_down` has listed back into its queue, to go out alone; False: it has had its tries."""
        self.check_new(slot)
        self.check_stage(self.tasks[slot].stage)
        return batcher_retry(&self.b, slot)

    def withdraw(self, uint32_t slot):
        """True when it will not run (any more); False when a row has started it: it is marked as cancelled."""
        self.check_used(slot)
        return batcher_withdraw(&self.b, slot) == WITHDRAWN

    def next_batch(self, uint32_t stage, uint64_t now):
        """(row, [(slot, sequence), ...]) of the batch that was handed out, or None."""
        cdef uint32_t count, row = 0
        self.check_stage(stage)
        count = batcher_next_batch(&self.b, stage, now, self.slots, &row)
        if count == 0:
            return None
        return row, [(self.slots[i], self.tasks[self.slots[i]].sequence) for i in range(count)]

    def complete(self, uint32_t row, uint32_t slot, uint32_t sequence, uint64_t now):
        """None when that task is not the row's to answer; else ns of its batch when it is the last of it, else 0."""
        cdef uint64_t batch_ns = 0
        if not batcher_complete(&self.b, row, slot, sequence, now, &batch_ns):
            return None
        return batch_ns

    def holds(self, uint32_t row, uint32_t slot, uint32_t sequence):
        """Is the task that row's to answer?"""
        return batcher_holds(&self.b, row, slot, sequence)

    def take_back(self, uint64_t now):
        """Number of overdue tasks that went back to their queues."""
        return batcher_take_back(&self.b, now)

    def row_up(self, uint32_t row):
        """The row may get work; its ring is empty."""
        self.check_row(row)
        batcher_row_up(&self.b, row)

    def row_down(self, uint32_t row):
        """The row is dead; slots of the tasks that it had started."""
        self.check_row(row)
        count = batcher_row_down(&self.b, row, self.slots)
        return [self.slots[i] for i in range(count)]

    def row_drain(self, uint32_t row):
        """No new work for the row."""
        self.check_row(row)
        batcher_row_drain(&self.b, row)

    def set_room(self, uint32_t row, uint32_t room):
        """Tell how many descriptors fit into the row's ring."""
        self.check_row(row)
        self.rows[row].room = min(room, self.rows[row].ring_capacity)

    def forecast(self, uint32_t stage, uint64_t now):
        """ns that the stage would need for a task that came now; 0: no ground to expect that it must wait."""
        self.check_stage(stage)
        return stage_forecast(&self.b, stage, now)

    def deadline(self, uint64_t now):
        """ns, when to call take_back and next_batch if nothing happens before, or None."""
        cdef uint64_t at = batcher_deadline(&self.b, now)
        return None if at == <uint64_t>NEVER else at

    def start(self, uint32_t slot, uint32_t sequence):
        """The row's side: True when the caller has started that hand-out."""
        if slot >= self.b.slots:
            raise ValueError("no such task")
        return word_start(&self.b.words[slot], sequence)

    def cancelled(self, uint32_t slot, uint32_t sequence):
        """The row's side: does nobody wait for the answer of that running hand-out?"""
        if slot >= self.b.slots:
            raise ValueError("no such task")
        return word_cancelled(&self.b.words[slot], sequence)

    def task(self, uint32_t slot):
        """Fields of a task slot, as a dict."""
        if slot >= self.b.slots:
            raise ValueError("no such task")
        return self.tasks[slot]

    def row(self, uint32_t row):
        """Fields of a row, as a dict."""
        self.check_row(row)
        return self.rows[row]

    def stage(self, uint32_t stage):
        """Fields of a stage, as a dict."""
        self.check_stage(stage)
        return self.stages[stage]

    def queue(self, uint32_t stage):
        """Slots in the stage's queue, oldest first."""
        self.check_stage(stage)
        return self.walk(self.stages[stage].queue.head)

    def ring(self, uint32_t row):
        """Slots in the row's list, in order of hand-out."""
        self.check_row(row)
        return self.walk(self.rows[row].handed.head)

    def up(self, uint32_t stage):
        """The stage's rows that are up, in order of their last batch; new ones are at the end."""
        self.check_stage(stage)
        rows = []
        row = self.stages[stage].up.head
        while row != NO_INDEX:
            rows.append(row)
            row = self.rows[row].link.next
        return rows

    cdef list walk(self, uint32_t slot):
        slots = []
        while slot != NO_INDEX:
            slots.append(slot)
            slot = self.tasks[slot].link.next
        return slots

    cdef uint32_t pass_on(self, uint64_t now) noexcept nogil:
        """All batches that stage 0 has for its rows now, handed out and then answered; tasks in them."""
        cdef uint32_t handed = 0
        cdef uint32_t size = 1
        cdef uint32_t i, row, slot, sequence
        cdef uint64_t batch_ns
        batcher_take_back(&self.b, now)
        while size:
            size = batcher_next_batch(&self.b, 0, now, self.slots + handed, &row)
            handed += size
        for i in range(handed):
            slot = self.slots[i]
            row = self.tasks[slot].row
            sequence = self.tasks[slot].sequence
            word_start(&self.b.words[slot], sequence)
            batcher_complete(&self.b, row, slot, sequence, now + 1000, &batch_ns)
            self.rows[row].room = self.rows[row].ring_capacity
            task_free(&self.b, slot)
        return handed

    def run_through(self, uint32_t tasks, uint32_t rounds):
        """Benchmark: `rounds` times, `tasks` tasks through stage 0, from new to free; how many have come through."""
        cdef uint64_t now = 0
        cdef uint32_t done = 0
        if not 0 < tasks <= self.b.slots - self.b.used:
            raise ValueError("tasks must be from 1 to the number of free slots")
        with nogil:
            for _ in range(rounds):
                for _ in range(tasks):
                    batcher_enqueue(&self.b, task_new(&self.b), 0, now)
                while self.stages[0].waiting > 0 and batcher_deadline(&self.b, now) != NEVER:
                    now += 1000
                    done += self.pass_on(now)
        return done


cdef class DeadlineHeap:
    """Deadlines over memory of their own; for tests of the C functions above.

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
