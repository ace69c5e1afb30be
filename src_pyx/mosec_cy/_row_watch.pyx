"""Rows that overrun their time, or hang. A timer has core look: time-outs cost the usual path nothing."""

from libc.stdint cimport uint32_t

from mosec_cy._batcher cimport NEVER, NO_INDEX
from mosec_cy._linux cimport load_acquire_u32, load_relaxed_u64, mosec_pidfd_send_signal, store_release_u32
from mosec_cy._ring cimport ring_free, ring_has_news
from mosec_cy._rows cimport row_give_up
from mosec_cy._segment cimport PHASE_DECODE, PHASE_FORWARD, PHASE_IDLE
from mosec_cy._state cimport REPORT_ROW_KILLED, REPORT_ROW_OVERDUE, Link
from mosec_cy._tasks cimport task_time_out

cdef extern from "<signal.h>" nogil:
    int SIGALRM

cdef const char *OVERRUN = b"mosec timeout error: `forward` timeout"


cdef void _overrun(Service *s, uint32_t row, uint32_t batch) noexcept nogil:
    # `forward` has used up the stage's time: its clients are answered, the worker is told, and gets a period of grace.
    cdef Link *link = &s.links[row]
    cdef uint32_t slot = s.batcher.rows[row].handed.head
    cdef uint32_t next
    while slot != NO_INDEX:
        next = s.batcher.tasks[slot].link.next
        if s.batcher.tasks[slot].batch == batch and s.batcher.tasks[slot].connection != NO_INDEX:
            task_time_out(s, slot, OVERRUN)
        slot = next
    store_release_u32(&link.shared.overdue, batch)           # pairs with the acquire in Channel.overdue
    if link.pidfd >= 0:
        mosec_pidfd_send_signal(link.pidfd, SIGALRM)
    link.kill_at = s.now + s.kill_grace
    link.to_stir = True                # it may wait for a client to read
    s.wake_due = True
    s.report(s.control, REPORT_ROW_OVERDUE, row, batch)


cdef bint _has_lost_tasks(Service *s, uint32_t row, uint32_t batch, uint32_t phase) noexcept nogil:
    # It idles and its rings are empty, but it has not answered all: some process has written over a task's word, so
    # that nobody could start it. Said only the second time, because between taking and working it looks the same.
    cdef Link *link = &s.links[row]
    cdef uint32_t before = link.idle_batch
    link.idle_batch = 0
    if phase != PHASE_IDLE or s.batcher.rows[row].outstanding == 0 or ring_free(&link.submit) <= link.submit.mask or \
            ring_has_news(&link.complete):
        return False
    link.idle_batch = max(batch, 1)
    return link.idle_batch == before


cdef inline uint64_t _patience(const Service *s, uint32_t row) noexcept nogil:
    # After that long in one phase nobody waits for what it does there. (`forward` has a time-out of its own.)
    return max(s.timeout, s.stage_timeouts[s.batcher.rows[row].stage])


cdef bint _hangs(Service *s, uint32_t row, uint32_t batch, uint32_t phase) noexcept nogil:
    # It still does what it did at the last look, without an answer since, and has done so for longer than that.
    cdef const Link *link = &s.links[row]
    return batch == link.seen_batch and phase == link.seen_phase and link.complete.own == link.seen_answers and \
        link.seen_since <= s.now and s.now - link.seen_since >= _patience(s, row)


cdef void _watch(Service *s, uint32_t row, uint32_t batch, uint32_t phase, uint64_t since) noexcept nogil:
    # Outside of `forward`: it decodes, encodes, or has not come to what is in its ring.
    cdef Link *link = &s.links[row]
    if link.seen_since == NEVER or batch != link.seen_batch or phase != link.seen_phase or \
            link.complete.own != link.seen_answers:
        link.seen_batch = batch
        link.seen_phase = phase
        link.seen_answers = link.complete.own
        # A batch may have waited long for a row that was busy with another core's, or stopped.
        link.seen_since = min(since, s.now) if phase == PHASE_DECODE else s.now
    if _hangs(s, row, batch, phase):
        link.kill_at = min(link.kill_at, s.now + s.kill_grace)     # if core itself stood still, that is its chance
    else:
        link.check_at = min(link.check_at, link.seen_since + _patience(s, row))


cdef uint64_t _next_check(Service *s, uint32_t row) noexcept nogil:
    if s.batcher.rows[row].outstanding:
        return s.now + s.stage_timeouts[s.batcher.rows[row].stage]
    if ring_free(&s.links[row].submit) <= s.links[row].submit.mask:
        return s.now + _patience(s, row)       # those have left, but a row that lives would have looked
    s.links[row].seen_since = NEVER
    return NEVER


cdef void _check(Service *s, uint32_t row) noexcept nogil:
    cdef Link *link = &s.links[row]
    cdef uint64_t timeout = s.stage_timeouts[s.batcher.rows[row].stage]
    # In this order: a phase and its start that are read after the batch are of that batch or a later one, so that no
    # batch is blamed for the one before it.
    cdef uint32_t batch = load_acquire_u32(&link.shared.batch)      # pairs with the release in Channel._started
    cdef uint32_t phase = load_acquire_u32(&link.shared.phase)      # pairs with the release in Channel.begin_forward
    cdef uint64_t since = load_relaxed_u64(&link.shared.since)      # the row's own word: at worst it harms itself
    if link.kill_at <= s.now:
        link.kill_at = NEVER
        if phase == PHASE_FORWARD and batch == link.shared.overdue or \
                phase != PHASE_FORWARD and _hangs(s, row, batch, phase):      # `overdue` is core's own word
            row_give_up(s, row)
            s.report(s.control, REPORT_ROW_KILLED, row, batch)
        link.check_at = min(link.check_at, _next_check(s, row))
    if link.given_up:
        link.check_at = NEVER
    elif link.check_at <= s.now:
        link.check_at = _next_check(s, row)
        if _has_lost_tasks(s, row, batch, phase):
            row_give_up(s, row)
        elif phase == PHASE_FORWARD:
            if since + timeout <= s.now:
                link.check_at = NEVER
                if batch != link.shared.overdue:       # else it has been told
                    _overrun(s, row, batch)
            elif since + timeout < link.check_at:
                link.check_at = since + timeout
        elif link.check_at != NEVER:
            _watch(s, row, batch, phase, since)


cdef void rows_expire(Service *s) noexcept nogil:
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        if s.links[row].check_at <= s.now or s.links[row].kill_at <= s.now:
            _check(s, row)


cdef uint64_t rows_deadline(const Service *s) noexcept nogil:
    cdef uint64_t soonest = NEVER
    cdef uint32_t row
    for row in range(s.batcher.row_count):
        soonest = min(soonest, min(s.links[row].check_at, s.links[row].kill_at))
    return soonest
