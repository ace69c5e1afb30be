"""HTTP/1.x connections: their life, events and time-outs."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from mosec_cy._connection cimport (
    NO_CONNECTION,
    RECEIVE_GONE,
    SEND_DONE,
    TIMER_BODY,
    TIMER_HEADER,
    TIMER_IDLE,
    TIMER_LINGER,
    TIMER_NONE,
    TIMER_PROBE,
    TIMER_STREAM,
    TIMER_WRITE,
    Connection,
    Connections,
    connection_arm,
    connection_expired,
    connection_flush,
    connection_has_output,
    connection_open,
    connection_progress,
    connections_close,
    connections_open,
)
from mosec_cy._http1_body cimport body_await
from mosec_cy._http1_read cimport http1_advance
from mosec_cy._http1_state cimport (
    HTTP1_BODY,
    HTTP1_DISCARD,
    HTTP1_HEAD,
    HTTP1_LINGER,
    HTTP1_SCRATCH,
    HTTP1_STREAM,
    HTTP1_WAIT,
    HTTP1_WRITE,
    Http1,
)
from mosec_cy._http1_stream cimport stream_comment, stream_end, stream_flush, stream_put, stream_sent
from mosec_cy._http1_write cimport http1_continue, http1_refuse, http1_refuse_head, http1_sent, http1_shut, http1_write
from mosec_cy._linux cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from mosec_cy._ring cimport NO_BLOCK

cdef enum:
    LEAST_RATE = 1024              # bytes a second below which a body or a reader is too slow
    LINGER_NS = 30_000_000_000     # that a refused client may go on sending
    DRAIN_IDLE_NS = 100_000_000    # without a request, after which a connection is closed when all is shutting down


cdef int http1_open(Http1Io *io, uint32_t max_connections) noexcept nogil:
    if connections_open(&io.connections, max_connections) != 0:
        return -1
    io.states = <Http1 *>calloc(max_connections, sizeof(Http1))
    io.scratch = <char *>malloc(HTTP1_SCRATCH)
    io.path = <char *>malloc(HTTP1_SCRATCH)
    if io.states == NULL or io.scratch == NULL or io.path == NULL:
        http1_close(io)
        return -1
    return 0


cdef void http1_close(Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    if io.connections.all != NULL:
        if io.states != NULL:
            for slot in range(io.connections.used):
                free(io.states[slot].partial)
        connections_close(&io.connections)
    free(io.states)
    free(io.scratch)
    free(io.path)
    io.states = NULL
    io.scratch = NULL
    io.path = NULL


cdef uint32_t http1_accept(Http1Io *io, int fd) noexcept nogil:
    cdef uint32_t slot = connection_open(&io.connections, fd)
    cdef Http1 *h
    if slot != NO_CONNECTION:
        h = &io.states[slot]
        memset(h, 0, sizeof(Http1))
        h.body.block = NO_BLOCK
        h.answer_block = NO_BLOCK
        connection_arm(&io.connections, slot, TIMER_HEADER, io.now)
    return slot


cdef bint http1_answer(Http1Io *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil:
    if slot >= io.connections.used or io.connections.all[slot].generation != generation:
        return False
    if io.states[slot].phase == HTTP1_WAIT:
        http1_write(io, slot, answer)
    elif io.states[slot].phase == HTTP1_STREAM:
        stream_end(io, slot, answer)
    else:
        return False
    return True


cdef void http1_stream(
    Http1Io *io, uint32_t slot, uint32_t generation, const uint8_t *event, uint64_t n
) noexcept nogil:
    if slot < io.connections.used and io.connections.all[slot].generation == generation and \
            io.states[slot].phase == HTTP1_STREAM:
        stream_put(io, slot, event, n)


cdef void http1_event(Http1Io *io, uint32_t slot, uint32_t events) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef uint32_t generation = c.generation
    cdef int rc
    # Both directions are shut. If we did that to ours, the client may still read its refusal: what it sent must be
    # read before the connection is closed, or a reset overtakes the refusal.
    if events & <uint32_t>EPOLLERR or events & <uint32_t>EPOLLHUP and io.states[slot].phase != HTTP1_LINGER:
        http1_shut(io, slot)
        return
    if events & <uint32_t>EPOLLRDHUP and not c.read_closed:
        c.read_closed = True
        if io.states[slot].phase == HTTP1_WAIT:
            body_await(io, slot)
        elif io.states[slot].phase == HTTP1_STREAM:
            stream_comment(io, slot)
    if events & <uint32_t>(EPOLLIN | EPOLLRDHUP):
        c.readable = True
    if events & <uint32_t>EPOLLOUT and connection_has_output(c):
        rc = connection_flush(c)
        if rc == RECEIVE_GONE:
            http1_shut(io, slot)
        elif io.states[slot].phase == HTTP1_STREAM:
            stream_sent(io, slot, rc)
        elif rc == SEND_DONE and io.states[slot].phase == HTTP1_WRITE:
            http1_sent(io, slot)
    if c.generation == generation and c.readable:
        http1_advance(io, slot)


cdef void http1_run_ready(Http1Io *io) noexcept nogil:
    # Those that are listed while this runs wait for the next round: nobody starves the rest.
    cdef Connections *t = &io.connections
    cdef uint32_t n = t.ready_n
    cdef uint32_t i, slot
    for i in range(n):
        slot = t.ready[i]
        t.all[slot].listed = False
        if io.states[slot].phase == HTTP1_STREAM:
            stream_flush(io, slot)
        elif t.all[slot].fd >= 0:
            http1_advance(io, slot)
    t.ready_n -= n
    for i in range(t.ready_n):
        t.ready[i] = t.ready[n + i]


cdef bint _moves(Http1Io *io, uint32_t slot) noexcept nogil:
    # Moved enough since its timer was armed: it gets another period.
    cdef Connection *c = &io.connections.all[slot]
    cdef uint64_t progress = connection_progress(c)
    cdef uint64_t least = io.connections.duration[c.timer] // 1000 * LEAST_RATE // 1_000_000
    if progress < max(least, <uint64_t>1):
        return False
    connection_arm(&io.connections, slot, c.timer, io.now)
    return True


cdef void _expire(Http1Io *io, uint32_t slot, uint8_t timer) noexcept nogil:
    if timer == TIMER_PROBE:
        connection_arm(&io.connections, slot, TIMER_NONE, io.now)
        http1_continue(io, slot)
    elif timer == TIMER_STREAM:
        stream_comment(io, slot)
    elif timer == TIMER_HEADER and io.connections.all[slot].input_n:
        http1_refuse_head(io, slot, 408, b"request header timeout")
    elif timer == TIMER_BODY:
        if not _moves(io, slot):
            http1_refuse(io, slot, 408, b"request body timeout")
    elif timer == TIMER_WRITE:
        if not _moves(io, slot):
            http1_shut(io, slot)
    elif timer == TIMER_LINGER:
        if io.now - io.states[slot].arrived >= LINGER_NS or not _moves(io, slot):
            http1_shut(io, slot)
    else:
        http1_shut(io, slot)


cdef void http1_expire(Http1Io *io) noexcept nogil:
    cdef uint32_t slot = connection_expired(&io.connections, io.now)
    while slot != NO_CONNECTION:
        _expire(io, slot, io.connections.all[slot].timer)
        slot = connection_expired(&io.connections, io.now)


cdef void http1_drain(Http1Io *io) noexcept nogil:
    # A client that has just been answered may be sending its next request: a close now would be a reset for it.
    cdef uint32_t slot
    io.draining = True
    io.connections.duration[<int>TIMER_IDLE] = DRAIN_IDLE_NS
    for slot in range(io.connections.used):
        if io.connections.all[slot].fd >= 0 and io.connections.all[slot].timer == TIMER_IDLE:
            connection_arm(&io.connections, slot, TIMER_IDLE, io.now)


cdef void http1_farewell(Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    for slot in range(io.connections.used):
        if io.connections.all[slot].fd >= 0 and (
                io.states[slot].phase == HTTP1_BODY or io.states[slot].phase == HTTP1_DISCARD):
            http1_refuse(io, slot, 503, b"gracefully shutting down")


cdef bint http1_is_busy(const Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    for slot in range(io.connections.used):
        if io.connections.all[slot].fd >= 0 and io.states[slot].phase != HTTP1_HEAD:
            return True
    return False
