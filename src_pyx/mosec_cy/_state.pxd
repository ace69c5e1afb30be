# What core knows of tasks and rows, in its private memory: declarations only.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from mosec_cy._batcher cimport Batcher
from mosec_cy._deadlines cimport Deadlines
from mosec_cy._health cimport Health
from mosec_cy._http1_service cimport Answer
from mosec_cy._pool cimport Pool
from mosec_cy._ring cimport RingEnd
from mosec_cy._router cimport Route
from mosec_cy._segment cimport RowShared, RowStatistics, Statistics
from mosec_cy._trimmer cimport Trimmer

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
