"""How long a stage will need for a task that comes now.

While a queue is long, batches are full. So the rows that are up take max_batch_size tasks each, again and again, each
in the time that its batches have taken lately (the moving average of the batcher). The one that it has at work may only
have begun; if that has lasted longer than others did, it may last as long again: a row that stands still is noticed
before it answers, but is not taken to be as slow for ever. The first batch of a process says nothing: who refused
others by it would hardly ever see the second.
"""

from mosec_cy._batcher cimport NO_INDEX, Row, Stage
from mosec_cy._pace cimport PACE_KNOWN

cdef enum:
    LONGEST = 0x20_0000_0000_0000          # ns, 104 days; sums of as many as there are stages do not overflow


cdef inline double _free_in(const Row *row, uint64_t now) noexcept nogil:
    if row.outstanding and row.busy_since + row.batch_ns < now:
        return <double>(now - row.busy_since)
    return <double>row.batch_ns


cdef double _done_in(const Batcher *b, const Stage *of, uint64_t now, double within) noexcept nogil:
    # ns until the queue and a batch more are done, by those rows that are free `within` so many ns: where t is that
    # time, the batches that each row does of them, (t - free_in) / batch_ns, add up.
    cdef double batches = of.waiting // of.max_batch_size + 1
    cdef double pace = 0                   # batches a ns, of the rows that have been measured
    cdef double begun = 0                  # batches that they do meanwhile of what they have
    cdef double free_in
    cdef uint32_t i = of.up.head
    cdef uint32_t known = 0
    cdef uint32_t others = 0               # new processes, which will be like these
    cdef const Row *row
    while i != NO_INDEX:
        row = &b.rows[i]
        i = row.link.next
        if row.observations < PACE_KNOWN:
            others += 1
            continue
        free_in = _free_in(row, now)
        if free_in <= within:
            pace += 1.0 / <double>row.batch_ns
            begun += free_in / <double>row.batch_ns
            known += 1
    if known == 0:
        return 0
    return (batches * known / (known + others) + begun) / pace


cdef uint64_t stage_forecast(const Batcher *b, uint32_t stage, uint64_t now) noexcept nogil:
    cdef const Stage *of = &b.stages[stage]
    cdef double done_in = 2.0 ** 64
    cdef double sooner
    if of.waiting <= of.rows * of.max_batch_size:
        return 0
    sooner = _done_in(b, of, now, done_in)
    while sooner < done_in:                # without those that have no part in it; one less each time, or it is the end
        done_in = sooner
        sooner = _done_in(b, of, now, done_in)
    return <uint64_t>min(done_in + 0.5, <double>LONGEST)
