# Tasks and worker slots at work, in core's private memory: batches go out to workers, answers and events come back.
# The dispatcher calls HTTP by two functions, `answer` and `stream`, and the master by one, `report`.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from mosec_cy._engine.batcher cimport Batcher, Deadlines
from mosec_cy._engine.pool cimport Pool, Trimmer
from mosec_cy._engine.ring cimport RingEnd
from mosec_cy._engine.segment cimport SlotShared, SlotStatistics, StageStatistics, Statistics

cdef enum:                         # what a task costs in a stage
    COST_COUNT = 0                 # 1
    COST_BYTES = 1                 # the bytes of its payload
    COST_PREVIOUS = 2              # what the stage before has told

ctypedef struct Answer:
    int status
    const char *content_type
    size_t content_type_n
    const uint8_t *payload         # HTTP gives its block back (block_drop) when it is sent
    uint64_t payload_n
    uint32_t block                 # NO_BLOCK: the payload is static
    const char *extra              # further header lines, each with CRLF, or NULL
    size_t extra_n

cdef enum:                         # what a slot is to be woken for
    NOTIFY_WORK = 1                # work has been dispatched to it
    NOTIFY_FORCED = 2              # it is late: wake it even if its bell, which others can write, says it is awake
    NOTIFY_STREAM = 4              # something has changed for those of its threads that wait to send events

ctypedef struct Progress:          # of a slot: a change of any field is progress
    uint32_t batch                 # number of the batch that it works on,
    uint32_t phase                 # and PHASE_*, as the slot says
    uint64_t began                 # ns, when that phase or one before it began, as the slot says: a step is progress
    uint64_t taken                 # descriptors that it has taken, a count without bound
    uint64_t answered              # those that core has had from it, likewise

ctypedef struct ProgressWatch:     # what the last look at a slot has found; slot_look alone looks
    Progress seen
    uint64_t since                 # ns: since when at least it has been so, with work to do; NEVER: there was none

# Core's private half of a slot's state.
ctypedef struct SlotState:
    RingEnd submit
    RingEnd complete
    SlotShared *shared
    SlotStatistics *statistics     # of the replica in this slot
    uint64_t lessee
    uint32_t incarnation
    int32_t pid
    int pidfd                      # -1: none
    int wake_fd                    # eventfd that wakes it; -1: futex on its bell
    bint streams                   # its stage is the last one of a route that streams
    uint8_t notify                 # NOTIFY_*, or-ed
    bint given_up                  # killed, as it hangs or its memory is corrupt; or dead: core polls it no more
    bint leaving                   # gets no more work; master waits until it has finished what it had
    uint64_t check_at              # ns: when to check whether `forward` has overrun
    uint64_t kill_at               # ns: when to kill it if by then it still overruns, or hangs
    ProgressWatch progress
    uint32_t idle_batch            # batch after which the last check found it idle with lost tasks; 0: it did not
    uint32_t batch_answered        # of the batch that it is answering: tasks answered,
    uint32_t batch_succeeded       # those answered 200,
    uint64_t batch_formed          # and ns from the oldest task's entry into the queue to its dispatch

ctypedef struct ContentType:
    const char *text
    size_t n

ctypedef struct Pipeline:          # of a route; written by core's set-up
    const uint32_t *stages
    uint32_t stage_count
    bint streams                   # its last stage sends events

ctypedef struct Request:           # a request that is complete
    uint32_t connection
    uint32_t generation            # of the connection
    uint32_t route
    uint32_t flags
    uint64_t deadline
    uint32_t block                 # its body; the dispatcher owns it from now on
    uint64_t length

# Of one task, beside the batcher's half of it.
ctypedef struct TaskState:
    uint32_t route
    uint32_t position              # of its stage in the route's pipeline
    uint32_t connection            # NO_INDEX: the client has left
    uint32_t connection_generation
    uint32_t block                 # its payload: NO_BLOCK, or where it lies,
    uint32_t offset
    uint64_t length                # bytes
    uint32_t flags                 # of the descriptors that go to slots
    uint64_t arrived_at            # ns
    uint64_t deadline              # ns
    uint64_t streamed              # bytes of events that its slot has sent
    uint64_t acknowledged          # bytes of them that core has passed on to the kernel

