# How long a batch is held open and how many tasks it takes, learnt from a stage's own arrivals and batches: what
# docs/batching.md derives. Pure: time is an argument (ns of one monotonic clock). The batcher reports what happens, and
# asks before it dispatches.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    GAP_ROWS = 16                     # numbers of clients that are expected back, by their length in bits
    GAP_BINS = 22                     # gaps between arrivals, in powers of two
    GAP_FINEST_NS = 2048              # upper edge of the first bin; the last one's is 4.3 s

cdef enum:                            # reasons: why a batch was closed
    CLOSED_FULL = 0                   # max_batch_size
    CLOSED_COST = 1                   # max_batch_cost, or the others cost too much more or less
    CLOSED_TARGET = 2                 # the size that keeps up with the load, or that holds the latency
    CLOSED_NO_GAIN = 3                # another task would not have come soon enough to gain by it
    CLOSED_WAIT = 4                   # max_wait_time
    CLOSE_REASONS = 5

# Time of a batch = fixed + slope * cost, by least squares over the latest batches. Sums decay with each batch.
ctypedef struct ServiceTime:
    double weight                     # sums of 1,
    double x                          # cost,
    double y                          # ns,
    double xx                         # cost squared,
    double xy                         # and their product
    double fixed                      # ns a batch; 0: not known
    double slope                      # ns a unit of cost

# How soon the next task came, of the latest in one situation: decayed counts of gaps.
ctypedef struct Gaps:
    double[GAP_BINS] counts
    double total                      # of all bins, and of gaps beyond the last
    double newest                     # what the next gap counts: grows, which makes older ones count less

ctypedef struct Former:
    uint32_t max_batch_size
    uint64_t max_wait_ns              # from a task's entry into the queue; NEVER: no limit
    ServiceTime time
    double mean_cost                  # of a task, without padding: else padding would admit more of it
    Gaps[GAP_ROWS] gaps
    uint32_t back                     # answered since `turned_at` and replaced by no arrival yet,
    uint32_t back_before              # and in the turn before that
    uint64_t turned_at                # ns
    uint64_t event_at                 # ns, last arrival or answer
    bint missed                       # a batch was held since then, and nothing came: that gap is counted already
    # Arrivals while there was work, and how long that was: until the last batch ended, decayed, and since.
    double arrivals
    double busy_ns
    uint32_t came
    uint64_t busy_from                # ns

ctypedef struct Situation:            # when a replica can take a batch and tasks wait
    uint64_t now
    uint32_t waiting                  # tasks, at least 1
    uint64_t oldest                   # ns, when the first of them entered the queue
    uint32_t replicas                 # all,
    uint32_t idle                     # and those without work; 0: a busy one may take a batch ahead
    uint64_t free_in                  # ns until the next of the others should be done; NEVER: there is none

ctypedef struct Formation:
    uint32_t size                     # most tasks for the batch
    uint64_t closes_at                # ns; not later than now: it goes
    uint32_t reason                   # if it goes now

cdef void former_init(Former *f, uint32_t max_batch_size, uint64_t max_wait_ns) noexcept nogil
# A task came; `busy`: others wait or run.
cdef void former_arrived(Former *f, bint busy, uint64_t now) noexcept nogil
cdef void former_answered(Former *f, uint64_t now) noexcept nogil          # a task was answered
# All of a batch of `count` tasks are answered, whose costs add up to `cost`.
cdef void former_completed(Former *f, uint32_t count, double cost, uint64_t now) noexcept nogil
cdef void former_learn(Former *f, double cost, double ns) noexcept nogil   # a batch of that cost took so long (ns)
cdef void former_form(Former *f, const Situation *s, Formation *formation) noexcept nogil

cdef inline double former_time(const Former *f, double cost) noexcept nogil:
    """ns that a batch of that cost should take; 0: not known yet."""
    return f.time.fixed + f.time.slope * cost
