# Queues, batches, dispatch ahead, reclaim, forecast and deadlines. Pure: time is an argument (ns of one monotonic
# clock), memory is given. Knows nothing of HTTP, rings or payloads.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._engine.former cimport Former
from mosec_cy._engine.list cimport NO_INDEX, List, ListLink

# ---- slots and their pace ------------------------------------------------------------------------
# A worker slot as the batcher sees it, with a moving average of how long its batches take.

cdef enum:
    PACE_KNOWN = 2                    # observations needed; the first one may include loading and compilation

ctypedef struct Slot:
    bint up                           # may get work
    bint late                         # work was reclaimed from it and it has completed nothing since: last resort
    uint32_t stage
    ListLink link                     # in its stage's list of slots that are up
    List dispatched                   # tasks dispatched to it and not completed or reclaimed, in order of dispatch
    uint32_t outstanding              # tasks in that list
    uint32_t batch                    # number of the last batch dispatched to it
    uint32_t batches                  # batches outstanding; the tasks of one batch are neighbours in the list
    uint32_t ring_capacity            # of its submit ring; at least its stage's max_batch_size
    # Descriptors that fit into its ring now (stale ones occupy it until the slot pops them). batcher_next_batch
    # subtracts what it dispatches; the caller sets it from ring_free before that call, as seldom as it likes: an old
    # value is only too small. A late slot whose ring is seen empty (room == ring_capacity) is alive and may get work
    # again.
    uint32_t room
    uint64_t reclaim_at               # ns: when to look for tasks that it has not started; NEVER
    uint64_t busy_since               # ns: when the batch that it runs now was dispatched or the one before completed
    uint64_t batch_ns                 # moving average of the time a batch takes; 0: not yet measured
    uint8_t observations              # observations behind that average, counted up to PACE_KNOWN
    uint64_t base_ns                  # that average before the burst
    uint64_t burst_ns                 # time of the batches that completed at one `now`, together
    uint32_t burst                    # number of those batches
    # Of an automatic stage or one with costs: batches that completed at one `now`, which teach their mean together.
    uint32_t taught                   # number of them,
    double taught_cost                # what they cost,
    double taught_ns                  # and their time; 0: nothing can be learnt from it
    uint32_t answered                 # tasks answered of the batch that it is answering,
    uint64_t answered_cost            # what they cost together,
    uint32_t answered_most            # and the largest cost among them

# The slot has completed a batch that was dispatched to it at `dispatched_at`. Returns the batch's duration, at least
# 1 ns, and moves the average. Batches that complete at one `now` are measured together.
cdef uint64_t pace_measure(Slot *slot, uint64_t dispatched_at, uint64_t now) noexcept nogil
cdef void pace_forget(Slot *slot) noexcept nogil       # a new process: nothing has been measured

cdef enum:
    AHEAD_NS = 100_000           # measured work that may wait in a busy slot's ring
    AHEAD_MAX_BATCH_NS = 1_000_000   # none is dispatched ahead when a batch takes longer
    RECLAIM_NS = 1_000_000       # tasks that are not started by then are reclaimed

cdef enum:                            # states of a task (private to core)
    TASK_FREE = 0
    TASK_NEW = 1                      # allocated, in no queue (it is being admitted, or answered)
    TASK_QUEUED = 2                   # in its stage's queue
    TASK_DISPATCHED = 3               # in a slot's ring, perhaps started

cdef enum:                            # results of batcher_withdraw
    WITHDRAWN = 0                     # it will not run (again); state is TASK_NEW
    RUNNING = 1                       # a slot has started it: TASK_DISPATCHED until the slot completes it or dies

ctypedef struct Task:
    uint32_t generation               # grows when the entry is freed; never 0
    uint32_t sequence                 # dispatch sequence: grows at each dispatch and each reclaim, never reset
    uint8_t state
    uint8_t tries                     # times a slot died while running it in this stage; if any, it is dispatched alone
    uint32_t stage                    # stage whose queue or slot it is in
    uint32_t slot                     # TASK_DISPATCHED: the slot whose ring it is in
    uint32_t batch                    # TASK_DISPATCHED: number of its batch within the slot
    ListLink link                     # in the list that holds it: stage's queue, slot's list; free list (next only)
    uint64_t queued_at                # ns, entry into the present stage's queue
    uint64_t turn                     # number of that entry: queues are sorted by it; what is reclaimed finds its place
    uint64_t dispatched_at            # ns
    uint32_t cost                     # in its present stage; at least 1
    ListLink mates                    # TASK_QUEUED in a stage with costs: in its class's list

