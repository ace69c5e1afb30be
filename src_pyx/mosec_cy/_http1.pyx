"""HTTP/1.x on a connection (RFC 9112): read a request, hand it over, write the answer."""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset, strlen

from mosec_cy._connection cimport (
    NO_CONNECTION,
    RECEIVE_AGAIN,
    RECEIVE_GONE,
    SEND_AGAIN,
    SEND_DONE,
    TIMER_BODY,
    TIMER_HEADER,
    TIMER_IDLE,
    TIMER_LINGER,
    TIMER_NONE,
    TIMER_WRITE,
    connection_arm,
    connection_close,
    connection_expired,
    connection_flush,
    connection_keep_input,
    connection_list,
    connection_open,
    connection_receive,
    connection_send,
    connection_take_input,
    connections_close,
    connections_open,
)
from mosec_cy._http_chunked cimport CHUNK_DATA, CHUNK_DONE, chunked_begin, chunked_step
from mosec_cy._http_parser cimport (
    BODY_CHUNKED,
    BODY_LENGTH,
    HTTP_PARTIAL,
    METHOD_HEAD,
    http_decode_path,
    http_parse,
    http_request_size,
)
from mosec_cy._http_writer cimport HTTP_HEAD_ROOM, WRITE_CLOSE, WRITE_KEEP_ALIVE_10, writer_head
from mosec_cy._linux cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from mosec_cy._ring cimport NO_BLOCK

cdef extern from "<sys/socket.h>" nogil:
    int shutdown(int fd, int how)
    int SHUT_WR

cdef enum:
    SMALL_BODY = 65536             # of a refused request: read it and keep the connection
    LINGER_BYTES = 16777216        # of a refused upload that are thrown away before the connection is cut
    CHUNKED_START = 8192           # first guess of a chunked body's length
    LEAST_RATE = 1024              # bytes a second below which a body or a reader is too slow

cdef const char *TEXT_PLAIN = b"text/plain; charset=utf-8"
cdef const char *CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


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
    if io.connections.all != NULL:
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


