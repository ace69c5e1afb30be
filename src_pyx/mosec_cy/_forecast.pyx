"""How long a stage will need for a task that comes now.

While a queue is long, batches are full. So the rows that are up take max_batch_size tasks each, again and again, each
in the time that its batches have taken lately (the moving average of the batcher), or in which it has already been at
work on the present one, where that is longer: a row that has come to a halt is noticed at once. The first batch of a
process says nothing: who refused others by it would hardly ever see the second.
"""

from mosec_cy._batcher cimport Row, Stage
from mosec_cy._pace cimport PACE_KNOWN

cdef enum:
    LONGEST = 0x20_0000_0000_0000          # ns, 104 days; sums of as many as there are stages do not overflow


cdef uint64_t stage_forecast(const Batcher *b, uint32_t stage, uint64_t now) noexcept nogil:
    cdef const Stage *of = &b.stages[stage]
    cdef const Row *row
    cdef uint64_t took
    cdef uint64_t longest = 0
    cdef double pace = 0                   # batches a ns, of the rows that have been measured
    cdef uint32_t i
    cdef uint32_t up = 0
    cdef uint32_t measured = 0
    if of.waiting <= of.rows * of.max_batch_size:
        return 0
    for i in range(of.first_row, of.first_row + of.rows):
        row = &b.rows[i]
        up += row.up
        if row.up and row.observations == PACE_KNOWN:
            took = row.batch_ns
            if row.outstanding and row.busy_since + took < now:
                took = now - row.busy_since
            pace += 1.0 / <double>took
            longest = max(longest, took)
            measured += 1
    if measured == 0:
        return 0
    pace *= <double>up / <double>measured  # the others, new processes, will be like these
    return <uint64_t>min((of.waiting // of.max_batch_size + 1) / pace + <double>longest, <double>LONGEST)