cdef enum:
    COST_CLASSES = 64

ctypedef struct CostClass:
    List tasks                        # oldest first
    uint32_t count

ctypedef struct Stage:
    uint32_t max_batch_size
    uint64_t max_wait_ns
    List up                           # its slots that are up, in order of their last batch; new ones at the end
    uint32_t slots                    # length of that list
    uint32_t retry                    # times a task may be run again after its slot died while running it
    List queue                        # oldest first
    uint32_t waiting                  # length of the queue
    uint32_t lone                     # of these: tasks that are dispatched alone
    uint32_t running                  # tasks dispatched to its slots
    bint joins                        # its slots run one batch without end, which tasks join and leave one by one
    bint learns                       # automatic or costed: its former is told of batches; set by batcher_init
    bint costed                       # tasks have costs, and those of like cost go together
    bint padded                       # a batch costs its number of tasks times the largest cost, not their sum
    uint64_t max_batch_cost           # a task that costs more goes alone; NEVER: no limit
    uint64_t waiting_cost             # costs of the queue
    uint64_t used_classes             # bit k: classes[k] is not empty
    CostClass[COST_CLASSES] classes   # tasks of the queue by cost, two classes an octave
    bint automatic                    # batches close as `former` says, not by count and wait alone
    uint32_t target                   # automatic: the size that batcher_next_batch aimed at last
    # Automatic: what batcher_next_batch found last: when the batch closes (ns; NEVER: no slot can take it, or none but
    # busy ones that are to get larger ones), and the size that it looked for a slot for.
    uint64_t closes_at
    uint32_t asked
    uint32_t closed_by                # CLOSED_*: why its last batch was closed
    Former former

ctypedef struct Batcher:
    Task *tasks
    uint64_t *words                   # one a task entry, in shared memory
    uint32_t max_tasks
    uint32_t free_head                # LIFO of freed entries
    uint32_t fresh                    # entries from here on have never been used nor touched
    uint32_t used                     # entries that hold a task
    uint64_t turns                    # entries into queues so far
    Stage *stages
    uint32_t stage_count
    Slot *slots
    uint32_t slot_count

# Memory is given zeroed; before the call the caller fills in the stages (max_batch_size, max_wait_ns, max_batch_cost,
# costed, padded, automatic, joins) and the slots (stage, ring_capacity). Slots are down until batcher_slot_up.
cdef void batcher_init(Batcher *b, Task *tasks, uint64_t *words, uint32_t max_tasks, Stage *stages,
                       uint32_t stage_count, Slot *slots, uint32_t slot_count) noexcept nogil
cdef uint32_t task_new(Batcher *b) noexcept nogil    # entry, or NO_INDEX: the table is full
cdef void task_free(Batcher *b, uint32_t entry) noexcept nogil                   # from TASK_NEW
cdef uint64_t task_id(const Batcher *b, uint32_t entry) noexcept nogil           # entry | generation << 32
cdef uint32_t task_of(const Batcher *b, uint64_t id) noexcept nogil           # entry, or NO_INDEX when the task is gone

# TASK_NEW -> TASK_QUEUED, at the end of the stage's queue, with `tries` 0. `cost`: in a stage with costs.
cdef void batcher_enqueue(Batcher *b, uint32_t entry, uint32_t stage, uint32_t cost, uint64_t now) noexcept nogil
# TASK_NEW -> TASK_QUEUED, at its old place in its stage's queue and for a batch of its own: for tasks that
# batcher_slot_down has listed. False when the stage has run the task as often as it may.
cdef bint batcher_retry(Batcher *b, uint32_t entry) noexcept nogil
# Takes the task out of its queue or ring, O(1): WITHDRAWN or RUNNING.
cdef int batcher_withdraw(Batcher *b, uint32_t entry) noexcept nogil

