"""How long a row's batches take: a moving average, robust against bursts and pauses."""

from libc.stdint cimport uint64_t

cdef enum:
    MEMORY = 7    # weight of the past in the average: one batch counts 1 / (1 + MEMORY)


cdef inline uint64_t since(uint64_t now, uint64_t then) noexcept nogil:
    return now - then if now > then else 0


cdef uint64_t pace_measure(Row *row, uint64_t handed_at, uint64_t now) noexcept nogil:
    """The row has completed a batch: returns its duration (at least 1 ns) and moves the average.

    Batches that complete at one `now` are one observation (their sum over their number): taken one by one, the average
    would depend on how far into the burst it is read. An observation at most doubles the average, so that a pause
    of the row does not end hand-ahead; a thousand times slower regime is still followed within ten. The first one does
    not count beside a shorter second one.
    """
    cdef uint64_t duration = since(now, max(handed_at, row.busy_since))
    if duration > 0 or row.burst == 0:
        row.base_ns = 0 if row.observations == 1 and duration < row.batch_ns else row.batch_ns
        row.observations += row.observations < PACE_KNOWN
        row.burst_ns = duration
        row.burst = 1
    else:
        row.burst += 1
    row.busy_since = now
    if row.base_ns == 0:
        row.batch_ns = row.burst_ns // row.burst
    else:
        row.batch_ns = min((MEMORY * row.base_ns + row.burst_ns) // (MEMORY + row.burst), 2 * row.base_ns)
    row.batch_ns = max(row.batch_ns, <uint64_t>1)
    return max(duration, <uint64_t>1)


cdef void pace_forget(Row *row) noexcept nogil:
    row.batch_ns = 0
    row.base_ns = 0
    row.burst = 0
    row.observations = 0