cdef void _close(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if h.phase == HTTP1_WAIT:
        io.service.withdraw(io.service.context, h.task)
    if h.body.block != NO_BLOCK:
        io.service.discard(io.service.context, h.body.block)
        h.body.block = NO_BLOCK
    if h.answer_block != NO_BLOCK:
        io.service.released(io.service.context, h.answer_block)
        h.answer_block = NO_BLOCK
    free(h.partial)
    h.partial = NULL
    h.phase = HTTP1_HEAD
    connection_close(&io.connections, slot)


# ---- writing -------------------------------------------------------------------------------------


cdef void _linger(Http1Io *io, uint32_t slot) noexcept nogil:
    # An early close would reset the connection and take the answer from the client's hands (RFC 9112 section 9.6).
    cdef Connection *c = &io.connections.all[slot]
    shutdown(c.fd, SHUT_WR)
    io.states[slot].phase = HTTP1_LINGER
    io.states[slot].received = 0
    connection_arm(&io.connections, slot, TIMER_LINGER, io.now)
    connection_list(&io.connections, slot)


cdef void _sent(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    if h.answer_block != NO_BLOCK:
        io.service.released(io.service.context, h.answer_block)
        h.answer_block = NO_BLOCK
    if not h.keep_alive:
        if h.remaining or h.chunked or c.readable or c.input_n:
            _linger(io, slot)
        else:
            _close(io, slot)
        return
    if c.read_closed and not c.readable and not c.input_n:
        _close(io, slot)
        return
    h.phase = HTTP1_HEAD
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
    io.service.counted(io.service.context, h.route, answer.status, h.arrived)
    h.phase = HTTP1_WRITE
    h.answer_block = answer.block
    rc = connection_send(c, head, n, answer.payload, 0 if h.is_head else answer.payload_n)
    if rc == SEND_DONE:
        _sent(io, slot)
    elif rc == SEND_AGAIN:
        connection_arm(&io.connections, slot, TIMER_WRITE, io.now)
    else:
        _close(io, slot)


cdef bint http1_answer(Http1Io *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil:
    if slot >= io.connections.used or io.connections.all[slot].generation != generation:
        return False
    if io.states[slot].phase != HTTP1_WAIT:
        return False
    _write(io, slot, answer)
    return True


cdef void _answer_text(Http1Io *io, uint32_t slot, const Verdict *verdict) noexcept nogil:
    cdef Answer answer
    cdef char[128] allow
    cdef size_t n
    answer.status = verdict.status
    answer.content_type = TEXT_PLAIN
    answer.content_type_n = strlen(TEXT_PLAIN)
    answer.payload = <const uint8_t *>verdict.text
    answer.payload_n = strlen(verdict.text)
    answer.block = NO_BLOCK
    answer.extra = NULL
    answer.extra_n = 0
    if verdict.allow != NULL:
        n = strlen(verdict.allow)
        memcpy(allow, b"allow: ", 7)
        memcpy(allow + 7, verdict.allow, n)
        memcpy(allow + 7 + n, b"\r\n", 2)
        answer.extra = allow
        answer.extra_n = n + 9
    _write(io, slot, &answer)


cdef void _refuse(Http1Io *io, uint32_t slot, int status, const char *text) noexcept nogil:
    # The connection's framing can no longer be trusted, or its rest is not worth reading: answer and close.
    cdef Verdict verdict
    cdef Http1 *h = &io.states[slot]
    verdict.status = status
    verdict.text = text
    verdict.allow = NULL
    h.keep_alive = False
    if h.body.block != NO_BLOCK:
        io.service.discard(io.service.context, h.body.block)
        h.body.block = NO_BLOCK
    _answer_text(io, slot, &verdict)


cdef void _answer_empty(Http1Io *io, uint32_t slot) noexcept nogil:
    # Answered without a worker, and so counted under no route.
    cdef Verdict verdict
    verdict.status = 200
    verdict.text = b"no data provided"
    verdict.allow = NULL
    io.states[slot].route = NO_CONNECTION
    _answer_text(io, slot, &verdict)


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


# ---- reading -------------------------------------------------------------------------------------


cdef void _submit(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef Verdict verdict
    cdef uint32_t block = h.body.block
    h.body.block = NO_BLOCK
    h.chunked = False
    verdict.status = 0
    connection_arm(&io.connections, slot, TIMER_NONE, io.now)
    h.phase = HTTP1_WAIT
    io.service.submit(io.service.context, slot, io.connections.all[slot].generation, h.route, block, h.received,
                      &h.task, &verdict)
    if verdict.status != 0:
        _answer_text(io, slot, &verdict)


cdef bint _reserve(Http1Io *io, uint32_t slot, uint64_t bytes) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if io.service.reserve(io.service.context, bytes, &h.body) == 0:
        return True
    h.body.block = NO_BLOCK
    _refuse(io, slot, 503, b"service is out of memory for request bodies (--budget)")
    return False


cdef void _refuse_at_head(Http1Io *io, uint32_t slot, const Verdict *verdict, bint expects) noexcept nogil:
    # A small body that is on its way is read, so that the connection lives on.
    cdef Http1 *h = &io.states[slot]
    if h.chunked or h.remaining > SMALL_BODY or (expects and h.remaining):
        h.keep_alive = False
        _answer_text(io, slot, verdict)
    elif h.remaining:
        h.refusal = verdict[0]
        h.phase = HTTP1_DISCARD
        connection_arm(&io.connections, slot, TIMER_BODY, io.now)
    else:
        _answer_text(io, slot, verdict)


cdef void _submit_target(Http1Io *io, uint32_t slot, const char *head) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef uint32_t n = io.request.target.length
    if _reserve(io, slot, n):
        memcpy(h.body.data, head + io.request.target.start, n)
        h.received = n
        _submit(io, slot)


cdef void _accept_body(Http1Io *io, uint32_t slot, bint more_is_here) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    if not h.chunked and h.remaining == 0:
        _answer_empty(io, slot)
        return
    if h.remaining > io.max_body:
        _refuse(io, slot, 413, b"request body is too large")
        return
    if not _reserve(io, slot, CHUNKED_START if h.chunked else h.remaining):
        return
    h.phase = HTTP1_BODY
    connection_arm(&io.connections, slot, TIMER_BODY, io.now)
    if io.request.expect_continue and not more_is_here:
        if connection_send(c, CONTINUE, strlen(CONTINUE), NULL, 0) == RECEIVE_GONE:
            _close(io, slot)


cdef void _begin(Http1Io *io, uint32_t slot, const char *head, bint more_is_here) noexcept nogil:
    # The head is complete: what becomes of the request?
    cdef Http1 *h = &io.states[slot]
    cdef HttpRequest *request = &io.request
    cdef Verdict verdict
    cdef bint wants_target = False
    cdef const char *path = head + request.path.start
    cdef int path_n = <int>request.path.length
    h.minor = request.minor
    h.keep_alive = request.keep_alive
    h.is_head = request.method == METHOD_HEAD
    h.arrived = io.now
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
    verdict.status = 0
    verdict.allow = NULL
    io.service.judge(io.service.context, request, path, <size_t>path_n, &verdict, &wants_target)
    h.route = verdict.route
    if verdict.status != 0:
        _refuse_at_head(io, slot, &verdict, request.expect_continue)
    elif request.bad_expectation:
        _refuse(io, slot, 417, b"expectation failed: only 100-continue is known")
    elif wants_target:
        _submit_target(io, slot, head)
    else:
        _accept_body(io, slot, more_is_here)


cdef size_t _take_length(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if n > h.remaining:
        n = h.remaining
    memcpy(h.body.data + h.received, data, n)
    h.received += n
    h.remaining -= n
    io.connections.all[slot].moved += n
    if h.remaining == 0:
        _submit(io, slot)
    return n


cdef bint _append(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    # Data of a chunk; False when the request was refused.
    cdef Http1 *h = &io.states[slot]
    cdef uint64_t wanted
    if h.received + n > io.max_body:
        _refuse(io, slot, 413, b"request body is too large")
        return False
    if h.received + n > h.body.capacity:
        wanted = 2 * h.body.capacity
        if wanted < h.received + n:
            wanted = h.received + n
        if wanted > io.max_body:
            wanted = io.max_body
        if io.service.grow(io.service.context, h.received, wanted, &h.body) != 0:
            _refuse(io, slot, 503, b"service is out of memory for request bodies (--budget)")
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
    cdef int rc
    while at < n:
        rc = chunked_step(&h.decoder, data + at, n - at, &consumed, &span, &span_n)
        at += consumed
        if rc == CHUNK_DATA:
            if not _append(io, slot, span, span_n):
                return n
        elif rc == CHUNK_DONE:
            _end_chunks(io, slot)
            return at
        elif rc < 0:
            _refuse(io, slot, -rc, b"bad request: malformed chunked body")
            return n
        else:
            break
    return n


cdef void _end_chunks(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if h.received:
        _submit(io, slot)
        return
    h.chunked = False
    io.service.discard(io.service.context, h.body.block)
    h.body.block = NO_BLOCK
    _answer_empty(io, slot)


cdef size_t _take_discarded(Http1Io *io, uint32_t slot, size_t n) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if n > h.remaining:
        n = h.remaining
    h.remaining -= n
    if h.remaining == 0:
        _answer_text(io, slot, &h.refusal)
    return n


cdef void _put_aside(Http1Io *io, Http1 *h) noexcept nogil:
    # Without memory for its state the head is parsed anew when more of it comes.
    cdef size_t n = http_request_size(&io.request)
    cdef HttpRequest *partial = <HttpRequest *>realloc(h.partial, n)
    if partial == NULL:
        free(h.partial)
    else:
        memcpy(partial, &io.request, n)
    h.partial = partial


cdef size_t _take_head(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    # Bytes consumed; 0 when the head is not complete.
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
    free(h.partial)
    h.partial = NULL
    if consumed < 0:
        h.minor = 1
        h.is_head = False
        h.chunked = False
        h.remaining = 1                # what follows cannot be told: linger
        h.arrived = io.now
        h.route = NO_CONNECTION        # counted under no route
        _refuse(io, slot, -consumed, _parse_error(-consumed))
        return n
    _begin(io, slot, data, <size_t>consumed < n)
    return <size_t>consumed


cdef size_t _feed(Http1Io *io, uint32_t slot, const char *data, size_t n) noexcept nogil:
    # Goes on as far as the bytes reach; how many were consumed. The connection may be closed afterwards.
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint32_t generation = c.generation
    cdef size_t at = 0
    cdef size_t step
    while at < n and c.generation == generation:
        if h.phase == HTTP1_HEAD:
            step = _take_head(io, slot, data + at, n - at)
            if step == 0:
                break
        elif h.phase == HTTP1_BODY:
            step = _take_chunks(io, slot, data + at, n - at) if h.chunked else _take_length(io, slot, data + at, n - at)
        elif h.phase == HTTP1_DISCARD:
            step = _take_discarded(io, slot, n - at)
        elif h.phase == HTTP1_LINGER or not h.keep_alive and h.phase == HTTP1_WRITE:
            step = n - at
        else:
            break
        at += step
    return at


cdef int64_t _receive_into_block(Http1Io *io, uint32_t slot, uint64_t quota) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef int64_t got = connection_receive(c, h.body.data + h.received, h.remaining if h.remaining < quota else quota)
    if got > 0:
        h.received += got
        h.remaining -= got
        c.moved += got
        if h.remaining == 0:
            _submit(io, slot)
    return got


cdef int64_t _receive_and_feed(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef uint32_t generation = c.generation
    cdef size_t n = connection_take_input(c, io.scratch)
    cdef size_t kept = n
    cdef size_t used
    cdef int64_t got = RECEIVE_AGAIN
    if c.readable:
        got = connection_receive(c, io.scratch + n, HTTP1_SCRATCH - n)
        if got == RECEIVE_GONE:
            return got
        if got > 0:
            n += got
    used = _feed(io, slot, io.scratch, n)
    if c.generation == generation and used < n:
        if connection_keep_input(c, io.scratch + used, n - used) != 0:
            return RECEIVE_GONE
    # What was kept before counts as progress when it was consumed.
    return got if got > 0 or used == 0 or kept == 0 else <int64_t>used


cdef int64_t _receive_and_drop(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef int64_t got = connection_receive(&io.connections.all[slot], io.scratch, HTTP1_SCRATCH)
    if got > 0:
        io.states[slot].received += got
        if io.states[slot].received > LINGER_BYTES:
            return RECEIVE_GONE
    return got


cdef bint _wants_bytes(const Http1 *h) noexcept nogil:
    return h.phase != HTTP1_WAIT and h.phase != HTTP1_WRITE


cdef int64_t _step(Http1Io *io, uint32_t slot, uint64_t quota) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    if h.phase == HTTP1_LINGER:
        return _receive_and_drop(io, slot)
    if h.phase == HTTP1_BODY and not h.chunked and not c.input_n:
        return _receive_into_block(io, slot, quota)
    return _receive_and_feed(io, slot)


cdef void http1_advance(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint32_t generation = c.generation
    cdef uint64_t quota = HTTP1_QUOTA
    cdef int64_t got
    while _wants_bytes(h) and (c.readable or c.input_n):
        got = _step(io, slot, quota)
        if c.generation != generation:
            return
        if got == RECEIVE_GONE:
            _close(io, slot)
            return
        if got <= 0:
            break
        if <uint64_t>got >= quota:
            connection_list(&io.connections, slot)
            return
        quota -= got
    # The client sends nothing more: what it asked is answered, what it left half said is not.
    if c.read_closed and not c.readable and _wants_bytes(h):
        _close(io, slot)


# ---- events --------------------------------------------------------------------------------------


cdef void http1_event(Http1Io *io, uint32_t slot, uint32_t events) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef uint32_t generation = c.generation
    cdef int rc
    if events & <uint32_t>(EPOLLERR | EPOLLHUP):
        _close(io, slot)
        return
    if events & <uint32_t>EPOLLRDHUP:
        c.read_closed = True
    if events & <uint32_t>(EPOLLIN | EPOLLRDHUP):
        c.readable = True
    if events & <uint32_t>EPOLLOUT and io.states[slot].phase == HTTP1_WRITE:
        rc = connection_flush(c)
        if rc == SEND_DONE:
            _sent(io, slot)
        elif rc == RECEIVE_GONE:
            _close(io, slot)
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
        if t.all[slot].fd >= 0:
            http1_advance(io, slot)
    t.ready_n -= n
    for i in range(t.ready_n):
        t.ready[i] = t.ready[n + i]


cdef bint _moves(Http1Io *io, uint32_t slot, uint8_t timer) noexcept nogil:
    # Moved enough since the timer was armed: it gets another period.
    cdef Connection *c = &io.connections.all[slot]
    if c.moved < io.connections.duration[timer] // 1_000_000_000 * LEAST_RATE or c.moved == 0:
        return False
    connection_arm(&io.connections, slot, timer, io.now)
    return True


cdef void http1_expire(Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    cdef uint8_t timer
    while True:
        slot = connection_expired(&io.connections, io.now)
        if slot == NO_CONNECTION:
            return
        timer = io.connections.all[slot].timer
        if timer == TIMER_HEADER and io.connections.all[slot].input_n:
            io.states[slot].arrived = io.now
            io.states[slot].route = NO_CONNECTION
            _refuse(io, slot, 408, b"request header timeout")
        elif timer == TIMER_BODY:
            if not _moves(io, slot, timer):
                io.states[slot].remaining = 1      # the rest may still come: linger
                _refuse(io, slot, 408, b"request body timeout")
        elif timer == TIMER_WRITE:
            if not _moves(io, slot, timer):
                _close(io, slot)
        else:
            _close(io, slot)


cdef void http1_drain(Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    io.draining = True
    for slot in range(io.connections.used):
        if io.connections.all[slot].fd >= 0 and io.connections.all[slot].timer == TIMER_IDLE:
            _close(io, slot)


cdef bint http1_is_busy(const Http1Io *io) noexcept nogil:
    cdef uint32_t slot
    for slot in range(io.connections.used):
        if io.connections.all[slot].fd >= 0 and io.states[slot].phase != HTTP1_HEAD:
            return True
    return False
