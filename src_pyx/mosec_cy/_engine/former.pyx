"""The batch former: how long a batch is held open, and how many tasks it takes. Pure: time is an argument.

It learns three things, each from every event at no more than a few operations: how long a batch takes (a line over
its cost), how soon the next task comes (by the number of clients that were just answered, since these ask again), and
how many tasks come while there is work. From these it decides by what a task gains.
"""

from libc.math cimport sqrt

from mosec_cy._engine.linux cimport NEVER, bits_of


# ---- time of a batch -----------------------------------------------------------------------------

cdef enum:
    FIT_MEMORY = 64                   # batches


cdef void former_learn(Former *f, double cost, double ns) noexcept nogil:
    cdef ServiceTime *t = &f.time
    cdef double keep = 1 - 1.0 / FIT_MEMORY
    cdef double mean_x, mean_y, spread
    if t.weight > 0:                  # a pause teaches little; what has become slow is followed, 5 % a batch
        ns = min(ns, 4 * (t.fixed + t.slope * cost))
    t.weight = t.weight * keep + 1
    t.x = t.x * keep + cost
    t.y = t.y * keep + ns
    t.xx = t.xx * keep + cost * cost
    t.xy = t.xy * keep + cost * ns
    mean_x = t.x / t.weight
    mean_y = t.y / t.weight
    spread = t.xx / t.weight - mean_x * mean_x
    # Batches of one size say nothing of the slope: then it stays, and the level follows.
    if spread > mean_x * mean_x / 64:
        t.slope = min(max((t.xy / t.weight - mean_x * mean_y) / spread, 0.0), mean_y / mean_x)
    t.fixed = max(mean_y - t.slope * mean_x, 0.0)


# ---- how soon the next task comes ----------------------------------------------------------------

cdef enum:
    BEFORE = 7                        # the latest gap counts 1 / (1 + BEFORE); the first one too

cdef double MUCH = 1e100              # counts are scaled down in time


cdef inline uint32_t _row(const Former *f) noexcept nogil:
    cdef uint32_t back = f.back + f.back_before
    return min(bits_of(back), <uint32_t>GAP_ROWS - 1)


cdef void _count_gap(Gaps *gaps) noexcept nogil:
    """One gap more, of a length that is not known yet."""
    cdef uint32_t i
    if gaps.newest == 0:              # what was never seen is not expected
        gaps.newest = 1
        gaps.total = BEFORE
    elif gaps.newest > MUCH:
        for i in range(<uint32_t>GAP_BINS):
            gaps.counts[i] /= MUCH
        gaps.total /= MUCH
        gaps.newest /= MUCH
    gaps.total += gaps.newest
    gaps.newest += gaps.newest / BEFORE


