"""Memory for bodies is used up: who holds much of it and hardly moves makes way for others.

The time-outs ask for so little that who has a bad line is served. A few hundred clients that ask for the largest body
each, and then send no more than that little, would hold all memory for hours: under pressure, pace is measured by what
is held.
"""

from libc.stdint cimport uint8_t

from mosec_cy._connection cimport (
    NO_CONNECTION,
    TIMER_BODY,
    TIMER_WRITE,
    Connections,
    connection_progress,
)
from mosec_cy._http1_state cimport Http1
from mosec_cy._http1_write cimport http1_refuse, http1_shut
from mosec_cy._ring cimport NO_BLOCK

cdef enum:
    HOME_MS = 60_000               # a transfer that would take longer than this at its pace is slow
    WATCHED_PART = 8               # of its time-out, for which a transfer is watched before it is judged
    JUDGED = 256                   # transfers looked at for one request, and
    EVICTED = 64                   # at most so many of them end: the loop has others to serve


cdef void pressure_refuse(Http1Io *io, uint32_t slot) noexcept nogil:
    http1_refuse(io, slot, 503, b"service is out of memory for request bodies (--budget)")


cdef uint64_t _held(const Http1Io *io, uint32_t slot) noexcept nogil:
    # Bytes of memory that wait for this client to send or to read.
    cdef const Http1 *h = &io.states[slot]
    if h.body.block != NO_BLOCK:
        return h.body.capacity
    return io.connections.all[slot].payload_n if h.answer_block != NO_BLOCK else 0


cdef bint _is_slow(const Http1Io *io, uint32_t slot, uint64_t watched) noexcept nogil:
    return connection_progress(&io.connections.all[slot]) * HOME_MS < _held(io, slot) * (watched // 1_000_000)


cdef void _evict(Http1Io *io, uint32_t slot) noexcept nogil:
    if io.connections.all[slot].timer == TIMER_BODY:
        pressure_refuse(io, slot)
    else:
        http1_shut(io, slot)


cdef uint32_t _relieve(Http1Io *io, uint32_t but, uint8_t timer, uint64_t bytes) noexcept nogil:
    # How many it has evicted. The list is in the order in which the transfers began to be watched.
    cdef Connections *t = &io.connections
    cdef uint32_t slot = t.timer_head[timer]
    cdef uint32_t following
    cdef uint32_t evicted = 0
    cdef uint64_t watched
    for _ in range(JUDGED):
        if slot == NO_CONNECTION or evicted == EVICTED:
            break
        watched = io.now + t.duration[timer] - t.all[slot].deadline
        if watched < t.duration[timer] // WATCHED_PART:
            break
        following = t.all[slot].timer_next
        if slot != but and _is_slow(io, slot, watched):
            _evict(io, slot)
            evicted += 1
            if io.service.fits(io.service.context, bytes):
                break
        slot = following
    return evicted


cdef bint pressure_relieve(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil:
    cdef uint32_t evicted = _relieve(io, slot, TIMER_BODY, bytes)
    if evicted == 0 or not io.service.fits(io.service.context, bytes):
        evicted += _relieve(io, slot, TIMER_WRITE, bytes)
    return evicted != 0
