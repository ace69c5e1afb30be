"""What core answers by itself to those who ask how the service is: no worker and no queue has a part in it."""

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._admission cimport admission_stopping
from mosec_cy._batcher cimport Row
from mosec_cy._health cimport (
    HEALTH_ALL_WELL,
    HEALTH_IDLE,
    Pulse,
    health_begin,
    health_lacking,
    health_row,
    health_stalled,
)
from mosec_cy._linux cimport load_acquire_u64
from mosec_cy._router cimport PROBE_LIVE, PROBE_READY
from mosec_cy._state cimport Link

cdef const char *ALIVE = b"MOSEC service"
cdef const char *LIVE = b"live"
cdef const char *READY = b"ready"


cdef void _look(Service *s) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t busy_since
    cdef const Link *link
    cdef const Row *row
    cdef Pulse pulse
    health_begin(&s.health)
    for i in range(s.batcher.row_count):
        row = &s.batcher.rows[i]
        link = &s.links[i]
        pulse.incarnation = link.incarnation
        # The row's own words, of which only changes count. Acquire; pair with the releases in ring_release and
        # ring_publish.
        pulse.taken = load_acquire_u64(&link.submit.memory.tail)
        pulse.answered = load_acquire_u64(&link.complete.memory.head)
        busy_since = HEALTH_IDLE
        if row.outstanding:
            busy_since = row.busy_since
        elif link.submit.own != pulse.taken:       # nobody waits any more for what it has not taken
            busy_since = s.now
        health_row(&s.health, i, row.stage, row.up, busy_since, &pulse, s.now)


cdef void _say(Verdict *verdict, int status, const char *text) noexcept nogil:
    verdict.status = status
    verdict.text = text


cdef void probe_answer(Service *s, Probe probe, Verdict *verdict) noexcept nogil:
    cdef uint32_t stage
    if s.draining and probe != PROBE_LIVE:
        admission_stopping(s, verdict)
    elif probe == PROBE_READY:
        _look(s)
        stage = health_lacking(&s.health)
        if stage == HEALTH_ALL_WELL:
            _say(verdict, 200, READY)
        else:
            _say(verdict, 503, s.lacking_texts[stage])
    elif probe == PROBE_LIVE:
        _look(s)
        stage = health_stalled(&s.health)
        if stage == HEALTH_ALL_WELL:
            _say(verdict, 200, LIVE)
        else:
            _say(verdict, 503, s.stalled_texts[stage])
    else:
        _say(verdict, 200, ALIVE)