cdef void _end_gap(Gaps *gaps, uint64_t ns) noexcept nogil:
    """The gap that was counted last was so long."""
    cdef uint32_t bin = bits_of((ns - 1) // GAP_FINEST_NS) if ns else 0
    if bin < GAP_BINS:
        gaps.counts[bin] += gaps.newest * BEFORE / (1 + BEFORE)


# ---- what happens --------------------------------------------------------------------------------

cdef enum:
    RATE_MEMORY = 128                 # arrivals


cdef void former_init(Former *f, uint32_t max_batch_size, uint64_t max_wait_ns) noexcept nogil:
    f.max_batch_size = max_batch_size
    f.max_wait_ns = max_wait_ns
    f.mean_cost = 1


cdef void former_arrived(Former *f, bint busy, uint64_t now) noexcept nogil:
    cdef Gaps *gaps = &f.gaps[_row(f)]
    if not f.missed:
        _count_gap(gaps)
    _end_gap(gaps, now - f.event_at)
    f.missed = False
    if f.back_before:
        f.back_before -= 1
    elif f.back:
        f.back -= 1
    if busy:
        f.came += 1
    else:                             # the rate is that of busy times: what comes after a pause is known at once
        f.busy_ns += f.event_at - f.busy_from if f.event_at > f.busy_from else 0
        f.busy_from = now
    f.event_at = now


cdef void former_answered(Former *f, uint64_t now) noexcept nogil:
    # A client that has not come back is counted until two more turns have begun: each with an answer, half a batch's
    # fixed time after the one before.
    if now - f.turned_at > f.time.fixed / 2:
        f.back_before = f.back
        f.back = 0
        f.turned_at = now
    f.back += 1
    f.missed = False
    f.event_at = now


cdef void former_completed(Former *f, uint32_t count, double cost, uint64_t now) noexcept nogil:
    cdef double keep = max(1 - <double>count / RATE_MEMORY, 0.5)
    f.mean_cost += (cost / count - f.mean_cost) * count / (RATE_MEMORY + count)
    f.arrivals = f.arrivals * keep + f.came
    f.busy_ns = f.busy_ns * keep + (now - f.busy_from)
    f.came = 0
    f.busy_from = now


# ---- decisions -----------------------------------------------------------------------------------


cdef enum:
    FIXED_LEAST = 16                  # the fixed time counts as a sixteenth of a task's at least

cdef double SHARE = 9.0 / 8           # of the size that keeps up


cdef inline double _rate(const Former *f) noexcept nogil:
    """Arrivals a ns."""
    return f.arrivals / f.busy_ns if f.busy_ns > 0 else 0


cdef inline double _slope(const Former *f) noexcept nogil:
    """ns a task."""
    return f.time.slope * f.mean_cost


cdef inline double _fixed(const Former *f) noexcept nogil:
    """ns a batch. What noise hides shows in larger batches, which come when the queue grows."""
    return max(f.time.fixed, _slope(f) / FIXED_LEAST)


cdef inline double _least(const Former *f, const Situation *s) noexcept nogil:
    """The least size of batches that keeps up with the load: while m tasks run, not quite m come."""
    cdef double rate = _rate(f) * 33 / 32 / s.replicas
    return rate * _fixed(f) / max(1 - rate * _slope(f), 1.0 / 16)


cdef inline double _enough(const Former *f, const Situation *s, double least) noexcept nogil:
    """The size from which a batch is held for nothing more: that which drains what waits, and what comes meanwhile, and
    then does a task's own batch, in the least time."""
    return least + sqrt(least * least + <double>s.waiting / s.replicas * (least + _fixed(f) / _slope(f)))


cdef inline double _share(const Former *f, const Situation *s, double least) noexcept nogil:
    """The most that one of several replicas takes, so that the others find as much: else batches grow and shrink by
    turns. A task more delays the batch by the slope, one that is left waits for the next free replica."""
    cdef double share = max(least * SHARE, 1.0)
    if s.idle > 1:
        share = max(share, <double>s.waiting / s.idle)
    else:
        share = max(share, 1 + <double>s.free_in / _slope(f))
    return share + sqrt(max(<double>s.waiting / s.replicas - least, 0.0) * (least + _fixed(f) / _slope(f)))


cdef uint64_t _hold(const Former *f, const Situation *s) noexcept nogil:
    """ns from the last event for which waiting for one task more pays best; 0: it does not."""
    cdef const Gaps *gaps = &f.gaps[_row(f)]
    cdef double n = s.waiting
    cdef double slope = _slope(f)
    cdef double whole = f.time.fixed + slope * n
    cdef double back = f.back + f.back_before
    cdef double free_in, beside, edge, value, won = 0, seen = 0, best = 0
    cdef uint64_t hold = 0
    cdef uint32_t i
    # A task that comes too late for this batch waits until a replica is free, and shares a batch with those that come
    # by then.
    if s.idle == 1:
        free_in = min(whole, <double>s.free_in)
    else:                             # at once, unless as many come as there are replicas: these are to be spaced
        free_in = whole / s.replicas if max(_rate(f) * (f.time.fixed + slope), back) >= s.replicas else 0
    beside = min(max(max(_rate(f) * free_in, back), 1.0), n + 1)
    for i in range(<uint32_t>GAP_BINS):
        edge = <double>(<uint64_t>GAP_FINEST_NS << i)
        if edge > f.time.fixed or gaps.total == 0:
            break
        seen += gaps.counts[i] / gaps.total
        won += gaps.counts[i] / gaps.total * (free_in + slope * (beside - n - 1) - edge - n * (edge + slope))
        value = won - (1 - seen) * n * edge
        if value > best:
            best = value
            hold = <uint64_t>edge
    return hold


cdef void former_form(Former *f, const Situation *s, Formation *formation) noexcept nogil:
    cdef double most = f.max_batch_size
    cdef double enough = most
    cdef double least
    cdef uint64_t hold
    if _slope(f) > 0:                 # else a task more costs nothing
        least = _least(f, s)
        enough = min(_enough(f, s, least), most)
        if s.replicas > 1:
            most = min(_share(f, s, least), enough)
        else:
            most = enough
    formation.size = <uint32_t>max(most + 0.5, 1.0)
    formation.closes_at = 0
    if s.waiting >= max(<uint32_t>(enough + 0.5), <uint32_t>2):
        formation.reason = CLOSED_FULL if formation.size == f.max_batch_size else CLOSED_TARGET
        return
    formation.reason = CLOSED_NO_GAIN
    if s.idle == 0:                   # a busy replica gets what an idle one would not hold
        formation.closes_at = NEVER
        return
    # Where a batch has its share already, the hold still spaces the replicas.
    hold = _hold(f, s)
    formation.closes_at = f.event_at + hold
    if hold and formation.closes_at <= s.now and not f.missed:
        f.missed = True               # in vain: a gap that counts even if an answer comes before it ends
        _count_gap(&f.gaps[_row(f)])
    if hold and f.max_wait_ns != NEVER and s.oldest + f.max_wait_ns < formation.closes_at:
        formation.closes_at = s.oldest + f.max_wait_ns
        formation.reason = CLOSED_WAIT