# Forms at most one batch. It closes at max_batch_size tasks, or before or after a task that is dispatched alone, or
# when its oldest task has waited max_wait_ns, or as the former of an automatic stage says. It goes to the idle slot
# whose last batch (or start) is the longest ago, so that all slots stay warm. With no slot idle it goes ahead to the
# busy one with the fewest batches, provided that a batch takes that slot at most AHEAD_MAX_BATCH_NS, that the running
# one has not exceeded that, and that the work then waiting in its ring is at most AHEAD_NS or a single batch; last, to
# an idle slot that is late. It always fits into `room`. Marks its tasks TASK_DISPATCHED, writes their words (release;
# pairs with the slot's compare-and-swap), lists the entries in `out` (max_batch_size entries) and
# returns the slot in *slot. 0: nothing to do now; else call again.
cdef uint32_t batcher_next_batch(Batcher *b, uint32_t stage, uint64_t now, uint32_t *out, uint32_t *slot) noexcept nogil
# Of a stage that joins, each task is a batch of its own, dispatched at once: to the slot with the fewest outstanding,
# and of those the one whose last task is the longest ago. A slot never has more than max_batch_size outstanding.
# True when that slot may answer (entry, sequence); any numbers may be passed.
cdef bint batcher_holds(const Batcher *b, uint32_t slot, uint32_t entry, uint32_t sequence) noexcept nogil
# A slot's answer to (entry, sequence): TASK_DISPATCHED -> TASK_NEW. False when that slot may not answer it (stale,
# hostile). *batch_ns gets the batch's duration (> 0) when this was the last task of its batch, else 0. Completions that
# one look at the ring finds should get one `now`: they are measured together (the first has the time, the rest 1 ns).
cdef bint batcher_complete(Batcher *b, uint32_t slot, uint32_t entry, uint32_t sequence, uint64_t now,
                           uint64_t *batch_ns) noexcept nogil
# Tasks that were dispatched RECLAIM_NS ago and are not started go back to their places in the queue, when another slot
# of the stage can take work at once (otherwise leaving the ring gains nothing). Returns how many. O(stages + slots)
# while nothing is overdue: call it in each round before batcher_next_batch.
cdef uint32_t batcher_reclaim(Batcher *b, uint64_t now) noexcept nogil
# A new process with an empty ring.
cdef void batcher_slot_up(Batcher *b, uint32_t slot) noexcept nogil
# The slot is dead: unstarted tasks go back to their places in the queue; started ones become TASK_NEW with `tries`
# grown, and are listed in `started` (at least `outstanding` entries). Returns how many.
cdef uint32_t batcher_slot_down(Batcher *b, uint32_t slot, uint32_t *started) noexcept nogil
# The slot gets no new work; its unstarted tasks go back to the queue.
cdef void batcher_slot_drain(Batcher *b, uint32_t slot) noexcept nogil
# ns, when to call batcher_reclaim and batcher_next_batch again if nothing happens; NEVER. Not before `now`, and later
# than it once batcher_reclaim(now) has been called and then batcher_next_batch(now) of each stage until 0.
# O(stages + slots).
cdef uint64_t batcher_deadline(const Batcher *b, uint64_t now) noexcept nogil

# ---- forecast ------------------------------------------------------------------------------------
# How long a stage will need for a task that arrives now, estimated from the batches that its slots have done. Pure.
# Of a stage that joins it is the time that a task stays which is measured; max_batch_size of them stay at a time.

# False: the forecast is 0.
cdef inline bint stage_is_full(const Stage *stage) noexcept nogil:
    if stage.waiting > stage.slots * stage.max_batch_size:
        return True
    return stage.costed and stage.slots > 0 and stage.waiting_cost // stage.slots > stage.max_batch_cost

# ns until that task would be completed, waiting included. 0 where the task need not be expected to wait: fewer tasks
# wait than the slots take at once, no slot is up, or no slot has done two batches yet. O(slots), and once more for each
# slot that stands still; in the first case O(1).
cdef uint64_t stage_forecast(const Batcher *b, uint32_t stage, uint64_t now) noexcept nogil

# ---- deadlines -----------------------------------------------------------------------------------
# Deadlines of things with small numbers: an indexed binary heap (Williams 1964). Pure: memory and time are arguments.

ctypedef struct Deadline:
    uint64_t at                       # ns
    uint32_t id

ctypedef struct Deadlines:
    Deadline *heap                    # caller's: as many entries as there are ids; heap[0] is the next one due
    uint32_t *places                  # caller's: [id] index in the heap, defined while the id is in it
    uint32_t count

# Neither array is read before it is written: zeroed pages of large ones stay untouched until they are needed.
cdef void deadlines_init(Deadlines *d, Deadline *heap, uint32_t *places) noexcept nogil
cdef void deadlines_add(Deadlines *d, uint32_t id, uint64_t at) noexcept nogil       # an id that is not in there
cdef void deadlines_remove(Deadlines *d, uint32_t id) noexcept nogil                 # one that is; both O(log count)
