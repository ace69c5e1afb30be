"""HTTP/1.x connections (RFC 9112): one state machine, from the bytes of a request to those of its answer."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset, strlen

from mosec_cy._engine.connection cimport (
    NO_CONNECTION,
    RECEIVE_AGAIN,
    RECEIVE_GONE,
    SEND_AGAIN,
    SEND_DONE,
    SEND_GONE,
    TIMER_BODY,
    TIMER_HEADER,
    TIMER_IDLE,
    TIMER_LINGER,
    TIMER_NONE,
    TIMER_PROBE,
    TIMER_STREAM,
    TIMER_WRITE,
    Connection,
    connection_arm,
    connection_close,
    connection_consume,
    connection_expired,
    connection_flush,
    connection_has_output,
    connection_keep_input,
    connection_list,
    connection_open,
    connection_progress,
    connection_receive,
    connection_send,
    connection_take_input,
    connections_close,
    connections_open,
)
from mosec_cy._engine.dispatch cimport Request, block_drop, stream_acknowledge
from mosec_cy._engine.http_request cimport (
    BODY_CHUNKED,
    BODY_LENGTH,
    CHUNK_DATA,
    CHUNK_DONE,
    HTTP_PARTIAL,
    METHOD_HEAD,
    chunked_begin,
    chunked_expected,
    chunked_step,
    chunked_took,
    http_decode_path,
    http_parse,
    http_request_size,
)
from mosec_cy._engine.http_response cimport (
    HTTP_HEAD_ROOM,
    WRITE_CHUNKED,
    WRITE_CLOSE,
    WRITE_KEEP_ALIVE_10,
    WRITE_NO_LENGTH,
    event_bytes,
    event_write,
    http_reason,
    writer_head,
)
from mosec_cy._engine.linux cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, debug_assert
from mosec_cy._engine.list cimport NO_INDEX
from mosec_cy._engine.ring cimport NO_BLOCK
from mosec_cy._engine.service cimport (
    MEMORY_FULL,
    NO_ROUTE,
    Decision,
    service_admit,
    service_buffer,
    service_count,
    service_fits,
    service_grow,
    service_reserve,
    service_submit,
    service_withdraw,
)

cdef inline uint32_t _may_enter(uint8_t phase) noexcept nogil:
    # The phases that may follow `phase`; http1_shut may follow each.
    if phase == HTTP1_HEAD:
        return 1 << HTTP1_BODY | 1 << HTTP1_DISCARD | 1 << HTTP1_WAIT | 1 << HTTP1_WRITE
    if phase == HTTP1_BODY:
        return 1 << HTTP1_WAIT | 1 << HTTP1_WRITE
    if phase == HTTP1_DISCARD or phase == HTTP1_STREAM:
        return 1 << HTTP1_WRITE
    if phase == HTTP1_WAIT:
        return 1 << HTTP1_WAIT | 1 << HTTP1_WRITE | 1 << HTTP1_STREAM
    if phase == HTTP1_WRITE:
        return 1 << HTTP1_HEAD | 1 << HTTP1_LINGER
    return 0


cdef inline void _enter(Http1 *h, uint8_t phase) noexcept nogil:
    # The one place that changes the phase of an open connection.
    debug_assert(_may_enter(h.phase) >> phase & 1)
    h.phase = phase


# ---- life, events, time --------------------------------------------------------------------------

# Opens, drains and closes connections, and passes events and time-outs on to the phase that handles them.

cdef enum:
    LEAST_RATE = 1024              # bytes a second below which a body or a reader is too slow
    LINGER_NS = 30_000_000_000     # that a refused client may go on sending
    DRAIN_IDLE_NS = 100_000_000    # without a request, after which an idle connection is closed at shutdown


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
        _write(io, slot, answer)
    elif io.states[slot].phase == HTTP1_STREAM:
        _end_stream(io, slot, answer)
    else:
        return False
    return True


cdef void http1_stream(
    Http1Io *io, uint32_t slot, uint32_t generation, const uint8_t *event, uint64_t n
) noexcept nogil:
    if slot < io.connections.used and io.connections.all[slot].generation == generation and \
            io.states[slot].phase == HTTP1_STREAM:
        _put_event(io, slot, event, n)


cdef void http1_event(Http1Io *io, uint32_t slot, uint32_t events) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef uint32_t generation = c.generation
    cdef int rc
    # Both directions are shut. If core has shut its own, the client may still read its refusal: what the client sent
    # must be read before the connection is closed, or a reset overtakes the refusal.
    if events & <uint32_t>EPOLLERR or events & <uint32_t>EPOLLHUP and io.states[slot].phase != HTTP1_LINGER:
        http1_shut(io, slot)
        return
    if events & <uint32_t>EPOLLRDHUP and not c.read_closed:
        c.read_closed = True
        if io.states[slot].phase == HTTP1_WAIT:
            _await_answer(io, slot)
        elif io.states[slot].phase == HTTP1_STREAM:
            _put_comment(io, slot)
    if events & <uint32_t>(EPOLLIN | EPOLLRDHUP):
        c.readable = True
    if events & <uint32_t>EPOLLOUT and connection_has_output(c):
        rc = connection_flush(c)
        if rc == SEND_GONE:
            http1_shut(io, slot)
        elif io.states[slot].phase == HTTP1_STREAM:
            _stream_sent(io, slot, rc)
        elif rc == SEND_DONE and io.states[slot].phase == HTTP1_WRITE:
            _sent(io, slot)
    if c.generation == generation and c.readable:
        _advance(io, slot)


cdef void http1_run_ready(Http1Io *io) noexcept nogil:
    # Connections that are listed while this runs wait for the next round, so that none starves the rest.
    cdef Connections *t = &io.connections
    cdef uint32_t n = t.ready_n
    cdef uint32_t i, slot
    for i in range(n):
        slot = t.ready[i]
        t.all[slot].listed = False
        if io.states[slot].phase == HTTP1_STREAM:
            _flush_stream(io, slot)
        elif t.all[slot].fd >= 0:
            _advance(io, slot)
    t.ready_n -= n
    for i in range(t.ready_n):
        t.ready[i] = t.ready[n + i]


cdef bint _moves(Http1Io *io, uint32_t slot) noexcept nogil:
    # The connection moved enough since its timer was armed: it gets another period.
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
        _write_continue(io, slot)
    elif timer == TIMER_STREAM:
        _put_comment(io, slot)
    elif timer == TIMER_HEADER and io.connections.all[slot].input_n:
        _refuse_head(io, slot, 408, b"request header timeout")
    elif timer == TIMER_BODY:
        if not _moves(io, slot):
            _refuse(io, slot, 408, b"request body timeout")
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


cdef void http1_reject_pending(Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    for slot in range(io.connections.used):
        if io.connections.all[slot].fd >= 0 and (
                io.states[slot].phase == HTTP1_BODY or io.states[slot].phase == HTTP1_DISCARD):
            _refuse(io, slot, 503, b"gracefully shutting down")


cdef bint http1_is_busy(const Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    for slot in range(io.connections.used):
        if io.connections.all[slot].fd >= 0 and io.states[slot].phase != HTTP1_HEAD:
            return True
    return False


# ---- heads ---------------------------------------------------------------------------------------

# Reads request heads (RFC 9112) and decides what becomes of each request.

cdef enum:
    SMALL_BODY = 65536             # of a refused request: read it and keep the connection
    LINGER_BYTES = 1 << 28         # of a refused upload that are dropped before the connection is cut
    CHUNKED_START = 8192           # first guess of a chunked body's length


cdef const char *_parse_error(int status) noexcept nogil:
    if status == 414:
        return b"request line is too long"
    if status == 431:
        return b"request header is too large"
    if status == 501:
        return b"transfer coding is not supported"
    if status == 505:
        return b"HTTP version is not supported: use HTTP/1.1 or HTTP/1.0"
    return b"bad request: malformed HTTP"


cdef void _refuse_at_head(Http1Io *io, uint32_t slot, const TextAnswer *answer, bint expects) noexcept nogil:
    # A small body that is on its way is read, so that the connection can be kept.
    cdef Http1 *h = &io.states[slot]
    if h.chunked or h.remaining > SMALL_BODY or (expects and h.remaining):
        h.keep_alive = False
        h.linger = True
        _write_text(io, slot, answer)
    elif h.remaining:
        h.refusal = answer[0]
        _enter(h, HTTP1_DISCARD)
        connection_arm(&io.connections, slot, TIMER_BODY, io.now)
    else:
        _write_text(io, slot, answer)


cdef void _submit_target(Http1Io *io, uint32_t slot, const char *head) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef uint32_t n = io.request.target.length
    if h.chunked or h.remaining:
        # A body without a meaning (RFC 9110 section 9.3.1): where it ends is what requests are smuggled with.
        _refuse(io, slot, 400, b"bad request: this route takes no body")
        return
    if _reserve_body(io, slot, n):
        memcpy(h.body.data, head + io.request.target.start, n)
        h.received = n
        _submit_body(io, slot)


cdef void _accept_body(Http1Io *io, uint32_t slot, bint more_is_here) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if not h.chunked and h.remaining == 0:
        _answer_empty(io, slot)
        return
    if h.remaining > io.max_body:
        _refuse(io, slot, 413, b"request body is too large")
        return
    if not _reserve_body(io, slot, CHUNKED_START if h.chunked else h.remaining):
        return
    _enter(h, HTTP1_BODY)
    connection_arm(&io.connections, slot, TIMER_BODY, io.now)
    if io.request.expect_continue and not more_is_here:
        _write_continue(io, slot)


cdef void _begin(Http1Io *io, uint32_t slot, const char *head, bint more_is_here) noexcept nogil:
    # The head is complete: what becomes of the request?
    cdef Http1 *h = &io.states[slot]
    cdef HttpRequest *request = &io.request
    cdef Decision decision
    cdef const char *path = head + request.path.start
    cdef int path_n = <int>request.path.length
    h.minor = request.minor
    h.keep_alive = request.keep_alive
    h.linger = False
    h.is_head = request.method == METHOD_HEAD
    h.arrived = io.now
    h.route = NO_ROUTE                 # none yet
    h.received = 0
    h.chunked = request.body == BODY_CHUNKED
    h.remaining = request.content_length if request.body == BODY_LENGTH else 0
    if h.chunked:
        chunked_begin(&h.decoder)
    if request.path_encoded:
        path_n = http_decode_path(path, request.path.length, io.path)
        path = io.path
        if path_n < 0:
            _refuse(io, slot, -path_n, b"bad request: malformed percent-encoding in the path")
            return
    service_admit(io.service, head, request, path, <size_t>path_n, &decision)
    h.route = decision.route
    h.task_flags = decision.flags
    h.deadline = decision.deadline
    if decision.answer.status != 0:
        _refuse_at_head(io, slot, &decision.answer, request.expect_continue)
    elif request.bad_expectation:
        _refuse(io, slot, 417, b"expectation failed: only 100-continue is known")
    elif decision.wants_target:
        _submit_target(io, slot, head)
    else:
        _accept_body(io, slot, more_is_here)


cdef void _put_aside(Http1Io *io, Http1 *h) noexcept nogil:
    # Without memory for its state the head is parsed from its start when more of it comes.
    cdef size_t n = http_request_size(&io.request)
    cdef HttpRequest *partial = <HttpRequest *>realloc(h.partial, n)
    if partial == NULL:
        free(h.partial)
    else:
        memcpy(partial, &io.request, n)
    h.partial = partial


cdef size_t _take_head(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    # Returns the bytes consumed; 0 when the head is not complete.
    cdef Http1 *h = &io.states[slot]
    cdef int consumed
    if h.partial != NULL:
        memcpy(&io.request, h.partial, http_request_size(h.partial))
    else:
        io.request.seen = 0
    consumed = http_parse(&io.request, data, n, &io.limits)
    if consumed == HTTP_PARTIAL:
        if io.connections.all[slot].timer == TIMER_IDLE:
            connection_arm(&io.connections, slot, TIMER_HEADER, io.now)
        _put_aside(io, h)
        return 0
    io.heads += 1
    free(h.partial)
    h.partial = NULL
    if consumed < 0:
        _refuse_head(io, slot, -consumed, _parse_error(-consumed))
        return n
    _begin(io, slot, data, <size_t>consumed < n)
    return <size_t>consumed


cdef size_t _feed(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    # Goes on as far as the bytes reach; returns how many were consumed. The connection may be closed afterwards.
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint32_t generation = c.generation
    cdef size_t at = 0
    cdef size_t step
    while at < n and c.generation == generation and io.heads < HTTP1_HEADS:
        if h.phase == HTTP1_HEAD:
            step = _take_head(io, slot, data + at, n - at)
            if step == 0:
                break
        elif h.phase == HTTP1_BODY:
            step = _take_body(io, slot, data + at, n - at)
        elif h.phase == HTTP1_DISCARD:
            step = _discard_body(io, slot, n - at)
        elif h.phase == HTTP1_LINGER or not h.keep_alive and h.phase == HTTP1_WRITE:
            step = n - at
        else:
            break
        at += step
    return at


cdef size_t _feed_kept(Http1Io *io, uint32_t slot) noexcept nogil:
    # Feeds what an earlier read left in place, mostly pipelined requests; returns how many bytes were consumed.
    cdef Connection *c = &io.connections.all[slot]
    cdef uint32_t generation = c.generation
    cdef size_t used = _feed(io, slot, c.input + c.input_start, c.input_n)
    if c.generation == generation:
        connection_consume(c, used)
    return used


cdef int64_t _receive_and_feed(Http1Io *io, uint32_t slot) noexcept nogil:
    # An incomplete head is put in front of what is received; as it is at most half of the buffer, it leaves room.
    cdef Connection *c = &io.connections.all[slot]
    cdef uint32_t generation = c.generation
    cdef size_t n = connection_take_input(c, io.scratch)
    cdef size_t used
    cdef int64_t got = connection_receive(c, io.scratch + n, HTTP1_SCRATCH - n)
    if got == RECEIVE_GONE:
        return got
    if got > 0:
        n += got
        used = _feed(io, slot, io.scratch, n)
        if c.generation != generation:
            return got
    else:
        used = 0
    if used < n and connection_keep_input(c, io.scratch + used, n - used) != 0:
        return RECEIVE_GONE
    return got


cdef int64_t _receive_and_drop(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef int64_t got
    connection_consume(c, c.input_n)
    got = connection_receive(c, io.scratch, HTTP1_SCRATCH)
    if got > 0:
        c.moved += got
        io.states[slot].received += got
        if io.states[slot].received > LINGER_BYTES:
            return RECEIVE_GONE
    return got


cdef bint _wants_bytes(const Http1 *h) noexcept nogil:
    return h.phase < HTTP1_WAIT or h.phase == HTTP1_LINGER


cdef int64_t _step(Http1Io *io, uint32_t slot, uint64_t quota) noexcept nogil:
    # Returns the bytes by which the connection advanced; RECEIVE_AGAIN, RECEIVE_GONE; 0 at the client's FIN.
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef size_t used
    if h.phase == HTTP1_LINGER:
        return _receive_and_drop(io, slot)
    if c.input_n and h.partial == NULL:
        used = _feed_kept(io, slot)
        if used:
            return <int64_t>used
    if not c.readable:
        return RECEIVE_AGAIN
    if h.phase == HTTP1_BODY and _body_is_plain(io, slot):
        return _receive_body(io, slot, quota)
    return _receive_and_feed(io, slot)


cdef void _advance(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint32_t generation = c.generation
    cdef uint64_t quota = HTTP1_QUOTA
    cdef int64_t got
    io.heads = 0
    while _wants_bytes(h) and (c.readable or c.input_n):
        got = _step(io, slot, quota)
        if c.generation != generation:
            return
        if got == RECEIVE_GONE:
            http1_shut(io, slot)
            return
        if got <= 0:
            break
        if <uint64_t>got >= quota or io.heads >= HTTP1_HEADS:
            connection_list(&io.connections, slot)
            return
        quota -= got
    # The client sends nothing more: its complete requests are answered, an incomplete one is not.
    if c.read_closed and not c.readable and _wants_bytes(h):
        http1_shut(io, slot)


# ---- bodies --------------------------------------------------------------------------------------

# Reads request bodies from the socket into shared memory.

cdef enum:
    LONG_CHUNK = 16384             # bytes still to come of a chunk that is worth a receive of its own


cdef void _await_answer(Http1Io *io, uint32_t slot) noexcept nogil:
    # After a FIN the kernel reports nothing more of a client, not even that it has closed. Sending finds out: a reset
    # comes back. HTTP/1.0 has no interim response that could be sent.
    cdef bint silent = io.connections.all[slot].read_closed and io.states[slot].minor == 1
    _enter(&io.states[slot], HTTP1_WAIT)
    connection_arm(&io.connections, slot, TIMER_PROBE if silent else TIMER_NONE, io.now)


cdef void _submit_body(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef Request request
    cdef Decision decision
    request.connection = slot
    request.generation = io.connections.all[slot].generation
    request.route = h.route
    request.flags = h.task_flags
    request.deadline = h.deadline
    request.block = h.body.block
    request.length = h.received
    h.body.block = NO_BLOCK
    h.chunked = False
    _await_answer(io, slot)
    service_submit(io.service, &request, &decision)
    debug_assert(h.phase == HTTP1_WAIT)    # no task is answered while it is submitted
    h.task = decision.task
    if decision.answer.status != 0:
        _write_text(io, slot, &decision.answer)
    elif decision.streams:
        _begin_stream(io, slot)


cdef bint _reserve_body(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef int rc = service_reserve(io.service, bytes, &h.body)
    if rc == MEMORY_FULL and _relieve_pressure(io, slot, bytes):
        rc = service_reserve(io.service, bytes, &h.body)
    if rc != 0:
        h.body.block = NO_BLOCK
        _refuse_for_memory(io, slot)
    return rc == 0


cdef void _answer_empty(Http1Io *io, uint32_t slot) noexcept nogil:
    # Answered without a worker, and therefore counted under no route.
    cdef TextAnswer answer = TextAnswer(status=200, text=b"no data provided", extra=NULL)
    io.states[slot].route = NO_ROUTE
    _write_text(io, slot, &answer)


cdef size_t _take_length(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if n > h.remaining:
        n = h.remaining
    memcpy(h.body.data + h.received, data, n)
    h.received += n
    h.remaining -= n
    io.connections.all[slot].moved += n
    if h.remaining == 0:
        _submit_body(io, slot)
    return n


cdef bint _make_room(Http1Io *io, uint32_t slot, uint64_t n) noexcept nogil:
    # Makes room for `n` more bytes of a chunked body; False: the request was refused.
    cdef Http1 *h = &io.states[slot]
    # No more than is needed: blocks have power-of-two sizes, so that the next one has room for as much again.
    cdef uint64_t wanted = h.received + n
    cdef int rc
    if wanted <= h.body.capacity:
        return True
    rc = service_grow(io.service, h.received, wanted, &h.body)
    if rc == MEMORY_FULL and _relieve_pressure(io, slot, wanted):
        rc = service_grow(io.service, h.received, wanted, &h.body)
    if rc != 0:
        _refuse_for_memory(io, slot)
    return rc == 0


cdef bint _append(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    # Appends data of a chunk; False when the request was refused.
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
            _refuse(io, slot, -rc, b"bad request: malformed chunked body")
            return n
        if rc == CHUNK_DONE:
            _end_chunks(io, slot)
            return at
        expected = chunked_expected(&h.decoder)        # so that a chunk too large is refused before its data comes
        if expected > io.max_body or h.received + span_n + expected > io.max_body:
            _refuse(io, slot, 413, b"request body is too large")
            return n
        if rc == CHUNK_DATA and not _append(io, slot, span, span_n):
            return n
    return n


cdef void _end_chunks(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if h.received:
        _submit_body(io, slot)
        return
    h.chunked = False
    block_drop(&io.service.dispatcher, h.body.block)
    h.body.block = NO_BLOCK
    _answer_empty(io, slot)


cdef size_t _take_body(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    if io.states[slot].chunked:
        return _take_chunks(io, slot, data, n)
    return _take_length(io, slot, data, n)


cdef size_t _discard_body(Http1Io *io, uint32_t slot, size_t n) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if n > h.remaining:
        n = h.remaining
    h.remaining -= n
    io.connections.all[slot].moved += n
    if h.remaining == 0:
        _write_text(io, slot, &h.refusal)
    return n


cdef bint _body_is_plain(const Http1Io *io, uint32_t slot) noexcept nogil:
    cdef const Http1 *h = &io.states[slot]
    return not h.chunked or chunked_expected(&h.decoder) >= LONG_CHUNK


cdef int64_t _receive_body(Http1Io *io, uint32_t slot, uint64_t quota) noexcept nogil:
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
            _submit_body(io, slot)
    return got


# ---- answers -------------------------------------------------------------------------------------

# Writes answers, and decides what becomes of the connection afterwards.

cdef extern from "<sys/socket.h>" nogil:
    int shutdown(int fd, int how)
    int SHUT_WR

cdef const char *TEXT_PLAIN = b"text/plain; charset=utf-8"
# Memory is free again as soon as answers are sent: the shortest time that RFC 9110 section 10.2.3 can express.
cdef const char *RETRY_SOON = b"retry-after: 1\r\n"
cdef const char *CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef void http1_shut(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if h.phase == HTTP1_WAIT or h.phase == HTTP1_STREAM:
        service_withdraw(io.service, h.task)
    if h.body.block != NO_BLOCK:
        block_drop(&io.service.dispatcher, h.body.block)
        h.body.block = NO_BLOCK
    if h.answer_block != NO_BLOCK:
        block_drop(&io.service.dispatcher, h.answer_block)
        h.answer_block = NO_BLOCK
    free(h.partial)
    h.partial = NULL
    h.phase = HTTP1_HEAD               # of the slot's next connection
    connection_close(&io.connections, slot)


cdef void _linger(Http1Io *io, uint32_t slot) noexcept nogil:
    # An early close would reset the connection, and the client could lose the answer (RFC 9112 section 9.6).
    cdef Connection *c = &io.connections.all[slot]
    shutdown(c.fd, SHUT_WR)
    _enter(&io.states[slot], HTTP1_LINGER)
    io.states[slot].received = 0
    io.states[slot].arrived = io.now
    connection_arm(&io.connections, slot, TIMER_LINGER, io.now)
    connection_list(&io.connections, slot)


cdef bint _more_came(Connection *c) noexcept nogil:
    cdef char[64] some
    return c.input_n > 0 or (c.readable and connection_receive(c, some, sizeof(some)) > 0)


cdef void _sent(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    if h.answer_block != NO_BLOCK:
        block_drop(&io.service.dispatcher, h.answer_block)
        h.answer_block = NO_BLOCK
    if not h.keep_alive:
        if h.linger or _more_came(c):
            _linger(io, slot)
        else:
            http1_shut(io, slot)
        return
    if c.read_closed and not c.readable and not c.input_n:
        http1_shut(io, slot)
        return
    _enter(h, HTTP1_HEAD)
    connection_arm(&io.connections, slot, TIMER_IDLE, io.now)
    if c.input_n or c.readable:
        connection_list(&io.connections, slot)


cdef void _write(Http1Io *io, uint32_t slot, const Answer *answer) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef char[HTTP_HEAD_ROOM] head
    cdef uint32_t flags = 0
    cdef uint32_t n
    cdef int rc
    if io.draining:
        h.keep_alive = False
    if not h.keep_alive:
        flags = WRITE_CLOSE
    elif h.minor == 0:
        flags = WRITE_KEEP_ALIVE_10
    n = writer_head(&io.writer, head, answer.status, answer.content_type, answer.content_type_n,
                    answer.payload_n, answer.extra, answer.extra_n, flags)
    service_count(io.service, h.route, answer.status)
    _enter(h, HTTP1_WRITE)
    h.answer_block = answer.block
    rc = connection_send(c, head, n, answer.payload, 0 if h.is_head else answer.payload_n)
    if rc == SEND_DONE:
        _sent(io, slot)
    elif rc == SEND_AGAIN:
        connection_arm(&io.connections, slot, TIMER_WRITE, io.now)
    else:
        http1_shut(io, slot)


cdef bint _write_continue(Http1Io *io, uint32_t slot) noexcept nogil:
    if connection_send(&io.connections.all[slot], CONTINUE, strlen(CONTINUE), NULL, 0) == SEND_GONE:
        http1_shut(io, slot)
        return False
    return True


cdef void _write_text(Http1Io *io, uint32_t slot, const TextAnswer *text) noexcept nogil:
    cdef Answer answer
    answer.status = text.status
    answer.content_type = TEXT_PLAIN
    answer.content_type_n = 0 if text.status == 204 else strlen(TEXT_PLAIN)
    answer.payload = <const uint8_t *>text.text
    answer.payload_n = strlen(text.text)
    answer.block = NO_BLOCK
    answer.extra = text.extra
    answer.extra_n = 0 if text.extra == NULL else strlen(text.extra)
    _write(io, slot, &answer)


cdef void _refuse(Http1Io *io, uint32_t slot, int status, const char *text) noexcept nogil:
    # The connection's framing can no longer be trusted, or the rest of the request is not worth reading: answer and
    # close.
    cdef Http1 *h = &io.states[slot]
    cdef TextAnswer answer = TextAnswer(status=status, text=text, extra=NULL)
    if status == 503:
        answer.extra = RETRY_SOON
    h.keep_alive = False
    h.linger = True
    if h.body.block != NO_BLOCK:
        block_drop(&io.service.dispatcher, h.body.block)
        h.body.block = NO_BLOCK
    _write_text(io, slot, &answer)


cdef void _refuse_head(Http1Io *io, uint32_t slot, int status, const char *text) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    h.minor = 1
    h.is_head = False
    h.route = NO_ROUTE
    h.arrived = io.now
    _refuse(io, slot, status, text)


# ---- streams of events ---------------------------------------------------------------------------

# An answer that is a stream of events: chunked (RFC 9112 section 7.1), for HTTP/1.0 until the connection closes.
#
# What is unsent lies in one block, `Http1.body`, from `Connection.payload` on; while all is sent there is none.

cdef const char *EVENT_STREAM = b"text/event-stream"
cdef const char *PASS_ON = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"  # to caches, and to nginx
cdef const char *COMMENT = b":\n\n"
cdef const char *CHUNKED_COMMENT = b"3\r\n:\n\n\r\n"
cdef const char *LAST_CHUNK = b"0\r\n\r\n"

cdef enum:
    CHUNK_FRAME = 20               # bytes around a chunk's data: 16 digits at most, and two line ends
    # Bytes that are sent at once. Not more than STREAM_LITTLE: a slot whose events core has taken, with more than that
    # still under way, knows that the socket is full.
    MUCH = 1 << 16


cdef void _begin_stream(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef char[HTTP_HEAD_ROOM] head
    cdef uint32_t flags, n
    _enter(h, HTTP1_STREAM)
    h.chunked = h.minor == 1
    if not h.chunked or io.draining:
        h.keep_alive = False
    flags = WRITE_CHUNKED if h.chunked else WRITE_NO_LENGTH
    if not h.keep_alive:
        flags |= WRITE_CLOSE
    n = writer_head(&io.writer, head, 200, EVENT_STREAM, strlen(EVENT_STREAM), 0, PASS_ON, strlen(PASS_ON), flags)
    _stream_sent(io, slot, connection_send(&io.connections.all[slot], head, n, NULL, 0))


cdef void _stream_sent(Http1Io *io, uint32_t slot, int rc) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    if rc == SEND_GONE:
        http1_shut(io, slot)
        return
    stream_acknowledge(&io.service.dispatcher, h.task, c.payload_n)
    if rc != SEND_DONE:
        if c.timer != TIMER_WRITE:
            connection_arm(&io.connections, slot, TIMER_WRITE, io.now)
        return
    if h.body.block != NO_BLOCK:
        block_drop(&io.service.dispatcher, h.body.block)
        h.body.block = NO_BLOCK
    connection_arm(&io.connections, slot, TIMER_STREAM, io.now)


cdef bint _is_blocked(const Connection *c) noexcept nogil:
    # The socket is full; an event of the loop reports when it has room again.
    return c.timer == TIMER_WRITE


cdef void _flush_stream(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    if not _is_blocked(c) and connection_has_output(c):
        _stream_sent(io, slot, connection_flush(c))


cdef uint8_t *_room(Http1Io *io, uint32_t slot, uint64_t n) noexcept nogil:
    # Room for `n` bytes behind what is unsent; NULL: no memory is left.
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint64_t needed = c.payload_n + n
    cdef uint64_t start
    if h.body.block == NO_BLOCK:
        h.body.capacity = 0
    start = <uint64_t>(c.payload - h.body.data) if c.payload_n else 0
    if start + needed > h.body.capacity:
        if needed <= h.body.capacity - h.body.capacity // 4:       # moving pays only where it makes much room
            memmove(h.body.data, c.payload, c.payload_n)
        elif service_buffer(io.service, c.payload, c.payload_n, max(needed, h.body.capacity + 1), &h.body) != 0:
            return NULL
        start = 0
    c.payload = h.body.data + start
    return h.body.data + start + c.payload_n


cdef uint8_t *_begin_chunk(const Http1 *h, uint8_t *to, uint64_t n) noexcept nogil:
    return to + snprintf(<char *>to, CHUNK_FRAME, b"%llx\r\n", <unsigned long long>n) if h.chunked else to


cdef void _end_chunk(Connection *c, const Http1 *h, uint8_t *to) noexcept nogil:
    if h.chunked:
        memcpy(to, b"\r\n", 2)
        to += 2
    c.payload_n = to - c.payload


cdef void _put_event(Http1Io *io, uint32_t slot, const uint8_t *event, uint64_t n) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint8_t *to
    if n == 0:                                       # a chunk of no bytes would be the last
        return
    to = _room(io, slot, n + CHUNK_FRAME)
    if to == NULL:
        http1_shut(io, slot)                         # cut short, so that the client does not take it for the end
        return
    to = _begin_chunk(h, to, n)
    memcpy(to, event, n)
    _end_chunk(c, h, to + n)
    if c.payload_n >= MUCH:
        _flush_stream(io, slot)
    elif not _is_blocked(c):
        connection_list(&io.connections, slot)


cdef bint _put_error(Http1Io *io, uint32_t slot, const Answer *answer) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef char[96] prefix
    cdef uint64_t n
    cdef uint8_t *to
    snprintf(prefix, sizeof(prefix), b"SSE inference error: %d: %s: ", answer.status, http_reason(answer.status))
    n = event_bytes(b"error", prefix, answer.payload, answer.payload_n)
    to = _room(io, slot, n + CHUNK_FRAME)
    if to == NULL:
        return False
    to = event_write(_begin_chunk(h, to, n), b"error", prefix, answer.payload, answer.payload_n)
    _end_chunk(&io.connections.all[slot], h, to)
    return True


cdef bint _put_last_chunk(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef size_t n = strlen(LAST_CHUNK)
    cdef uint8_t *to
    if not io.states[slot].chunked:
        return True
    to = _room(io, slot, n)
    if to == NULL:
        return False
    memcpy(to, LAST_CHUNK, n)
    c.payload_n += n
    return True


cdef void _finish(Http1Io *io, uint32_t slot, int rc) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    if rc == SEND_DONE:
        _sent(io, slot)
    elif rc == SEND_GONE:
        http1_shut(io, slot)
    elif not _is_blocked(c):
        connection_arm(&io.connections, slot, TIMER_WRITE, io.now)


cdef void _end_stream(Http1Io *io, uint32_t slot, const Answer *answer) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef bint whole = answer.status == 200 or _put_error(io, slot, answer)
    cdef bint quiet = not connection_has_output(c)   # then the last chunk needs no block
    _enter(h, HTTP1_WRITE)
    service_count(io.service, h.route, answer.status)
    if answer.block != NO_BLOCK:
        block_drop(&io.service.dispatcher, answer.block)
    if io.draining:
        h.keep_alive = False
    if not whole or not quiet and not _put_last_chunk(io, slot):
        http1_shut(io, slot)
        return
    h.answer_block = h.body.block
    h.body.block = NO_BLOCK
    if not quiet:
        if not _is_blocked(c):
            _finish(io, slot, connection_flush(c))
    elif h.chunked:
        _finish(io, slot, connection_send(c, LAST_CHUNK, strlen(LAST_CHUNK), NULL, 0))
    else:
        _finish(io, slot, SEND_DONE)


cdef void _put_comment(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef const char *text = CHUNKED_COMMENT if io.states[slot].chunked else COMMENT
    if not connection_has_output(c):
        _stream_sent(io, slot, connection_send(c, text, strlen(text), NULL, 0))
    elif not _is_blocked(c):
        connection_arm(&io.connections, slot, TIMER_STREAM, io.now)


# ---- memory pressure -----------------------------------------------------------------------------

# When memory for bodies is used up, transfers that hold much of it and hardly move make way for others.
#
# The time-outs ask for so little progress that a client on a bad line is served. A few hundred clients that ask for the
# largest body each, and then send no more than that little, would hold all memory for hours. So under pressure the pace
# of a transfer is measured by the memory that it holds.

cdef enum:
    HOME_MS = 60_000               # a transfer that would take longer than this at its pace is slow
    WATCHED_PART = 8               # of its time-out: a transfer is watched for that long before its pace counts
    EXAMINED = 256                 # transfers looked at for one request, and
    EVICTED = 64                   # at most so many of them are ended: the loop has others to serve


cdef void _refuse_for_memory(Http1Io *io, uint32_t slot) noexcept nogil:
    _refuse(io, slot, 503, b"service is out of memory for request bodies (--budget)")


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
        _refuse_for_memory(io, slot)
    else:
        http1_shut(io, slot)


cdef uint32_t _relieve(Http1Io *io, uint32_t but, uint8_t timer, uint64_t bytes) noexcept nogil:
    # Returns how many transfers it has evicted. The list is in the order in which they began to be watched.
    cdef Connections *t = &io.connections
    cdef uint32_t slot = t.timers[timer].head
    cdef uint32_t following
    cdef uint32_t evicted = 0
    cdef uint64_t watched
    for _ in range(EXAMINED):
        if slot == NO_INDEX or evicted == EVICTED:
            break
        watched = io.now + t.duration[timer] - t.all[slot].deadline
        if watched < t.duration[timer] // WATCHED_PART:
            break
        following = t.all[slot].timer_link.next
        if slot != but and _is_slow(io, slot, watched):
            _evict(io, slot)
            evicted += 1
            if service_fits(io.service, bytes):
                break
        slot = following
    return evicted


cdef bint _relieve_pressure(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil:
    cdef uint32_t evicted = _relieve(io, slot, TIMER_BODY, bytes)
    if evicted == 0 or not service_fits(io.service, bytes):
        evicted += _relieve(io, slot, TIMER_WRITE, bytes)
    return evicted != 0
