# Whether stages have workers and whether these get on, judged from what is seen of the rows. Pure: time is an argument
# (ns of one monotonic clock). Nothing is recorded while requests are served: each look compares with the one before.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    HEALTH_IDLE = 0x7FFFFFFFFFFFFFFF   # ns: a row has no work
    HEALTH_ALL_WELL = 0xFFFFFFFF       # no stage

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

# Memory is given zeroed; the caller has set `patience` of each stage.
cdef void health_init(Health *h, Vigil *vigils, uint32_t row_count, StageHealth *stages,
                      uint32_t stage_count) noexcept nogil
# A look at all rows: begin, then each row once. `busy_since`: ns, since when the row has had the work that it has now,
# as far as the caller knows; HEALTH_IDLE if it has none.
cdef void health_begin(Health *h) noexcept nogil
cdef void health_row(Health *h, uint32_t row, uint32_t stage, bint ready, uint64_t busy_since, const Pulse *pulse,
                     uint64_t now) noexcept nogil
# By the last look the first stage without a ready row, or with rows of which none gets on; HEALTH_ALL_WELL.
cdef uint32_t health_lacking(const Health *h) noexcept nogil
cdef uint32_t health_stalled(const Health *h) noexcept nogil
