# What core knows of tasks and rows, in its private memory: declarations only.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from mosec_cy._engine.batcher cimport Batcher, Deadlines
from mosec_cy._engine.http_request cimport HttpMethod
from mosec_cy._engine.pool cimport Pool, Trimmer
from mosec_cy._engine.ring cimport Descriptor, RingEnd
from mosec_cy._engine.segment cimport RowShared, RowStatistics, Statistics

ctypedef struct Answer:
    int status
    const char *content_type
    size_t content_type_n
    const uint8_t *payload         # the service keeps it until `released`
    uint64_t payload_n
    uint32_t block                 # passed to `released`; NO_BLOCK: static
    const char *extra              # further header lines, each with CRLF, or NULL
    size_t extra_n

cdef enum Probe:               # what core answers by itself
    PROBE_ALIVE                # the service runs, as Mosec says it
    PROBE_LIVE                 # and gets on with its work
    PROBE_READY                # and each stage has a worker

ctypedef struct Route:
    const char *path
    size_t path_n
    HttpMethod method          # METHOD_POST, or METHOD_GET (HEAD is then allowed too)
    bint prefix                # also every path below it
    const uint32_t *stages
    uint32_t stage_count       # 0: core answers it by itself, see `probe`
    Probe probe
    bint streams               # its last stage sends events
    const char *allow          # the Allow header's line

# What shows that a row does something: whatever of it changes counts as progress.
ctypedef struct Pulse:
    uint32_t incarnation
    uint64_t taken                     # tasks that it has taken, a count without bound
    uint64_t answered                  # likewise

ctypedef struct Vigil:                 # over one row
    uint64_t looked_at                 # ns: the last look,
    Pulse pulse                        # what it saw,
    uint64_t since                     # ns: and since when it has been so while there was work; HEALTH_IDLE

ctypedef struct StageHealth:
    uint64_t patience                  # ns without progress, after which a row that has work counts as stuck
    uint32_t ready                     # of its rows: those that may get work,
    uint32_t watched                   # those that may get work or have some,
    uint32_t stuck                     # and of these the ones that do not get on

ctypedef struct Health:
    Vigil *vigils                      # one a row
    StageHealth *stages
    uint32_t row_count
    uint32_t stage_count

# Core's private half of a row.
ctypedef struct Link:
    RingEnd submit
    RingEnd complete
    RowShared *shared
    RowStatistics *statistics      # of the replica that it is
    uint64_t lessee
    uint32_t incarnation
    int32_t pid
    int pidfd                      # -1: none
    int wake_fd                    # eventfd that wakes it; -1: futex on its bell
    bint streams                   # its stage is the last one of a route that streams
    bint to_stir                   # something has changed for those who wait in it to send events
    bint to_wake                   # was handed something since its bell was rung
    bint to_rouse                  # is late: to be woken even if its bell says that it is awake, which others can write
    bint given_up                  # its memory is spoilt or it hangs: killed; or it is dead: no more listened to
    bint leaving                   # gets no more work; master waits until it has finished what it had
    uint64_t check_at              # ns: look whether `forward` has overrun
    uint64_t kill_at               # ns: it did, and does not give way, or it hangs in what it did when core looked
    uint32_t seen_batch            # at the last look: what it did,
    uint32_t seen_phase
    uint64_t seen_answers          # how much it had answered in its life,
    uint64_t seen_since            # and since when at least; ns, NEVER: nothing was seen
    uint32_t idle_batch            # at the last check it idled after this batch, with tasks that it had lost; 0: not so
    uint32_t batch_answered        # of the batch that it is answering: tasks,
    uint32_t batch_succeeded       # those with 200,
    uint64_t batch_formed          # and ns from the entry of the oldest into the queue until it was handed out

ctypedef struct ContentType:
    const char *text
    size_t n

