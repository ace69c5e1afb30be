# The scheduler's pure part: queues, deadlines, batches, hand-ahead and take-back. Time is an argument
# (ns of one monotonic clock); memory is given. Knows nothing of HTTP, rings or payloads.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    NO_INDEX = 0xFFFFFFFF
    NEVER = 0x7FFFFFFFFFFFFFFF        # ns: no deadline
    HAND_AHEAD_NS = 100_000           # measured work that may wait in a busy row's ring
    HAND_AHEAD_MAX_BATCH_NS = 1_000_000   # none is handed ahead when a batch takes longer
    TAKE_BACK_NS = 1_000_000          # what has not started by then is taken back

cdef enum:                            # states of a task (private to core)
    TASK_FREE = 0
    TASK_NEW = 1                      # allocated, in no queue (its body is arriving, or it is being answered)
    TASK_QUEUED = 2                   # in its stage's queue
    TASK_HANDED = 3                   # in a row's ring, perhaps started

cdef enum:                            # the task's word in shared memory: sequence << 32 | flags
    WORD_HANDED = 1                   # waits in a row's ring: the row may start it, core may take it back
    WORD_STARTED = 2                  # set by the row
    WORD_CANCELLED = 4                # set by core while it runs: nobody waits for the answer

cdef enum:                            # results of batcher_withdraw
    WITHDRAWN = 0                     # it will not run (again); state is TASK_NEW
    RUNNING = 1                       # a row has started it; it stays HANDED until the row completes it or dies

ctypedef struct Task:
    uint32_t generation               # grows when the slot is freed; never 0
    uint32_t sequence                 # dispatch sequence: grows at each hand-out and each take-back, never reset
    uint8_t state
    uint8_t tries                     # times a row died under it
    uint16_t position                 # caller's: index of the stage within its route
    uint32_t stage                    # stage whose queue or row it is in
    uint32_t row                      # HANDED: whose ring
    uint32_t batch                    # HANDED: number of its batch within the row
    uint32_t previous                 # intrusive list: stage queue when QUEUED, row list when HANDED, free list when FREE
    uint32_t next
    uint64_t queued_at                # ns, entry into the present stage's queue
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
    uint64_t charged                  # bytes charged to the memory budget
    uint32_t timer_previous           # list of deadlines
    uint32_t timer_next

ctypedef struct Stage:
    uint32_t max_batch_size
    uint64_t max_wait_ns
    uint32_t first_row                # rows first_row .. first_row + rows - 1 serve it
    uint32_t rows
    uint32_t head, tail, waiting      # queue, oldest first; how many wait
    uint32_t running                  # tasks handed to its rows

ctypedef struct Row:
    bint up                           # may get work
    uint32_t stage
    uint32_t head, tail, outstanding  # tasks handed to it and not completed or taken back, in order of hand-out
    uint32_t batch                    # number of the last batch handed to it
    uint32_t batches                  # batches outstanding
    uint32_t ring_capacity            # of its submit ring: outstanding descriptors (stale ones too) never exceed it; the caller checks the ring as well
    uint64_t busy_since               # ns: when the batch that it runs now was handed or the one before completed
    uint64_t batch_ns                 # moving average of the time a batch takes; 0: not yet measured

ctypedef struct Batcher:
    Task *tasks
    uint64_t *words                   # one a task slot, in shared memory
    uint32_t slots
    uint32_t free_head, used
    Stage *stages
    uint32_t stage_count
    Row *rows
    uint32_t row_count

# Memory is given zeroed; stages and rows are filled by the caller before (max_batch_size ... rows; stage, ring_capacity).
cdef void batcher_init(Batcher *b, Task *tasks, uint64_t *words, uint32_t slots, Stage *stages, uint32_t stage_count, Row *rows, uint32_t row_count) noexcept nogil
cdef uint32_t task_new(Batcher *b) noexcept nogil                                # slot, or NO_INDEX
cdef void task_free(Batcher *b, uint32_t slot) noexcept nogil                    # from TASK_NEW
cdef uint64_t task_id(const Batcher *b, uint32_t slot) noexcept nogil            # slot | generation << 32
cdef uint32_t task_of(const Batcher *b, uint64_t id) noexcept nogil              # slot, or NO_INDEX when that task is gone

cdef void batcher_enqueue(Batcher *b, uint32_t slot, uint32_t stage, uint64_t now) noexcept nogil   # TASK_NEW -> QUEUED
cdef int batcher_withdraw(Batcher *b, uint32_t slot) noexcept nogil              # leave the queue or the ring, O(1)
# Forms at most one batch: for an idle row, else ahead for a busy one. Marks its tasks HANDED, writes their words
# (release; pairs with the row's compare-and-swap), and says which row in *row. 0: nothing to do now.
cdef uint32_t batcher_next_batch(Batcher *b, uint32_t stage, uint64_t now, uint32_t *out, uint32_t *row) noexcept nogil
# A row's answer to (slot, sequence): HANDED -> NEW. False when it is not that row's to answer (stale, hostile).
# *batch_ns gets the batch's duration (> 0) when this was the last task of its batch, else 0.
cdef bint batcher_complete(Batcher *b, uint32_t row, uint32_t slot, uint32_t sequence, uint64_t now, uint64_t *batch_ns) noexcept nogil
cdef uint32_t batcher_take_back(Batcher *b, uint64_t now) noexcept nogil         # overdue unstarted ones go back to the front of their queue, in order; how many
cdef void batcher_row_up(Batcher *b, uint32_t row) noexcept nogil
# The row is dead: unstarted tasks go back to the front of the queue; started ones become NEW and are listed in `started`
# (at least `outstanding` entries); returns how many.
cdef uint32_t batcher_row_down(Batcher *b, uint32_t row, uint32_t *started) noexcept nogil
cdef void batcher_row_drain(Batcher *b, uint32_t row) noexcept nogil             # no new work; unstarted tasks go back to the queue
cdef uint64_t batcher_deadline(const Batcher *b, uint64_t now) noexcept nogil    # ns, when to call next_batch/take_back again if nothing happens; NEVER
# Row's side, on the shared word: true when (sequence) was waiting and is now started by the caller.
cdef bint word_start(uint64_t *word, uint32_t sequence) noexcept nogil
cdef bint word_cancelled(const uint64_t *word, uint32_t sequence) noexcept nogil
