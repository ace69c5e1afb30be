# How long a stage will need for a task that comes now, by what its rows have needed so far. Pure.

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._batcher cimport Batcher

# ns until it would be through, waiting included. 0 where there is no ground to expect that it must wait: fewer tasks
# wait than the rows take at once, no row is up, or none has done two batches yet. O(rows) and
# once more for each row that stands still, in the first case O(1).
cdef uint64_t stage_forecast(const Batcher *b, uint32_t stage, uint64_t now) noexcept nogil