ctypedef struct Service:
    Pool pool
    Batcher batcher
    Trimmer trimmer
    Link *links
    Route *routes
    uint32_t route_count
    uint32_t counted_routes        # the first ones; all others are counted together, with what matched none
    ContentType *content_types
    uint32_t content_type_count
    uint64_t *stage_timeouts       # ns, 0: none
    Statistics *statistics
    RowStatistics *row_statistics  # one each row
    uint64_t *status_counts        # [route][STATUS_COUNT]
    uint64_t *acknowledged         # a word each task slot, in shared memory: as Task.acknowledged
    uint32_t *scratch              # room for all tasks: as many may one row have started
    uint64_t now                   # ns, set by the loop
    uint64_t timeout               # ns, of the whole service
    uint64_t kill_grace            # ns
    uint32_t capacity              # tasks that may wait for a first stage
    uint64_t charged               # bytes in blocks that core holds
    uint64_t charge_limit          # bytes: half of the budget
    uint32_t timer_head            # tasks by deadline, of those that have the service's time-out;
    uint32_t timer_tail
    Deadlines deadlines            # and of those with one of their own
    char[32] retry_line            # the Retry-After line of the latest refusal
    uint32_t inside                # tasks whose client waits
    uint32_t codings               # HttpCoding, or-ed: what rows decode and encode; 0: content codings are ignored
    const char *codings_text       # what a 415 says of them,
    const char *codings_line       # and its Accept-Encoding line
    bint draining
    bint wake_due                  # some row is to be woken
    Health health
    const char **lacking_texts     # one a stage: it has no ready worker; none of its workers gets on
    const char **stalled_texts
    void *io
    bint (*answer)(void *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil
    # An event for the stream that is the answer; copied. The connection may be closed by this, the task withdrawn.
    void (*stream)(void *io, uint32_t slot, uint32_t generation, const uint8_t *event, uint64_t n) noexcept nogil
    void *control                  # reports to master
    void (*report)(void *control, uint32_t kind, uint32_t row, uint64_t value) noexcept nogil

cdef enum:                         # reports to master (and the numbers of the control messages)
    REPORT_ROW_DEAD = 101
    REPORT_ROW_OVERDUE = 102
    REPORT_ROW_KILLED = 103
    REPORT_STOPPED = 104
    REPORT_RUNNING = 105           # set up: orders are heard
    REPORT_ROW_IDLE = 106

# ---- tasks ---------------------------------------------------------------------------------------
# A task between its acceptance and its answer: its payload's block, its time-out, its client.

cdef const char *SERVICE_TIMEOUT                                       # what a 408 for a deadline says

# The books of the blocks that core holds.
cdef void block_charge(Service *s, uint32_t block) noexcept nogil      # core has claimed it
cdef void block_drop(Service *s, uint32_t block) noexcept nogil        # core gives it up; NO_BLOCK: nothing to do
# A client waits for it from now on, until `deadline` (ns), or if that is 0 for the service's time-out.
cdef void task_admit(Service *s, uint32_t slot, uint64_t deadline) noexcept nogil
# The answer to the client, if it still waits. The task ends; `block` (core's, or NO_BLOCK) goes with it.
cdef void task_end(Service *s, uint32_t slot, int status, uint32_t content_type, const uint8_t *payload,
                   uint64_t length, uint32_t block) noexcept nogil
cdef void task_end_text(Service *s, uint32_t slot, int status, const char *text) noexcept nogil    # `text` is static
# Nobody waits for this task any more. It goes at once if no row has started it, else when that row is done.
cdef void task_leave(Service *s, uint32_t slot) noexcept nogil
# The answer to a client that waits for a task which may be running. `text` is static, or the answer is a stream.
cdef void task_fail(Service *s, uint32_t slot, int status, const uint8_t *text, uint64_t n) noexcept nogil
cdef void task_time_out(Service *s, uint32_t slot, const char *text) noexcept nogil                # answers 408
cdef void task_expire(Service *s, uint32_t slot) noexcept nogil        # its deadline has passed: answers 408 for that
cdef void tasks_expire(Service *s) noexcept nogil                      # those that are due at s.now
cdef uint64_t tasks_deadline(const Service *s) noexcept nogil          # ns

# ---- rows at work --------------------------------------------------------------------------------
# The rows at work: batches go out to them, answers come back.

cdef void rows_dispatch(Service *s, uint32_t stage) noexcept nogil     # hands out what can be started now
cdef void row_forget_batch(Link *link) noexcept nogil                  # no batch is under way: nothing is timed
cdef void row_poll(Service *s, uint32_t row) noexcept nogil            # takes what the row has completed
cdef void row_report_idle(Service *s, uint32_t row) noexcept nogil     # a leaving one without tasks: to master, once
cdef void rows_wake(Service *s) noexcept nogil                         # wakes those that were handed something
cdef void rows_poll(Service *s) noexcept nogil                         # of each row that has news
cdef bint rows_have_news(Service *s) noexcept nogil
# No more is read from it and it is killed: its death does the rest.
cdef void row_give_up(Service *s, uint32_t row) noexcept nogil

# ---- rows that hang ------------------------------------------------------------------------------
# Rows that overrun their time, or hang.

cdef void rows_expire(Service *s) noexcept nogil                       # looks at those whose time has come at s.now
cdef uint64_t rows_deadline(const Service *s) noexcept nogil           # ns, when the next one has

# ---- streams of events ---------------------------------------------------------------------------
# Streams of events, from the rows' rings to the clients, and what is told back: how much has gone out.

# A row's event; its block is core's already, and goes. `sound`: what it says of that block is possible.
cdef void stream_event(Service *s, uint32_t row, const Descriptor *d, bint sound) noexcept nogil
cdef void stream_admit(Service *s, uint32_t slot) noexcept nogil       # before the task is first handed out
# As Http1Service.streamed; `context` is the Service.
cdef void stream_acknowledge(void *context, uint64_t id, uint64_t pending) noexcept nogil
