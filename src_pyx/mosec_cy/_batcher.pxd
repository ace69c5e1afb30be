# The scheduler's pure part: queues, deadlines, batches, hand-ahead and take-back. Time is an argument
# (ns of one monotonic clock); memory is given. Knows nothing of HTTP, rings or payloads.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from mosec_cy._list cimport NO_INDEX, List, ListLink
from mosec_cy._pace cimport Row
from mosec_cy._word cimport WORD_CANCELLED, WORD_HANDED, WORD_STARTED, word_cancelled, word_start

cdef enum:
    NEVER = 0x7FFFFFFFFFFFFFFF        # ns: no deadline
    HAND_AHEAD_NS = 100_000           # measured work that may wait in a busy row's ring
    HAND_AHEAD_MAX_BATCH_NS = 1_000_000   # none is handed ahead when a batch takes longer
    TAKE_BACK_NS = 1_000_000          # what has not started by then is taken back

cdef enum:                            # states of a task (private to core)
    TASK_FREE = 0
    TASK_NEW = 1                      # allocated, in no queue (it is being admitted, or answered)
    TASK_QUEUED = 2                   # in its stage's queue
    TASK_HANDED = 3                   # in a row's ring, perhaps started

cdef enum:                            # results of batcher_withdraw
    WITHDRAWN = 0                     # it will not run (again); state is TASK_NEW
    RUNNING = 1                       # a row has started it; it stays HANDED until the row completes it or dies

ctypedef struct Task:
    uint32_t generation               # grows when the slot is freed; never 0
    uint32_t sequence                 # dispatch sequence: grows at each hand-out and each take-back, never reset
    uint8_t state
    uint8_t tries                     # times a row died under it in this stage; if any, it goes out alone
    uint16_t position                 # caller's: index of the stage within its route
    uint32_t stage                    # stage whose queue or row it is in
    uint32_t row                      # HANDED: whose ring
    uint32_t batch                    # HANDED: number of its batch within the row
    ListLink link                     # in the list of where it is: stage's queue, row's list; free list (next only)
    uint64_t queued_at                # ns, entry into the present stage's queue
    uint64_t turn                     # number of that entry: queues are sorted by it; what comes back finds its place
    uint64_t handed_at                # ns
    # Caller's: opaque here.
    uint32_t route
    uint32_t connection               # NO_INDEX: the client has left
    uint32_t connection_generation
    uint32_t block
    uint32_t offset
    uint32_t flags
    uint64_t length
    uint64_t arrived_at               # ns
    uint64_t deadline                 # ns
    bint has_own_deadline             # its client has set it; else it is the service's, as in the list
    uint64_t streamed                 # bytes of events that its row has sent
    uint64_t acknowledged             # bytes of them that are with the client's kernel
    uint32_t timer_previous           # list of deadlines, of those without one of their own
    uint32_t timer_next

ctypedef struct Stage:
    uint32_t max_batch_size
    uint64_t max_wait_ns
    List up                           # its rows that are up, in order of their last batch; new ones at the end
    uint32_t rows                     # how many those are
    uint32_t retry                    # how often a task is run again whose row has died under it
    List queue                        # oldest first
    uint32_t waiting                  # how many are in it
    uint32_t lone                     # how many of them go out alone
    uint32_t running                  # tasks handed to its rows

ctypedef struct Batcher:
    Task *tasks
    uint64_t *words                   # one a task slot, in shared memory
    uint32_t slots
    uint32_t free_head                # LIFO of freed slots
    uint32_t fresh                    # slots from here on have never been used nor touched
    uint32_t used                     # slots that hold a task
    uint64_t turns                    # entries into queues so far
    Stage *stages
    uint32_t stage_count
    Row *rows
    uint32_t row_count

# Memory is given zeroed; stages and rows are filled by the caller before (max_batch_size, max_wait_ns; stage,
# ring_capacity). Rows are down until batcher_row_up.
cdef void batcher_init(Batcher *b, Task *tasks, uint64_t *words, uint32_t slots, Stage *stages, uint32_t stage_count,
                       Row *rows, uint32_t row_count) noexcept nogil
