"""Request bodies, from the socket into shared memory."""

from libc.string cimport memcpy

from mosec_cy._connection cimport (
    NO_CONNECTION,
    RECEIVE_AGAIN,
    TIMER_NONE,
    TIMER_PROBE,
    Connection,
    connection_arm,
    connection_receive,
)
from mosec_cy._http1_pressure cimport pressure_refuse, pressure_relieve
from mosec_cy._http1_service cimport MEMORY_FULL, Verdict
from mosec_cy._http1_state cimport HTTP1_WAIT, Http1
from mosec_cy._http1_stream cimport stream_begin
from mosec_cy._http1_write cimport http1_refuse, http1_write_text
from mosec_cy._http_chunked cimport CHUNK_DATA, CHUNK_DONE, chunked_expected, chunked_step, chunked_took
from mosec_cy._ring cimport NO_BLOCK

cdef enum:
    LONG_CHUNK = 16384             # bytes still to come of a chunk that is worth a receive of its own


cdef void body_await(Http1Io *io, uint32_t slot) noexcept nogil:
    # After a FIN nothing more is heard of a client, were it only that it has closed. What it is sent then tells:
    # a reset comes back. HTTP/1.0 knows no interim response that could be sent.
    cdef bint silent = io.connections.all[slot].read_closed and io.states[slot].minor == 1
    io.states[slot].phase = HTTP1_WAIT
    connection_arm(&io.connections, slot, TIMER_PROBE if silent else TIMER_NONE, io.now)


cdef void body_submit(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef Verdict verdict
    cdef uint32_t block = h.body.block
    h.body.block = NO_BLOCK
    h.chunked = False
    verdict.status = 0
    verdict.streams = False
    body_await(io, slot)
    io.service.submit(io.service.context, slot, io.connections.all[slot].generation, h.route, h.task_flags,
                      h.deadline, block, h.received, &h.task, &verdict)
    if verdict.status != 0:
        http1_write_text(io, slot, &verdict)
    elif verdict.streams:
        stream_begin(io, slot)


cdef bint body_reserve(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef int rc = io.service.reserve(io.service.context, bytes, &h.body)
    if rc == MEMORY_FULL and pressure_relieve(io, slot, bytes):
        rc = io.service.reserve(io.service.context, bytes, &h.body)
    if rc != 0:
        h.body.block = NO_BLOCK
        pressure_refuse(io, slot)
    return rc == 0


cdef void body_answer_empty(Http1Io *io, uint32_t slot) noexcept nogil:
    # Answered without a worker, and so counted under no route.
    cdef Verdict verdict
    verdict.status = 200
    verdict.text = b"no data provided"
    verdict.extra = NULL
    io.states[slot].route = NO_CONNECTION
    http1_write_text(io, slot, &verdict)


cdef size_t _take_length(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if n > h.remaining:
        n = h.remaining
    memcpy(h.body.data + h.received, data, n)
    h.received += n
    h.remaining -= n
    io.connections.all[slot].moved += n
    if h.remaining == 0:
        body_submit(io, slot)
    return n


cdef bint _make_room(Http1Io *io, uint32_t slot, uint64_t n) noexcept nogil:
    # For so many more bytes of a chunked body; False: the request was refused.
    cdef Http1 *h = &io.states[slot]
    # No more than is needed: blocks have sizes of powers of two, so that the next one has room for as much again.
    cdef uint64_t wanted = h.received + n
    cdef int rc
    if wanted <= h.body.capacity:
        return True
    rc = io.service.grow(io.service.context, h.received, wanted, &h.body)
    if rc == MEMORY_FULL and pressure_relieve(io, slot, wanted):
        rc = io.service.grow(io.service.context, h.received, wanted, &h.body)
    if rc != 0:
        pressure_refuse(io, slot)
    return rc == 0


cdef bint _append(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    # Data of a chunk; False when the request was refused.
    cdef Http1 *h = &io.states[slot]
    if not _make_room(io, slot, n):
        return False
    memcpy(h.body.data + h.received, data, n)
    h.received += n
    io.connections.all[slot].moved += n
    return True


cdef size_t _take_chunks(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef size_t at = 0
    cdef size_t consumed = 0
    cdef size_t span_n = 0
    cdef const char *span = NULL
    cdef uint64_t expected
    cdef int rc
    while at < n:
        rc = chunked_step(&h.decoder, data + at, n - at, &consumed, &span, &span_n)
        at += consumed
        if rc < 0:
            http1_refuse(io, slot, -rc, b"bad request: malformed chunked body")
            return n
        if rc == CHUNK_DONE:
            _end_chunks(io, slot)
            return at
        expected = chunked_expected(&h.decoder)        # so that a chunk too large is refused before its data comes
        if expected > io.max_body or h.received + span_n + expected > io.max_body:
            http1_refuse(io, slot, 413, b"request body is too large")
            return n
        if rc == CHUNK_DATA and not _append(io, slot, span, span_n):
            return n
    return n


cdef void _end_chunks(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if h.received:
        body_submit(io, slot)
        return
    h.chunked = False
    io.service.discard(io.service.context, h.body.block)
    h.body.block = NO_BLOCK
    body_answer_empty(io, slot)


cdef size_t body_take(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    if io.states[slot].chunked:
        return _take_chunks(io, slot, data, n)
    return _take_length(io, slot, data, n)


cdef size_t body_discard(Http1Io *io, uint32_t slot, size_t n) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if n > h.remaining:
        n = h.remaining
    h.remaining -= n
    io.connections.all[slot].moved += n
    if h.remaining == 0:
        http1_write_text(io, slot, &h.refusal)
    return n


cdef bint body_is_plain(const Http1Io *io, uint32_t slot) noexcept nogil:
    cdef const Http1 *h = &io.states[slot]
    return not h.chunked or chunked_expected(&h.decoder) >= LONG_CHUNK


cdef int64_t body_receive(Http1Io *io, uint32_t slot, uint64_t quota) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint64_t n = chunked_expected(&h.decoder) if h.chunked else h.remaining
    cdef int64_t got
    if h.chunked and not _make_room(io, slot, n):
        return RECEIVE_AGAIN
    got = connection_receive(c, h.body.data + h.received, n if n < quota else quota)
    if got <= 0:
        return got
    h.received += got
    c.moved += got
    if h.chunked:
        chunked_took(&h.decoder, got)
    else:
        h.remaining -= got
        if h.remaining == 0:
            body_submit(io, slot)
    return got
