# The shared memory of a service: one sealed memfd, mapped by all its processes.
#
#   header | core's bell | slots | task words | acknowledged bytes | statistics | rings | pool words | data (sparse)
#
# Offsets, never pointers. Geometry is a pure function of a few sizes in the header; each process computes it once at
# attach and keeps it in private memory, so that no other process can change it later.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from mosec_cy._engine.former cimport CLOSE_REASONS
from mosec_cy._engine.pool cimport Pool
from mosec_cy._engine.ring cimport Bell, RingEnd

cdef enum:
    SLOT_STOP = 1                   # SlotShared.command: finish what is in the ring, then end
    PHASE_IDLE = 0
    PHASE_DECODE = 1
    PHASE_FORWARD = 2               # or `start`, of the task that it has taken last
    PHASE_ENCODE = 3
    PHASE_STEP = 4                  # all tasks that it has taken, and not answered, are in `step`
    HISTOGRAM_BUCKETS = 32
    STATUS_COUNT = 21               # statuses that are counted; the last one stands for all others

cdef enum:
    # Bytes of events that one stream may have under way: sent by the slot, not yet taken by the kernel. While no more
    # than STREAM_LITTLE is under way, one more event may go, whatever its size.
    STREAM_WINDOW = 1 << 20
    STREAM_LITTLE = 1 << 16

cdef inline bint stream_fits(uint64_t under_way, uint64_t n) noexcept nogil:     # n: bytes of the next event
    return under_way <= STREAM_LITTLE or n <= STREAM_WINDOW and under_way <= STREAM_WINDOW - n

# The phases that the stage's time-out limits.
cdef inline bint runs_user_code(uint32_t phase) noexcept nogil:
    return phase == PHASE_FORWARD or phase == PHASE_STEP

# Control messages between master and core, one datagram each. What a field does not carry is 0.
ctypedef struct ControlMessage:        # CONTROL_FORMAT
    uint32_t kind                      # ORDER_* or REPORT_*
    uint32_t slot
    uint32_t incarnation
    int32_t pid
    uint64_t value

cpdef enum:
    # Orders of the master.
    ORDER_SLOT_STARTED = 1          # a process, its pidfd beside the message; value: the slot whose counts it continues
    ORDER_SLOT_READY = 2
    ORDER_SLOT_DRAIN = 3
    ORDER_LISTEN = 4                   # accept from now on
    ORDER_SHUTDOWN = 5                 # value: ns, monotonic, when it ends at the latest
    # Reports of core.
    REPORT_SLOT_DEAD = 101             # drained: the slot may be started again; value: tasks that were answered 500
    REPORT_SLOT_OVERDUE = 102          # `forward` overran its time-out; value: the batch
    REPORT_SLOT_KILLED = 103           # value: the batch
    REPORT_STOPPED = 104               # no client waits any more; value: tasks that were not answered in time
    REPORT_RUNNING = 105               # core is set up and reads orders
    REPORT_SLOT_IDLE = 106             # a slot that was told to drain holds no task any more

# The entry of one slot's process. Each writer has cache lines of its own.
ctypedef struct SlotShared:
    Bell bell                      # rung by core and master; the slot sleeps on its counter
    uint64_t bell_padding[7]
    uint32_t command               # by master
    uint32_t incarnation           # by master
    uint32_t overdue               # by core: number of the batch that overran its time-out,
    uint32_t overdue_phase         # and in which phase, written before it
    uint32_t core_padding[12]
    uint32_t batch                 # by the slot: number of the batch that it works on
    uint32_t phase                 # by the slot
    uint64_t since                 # by the slot: ns, start of the phase
    uint64_t slot_padding[6]
    Bell stream_bell               # rung by core and master; threads of the slot that wait to send events sleep on it
    uint64_t stream_padding[7]

ctypedef struct Histogram:
    uint64_t buckets[HISTOGRAM_BUCKETS]    # bucket k: values <= unit * 2^k (unit: 1 ms, or 1); the last: all above
    uint64_t sum                           # ns, or the plain sum

ctypedef struct SlotStatistics:
    Histogram duration             # ns of a batch that was answered: from its dispatch, or the end of the batch before
    Histogram batch_size
    Histogram batch_duration       # ns from the entry of its oldest task into the queue to its dispatch

ctypedef struct StageStatistics:       # of a stage that batches
    uint64_t closed[CLOSE_REASONS] # batches, by the reason why they were closed
    uint64_t fixed_ns              # what was learnt of the time of a batch: ns,
    uint64_t slope_ns              # and ns a unit of cost; gauges

ctypedef struct Statistics:        # written by core only, read by master
    Histogram total                # ns, whole requests that were answered 200
    uint64_t remaining             # tasks inside
    uint64_t connections           # open now
    uint64_t charged               # bytes that core holds in blocks
    uint64_t late                  # completions for which no client waited any more

cdef class Segment:
    cdef readonly int fd
    cdef uint8_t *base
    cdef size_t size
    cdef readonly uint32_t slots
    cdef readonly uint32_t max_tasks
    cdef readonly uint32_t routes
    cdef readonly uint64_t budget  # bytes
    # Private: offsets of the parts, in bytes from the start.
    cdef uint64_t at_bell
    cdef uint64_t at_slots
    cdef uint64_t at_words
    cdef uint64_t at_acknowledged
    cdef uint64_t at_statistics
    cdef uint64_t at_slot_statistics
    cdef uint64_t at_stage_statistics  # as many as slots: there are no more stages
    cdef uint64_t at_status_counts
    cdef uint64_t at_pool_words
    cdef uint64_t at_pool_data
    cdef uint64_t *at_rings        # submit and complete, for each slot
    cdef uint32_t *capacities      # likewise
    cdef int _measure(
        self, uint32_t slots, uint32_t max_tasks, uint32_t routes, uint64_t budget, list capacities
    ) except -1
    cdef int _map(self) except -1
    cdef void _write_header(self) noexcept
    cdef Bell *core_bell(self) noexcept nogil
    cdef SlotShared *slot(self, uint32_t slot) noexcept nogil
    cdef uint64_t *words(self) noexcept nogil
    cdef uint64_t *acknowledged(self) noexcept nogil
    cdef Statistics *statistics(self) noexcept nogil
    cdef SlotStatistics *slot_statistics(self, uint32_t slot) noexcept nogil
    cdef StageStatistics *stage_statistics(self, uint32_t stage) noexcept nogil
    cdef uint64_t *status_counts(self, uint32_t route) noexcept nogil
    cdef void attach_submit(self, uint32_t slot, RingEnd *end) noexcept nogil
    cdef void attach_complete(self, uint32_t slot, RingEnd *end) noexcept nogil
    cdef uint32_t submit_capacity(self, uint32_t slot) noexcept nogil
    cdef int attach_pool(self, Pool *pool, uint32_t process) noexcept nogil

# Wakes all sleepers in the slot's process, whatever they announced: the ringer may have died before its system call.
cdef void slot_wake(SlotShared *shared) noexcept nogil
cdef uint32_t status_index(int status) noexcept nogil
cdef void histogram_add_ns(Histogram *histogram, uint64_t ns) noexcept nogil
cdef void histogram_add_count(Histogram *histogram, uint64_t value) noexcept nogil