cdef uint32_t task_new(Batcher *b) noexcept nogil    # slot, or NO_INDEX; the caller's fields are as they were left
cdef void task_free(Batcher *b, uint32_t slot) noexcept nogil                   # from TASK_NEW
cdef uint64_t task_id(const Batcher *b, uint32_t slot) noexcept nogil           # slot | generation << 32
cdef uint32_t task_of(const Batcher *b, uint64_t id) noexcept nogil            # slot, or NO_INDEX when the task is gone

# TASK_NEW -> TASK_QUEUED, at the end of the stage's queue; nobody has died under it there.
cdef void batcher_enqueue(Batcher *b, uint32_t slot, uint32_t stage, uint64_t now) noexcept nogil
# TASK_NEW -> TASK_QUEUED, where it was in the queue of its stage, for a batch of its own: of those that row_down has
# listed. False when the stage has run it as often as it may.
cdef bint batcher_retry(Batcher *b, uint32_t slot) noexcept nogil
# Leave the queue or the ring, O(1): WITHDRAWN or RUNNING.
cdef int batcher_withdraw(Batcher *b, uint32_t slot) noexcept nogil

# Forms at most one batch. It closes at max_batch_size tasks, or where a task that goes out alone begins or follows,
# or when its oldest has waited max_wait_ns, and goes to the idle row that was handed one the longest ago, so that all
# stay warm (or has come up since); with none idle, ahead to the busy one with the fewest batches, provided that a batch
# takes it at most HAND_AHEAD_MAX_BATCH_NS, that the running one has not exceeded that, and that the work then waiting
# in its ring is at most HAND_AHEAD_NS or a single batch; last, to an idle row that is late. It always fits into `room`.
# Marks its tasks HANDED, writes their words (release; pairs with the row's compare-and-swap), lists the slots, oldest
# first, in `out` (max_batch_size entries) and says which row in *row. 0: nothing to do now; else call again.
cdef uint32_t batcher_next_batch(Batcher *b, uint32_t stage, uint64_t now, uint32_t *out, uint32_t *row) noexcept nogil
# True when (slot, sequence) is that row's to answer; any numbers may be asked for.
cdef bint batcher_holds(const Batcher *b, uint32_t row, uint32_t slot, uint32_t sequence) noexcept nogil
# A row's answer to (slot, sequence): HANDED -> NEW. False when it is not that row's to answer (stale, hostile).
# *batch_ns gets the batch's duration (> 0) when this was the last task of its batch, else 0. Completions found in one
# look at the ring should be given one `now`: they are measured together (the first has the time, the rest 1 ns).
cdef bint batcher_complete(Batcher *b, uint32_t row, uint32_t slot, uint32_t sequence, uint64_t now,
                           uint64_t *batch_ns) noexcept nogil
# What was handed out TAKE_BACK_NS ago and not started goes back to its place in the queue, when another row of the
# stage can take work at once (otherwise it is as well off in the ring); how many. O(stages + rows) while nothing is
# overdue: call it in each round before next_batch.
cdef uint32_t batcher_take_back(Batcher *b, uint64_t now) noexcept nogil
# A new process with an empty ring.
cdef void batcher_row_up(Batcher *b, uint32_t row) noexcept nogil
# The row is dead: unstarted tasks go back to the front of the queue; started ones become NEW, `tries` grown, and are
# listed in `started` (at least `outstanding` entries); returns how many.
cdef uint32_t batcher_row_down(Batcher *b, uint32_t row, uint32_t *started) noexcept nogil
# No new work; unstarted tasks go back to the queue.
cdef void batcher_row_drain(Batcher *b, uint32_t row) noexcept nogil
# ns, when to call take_back and next_batch again if nothing happens; NEVER. Not before `now`, and
# later than it once take_back(now) has been called and then next_batch(now) of each stage until 0. O(stages + rows).
cdef uint64_t batcher_deadline(const Batcher *b, uint64_t now) noexcept nogil