# All tasks that are inside and all worker slots. Core sets `io`, `control` and the functions that take them.
ctypedef struct Dispatcher:
    Pool pool
    Batcher batcher
    Trimmer trimmer
    TaskState *tasks               # by the same entry as the batcher's
    SlotState *slots
    Pipeline *pipelines            # one a route
    ContentType *content_types
    uint32_t content_type_count
    uint64_t *stage_timeouts       # ns, 0: none
    uint8_t *cost_kinds            # COST_*, one for each stage
    Statistics *statistics
    SlotStatistics *slot_statistics  # one for each slot
    StageStatistics *stage_statistics  # one for each stage
    uint64_t *acknowledged         # one word for each task entry, in shared memory: as TaskState.acknowledged
    # Tasks of the batch that is dispatched, or of the slot that has died: room for all. Stays valid while clients are
    # answered: that dispatches nothing, as HTTP takes a connection's next request only in that connection's own turn.
    uint32_t *scratch
    uint64_t now                   # ns, set by the loop
    uint64_t timeout               # ns, of the whole service
    uint64_t kill_grace            # ns
    uint64_t charged               # bytes in blocks that core holds
    Deadlines deadlines            # of the tasks whose client waits; its count is the number of those tasks
    bint notify_due                # some slot is to be woken
    void *io
    bint (*answer)(void *io, uint32_t connection, uint32_t generation, const Answer *answer) noexcept nogil
    # An event for the stream that is the answer; copied. This call may close the connection and withdraw the task.
    void (*stream)(void *io, uint32_t connection, uint32_t generation, const uint8_t *event, uint64_t n) noexcept nogil
    void *control                  # reports to master
    void (*report)(void *control, uint32_t kind, uint32_t slot, uint64_t value) noexcept nogil

# ---- tasks: each ends once, with an answer or because its client has left ------------------------

cdef const char *SERVICE_TIMEOUT                                       # body of a 408 for an expired deadline

# The accounting of the blocks that core holds.
cdef void block_charge(Dispatcher *d, uint32_t block) noexcept nogil   # core has claimed it
cdef void block_drop(Dispatcher *d, uint32_t block) noexcept nogil     # core gives it up; NO_BLOCK: nothing to do
# A new task for a request that was admitted: a client waits for it from now on, until its deadline or, without one, for
# the service's time-out. Returns its id.
cdef uint64_t task_submit(Dispatcher *d, uint32_t entry, const Request *request) noexcept nogil
# `pending` bytes of a task's stream are still to be sent; the kernel has the others.
cdef void stream_acknowledge(Dispatcher *d, uint64_t id, uint64_t pending) noexcept nogil
# The task's client has left. The task goes at once if no slot has started it, else when that slot is done with it.
cdef void task_leave(Dispatcher *d, uint32_t entry) noexcept nogil
# Answers a client that waits for a task which may be running. `text` is static, or the answer is a stream.
cdef void task_fail(Dispatcher *d, uint32_t entry, int status, const uint8_t *text, uint64_t n) noexcept nogil

# ---- worker slots --------------------------------------------------------------------------------

cdef void slots_dispatch(Dispatcher *d, uint32_t stage) noexcept nogil  # dispatches what can be started now
# The life of a slot, as reported by the master and by its pidfd.
cdef void slot_started(Dispatcher *d, uint32_t slot, uint32_t incarnation, int32_t pid, int pidfd) noexcept nogil
cdef void slot_ready(Dispatcher *d, uint32_t slot, uint32_t incarnation) noexcept nogil
cdef void slot_drain(Dispatcher *d, uint32_t slot, uint32_t incarnation) noexcept nogil
cdef void slot_dead(Dispatcher *d, uint32_t slot) noexcept nogil

# ---- slots that hang -----------------------------------------------------------------------------
# One record of each slot's progress: core ends a worker by it, and tells what it could not end.

# A look at a slot at `now`: at what it does and, if it has work to do, since when at least (ns); NEVER if not.
cdef void progress_look(ProgressWatch *watch, const Progress *progress, uint64_t since, uint64_t now) noexcept nogil
# True if the last look found a slot with work that had made no progress for `limit` (ns) by `now`.
cdef bint progress_lacks(const ProgressWatch *watch, uint64_t limit, uint64_t now) noexcept nogil
# Looks at all slots of the stage. True if each of those that may work or have work should have been ended long ago,
# `margin` (ns) more than core takes for that. False without such a slot.
cdef bint stage_stalled(Dispatcher *d, uint32_t stage, uint64_t margin) noexcept nogil

# ---- round by round ------------------------------------------------------------------------------

cdef bint dispatch_has_news(const Dispatcher *d) noexcept nogil
cdef void dispatch_poll(Dispatcher *d) noexcept nogil                  # takes what the slots have completed
cdef void dispatch_notify(Dispatcher *d) noexcept nogil                # wakes the slots that are to be notified
cdef void dispatch_expire(Dispatcher *d) noexcept nogil                # all that is due at d.now
cdef uint64_t dispatch_deadline(const Dispatcher *d) noexcept nogil    # ns, when that is to be called again
