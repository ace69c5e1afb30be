# What the batcher knows of a row, and how long its batches take. Time is an argument.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._list cimport List, ListLink

cdef enum:
    PACE_KNOWN = 2                    # observations: the first one may have loaded and compiled what later ones find

ctypedef struct Row:
    bint up                           # may get work
    bint late                         # work was taken back from it and it has completed nothing since: last resort
    uint32_t stage
    ListLink link                     # in its stage's list of rows that are up
    List handed                       # tasks handed to it and not completed or taken back, in order of hand-out
    uint32_t outstanding              # how many are in it
    uint32_t batch                    # number of the last batch handed to it
    uint32_t batches                  # batches outstanding; the tasks of one batch are neighbours in the list
    uint32_t ring_capacity            # of its submit ring; at least its stage's max_batch_size
    # Descriptors that fit into its ring now (stale ones occupy it until the row pops them). next_batch subtracts what
    # it hands out; the caller sets it from ring_free before it calls next_batch, as seldom as it likes: an old value
    # is only too small. A late row whose ring is seen empty (room == ring_capacity) is alive and may get work again.
    uint32_t room
    uint64_t take_back_at             # ns: when to look for tasks that it has not started; NEVER
    uint64_t busy_since               # ns: when the batch that it runs now was handed or the one before completed
    uint64_t batch_ns                 # moving average of the time a batch takes; 0: not yet measured
    uint8_t observations              # that it is made of, if fewer than PACE_KNOWN
    uint64_t base_ns                  # that average before the burst
    uint64_t burst_ns                 # time of the batches that completed at one `now`, together
    uint32_t burst                    # how many they are

# The row has completed a batch that was handed to it at `handed_at`: its duration, at least 1 ns; moves the average.
# Batches that complete at one `now` are measured together.
cdef uint64_t pace_measure(Row *row, uint64_t handed_at, uint64_t now) noexcept nogil
cdef void pace_forget(Row *row) noexcept nogil       # a new process: nothing has been measured
