"""Reading on an HTTP/1.x connection (RFC 9112): request heads, and what becomes of a request."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from mosec_cy._connection cimport (
    NO_CONNECTION,
    RECEIVE_AGAIN,
    RECEIVE_GONE,
    TIMER_BODY,
    TIMER_HEADER,
    TIMER_IDLE,
    Connection,
    connection_arm,
    connection_consume,
    connection_keep_input,
    connection_list,
    connection_receive,
    connection_take_input,
)
from mosec_cy._http1_body cimport (
    body_answer_empty,
    body_discard,
    body_is_plain,
    body_receive,
    body_reserve,
    body_submit,
    body_take,
)
from mosec_cy._http1_service cimport Verdict
from mosec_cy._http1_state cimport (
    HTTP1_BODY,
    HTTP1_DISCARD,
    HTTP1_HEAD,
    HTTP1_HEADS,
    HTTP1_LINGER,
    HTTP1_QUOTA,
    HTTP1_SCRATCH,
    HTTP1_WAIT,
    HTTP1_WRITE,
    Http1,
)
from mosec_cy._http1_write cimport http1_continue, http1_refuse, http1_refuse_head, http1_shut, http1_write_text
from mosec_cy._http_chunked cimport chunked_begin
from mosec_cy._http_parser cimport (
    BODY_CHUNKED,
    BODY_LENGTH,
    HTTP_PARTIAL,
    METHOD_HEAD,
    HttpRequest,
    http_decode_path,
    http_parse,
    http_request_size,
)

cdef enum:
    SMALL_BODY = 65536             # of a refused request: read it and keep the connection
    LINGER_BYTES = 1 << 28         # of a refused upload that are thrown away before the connection is cut
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


cdef void _refuse_at_head(Http1Io *io, uint32_t slot, const Verdict *verdict, bint expects) noexcept nogil:
    # A small body that is on its way is read, so that the connection lives on.
    cdef Http1 *h = &io.states[slot]
    if h.chunked or h.remaining > SMALL_BODY or (expects and h.remaining):
        h.keep_alive = False
        h.linger = True
        http1_write_text(io, slot, verdict)
    elif h.remaining:
        h.refusal = verdict[0]
        h.phase = HTTP1_DISCARD
        connection_arm(&io.connections, slot, TIMER_BODY, io.now)
    else:
        http1_write_text(io, slot, verdict)


cdef void _submit_target(Http1Io *io, uint32_t slot, const char *head) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef uint32_t n = io.request.target.length
    if h.chunked or h.remaining:
        # A body without a meaning (RFC 9110 section 9.3.1): where it ends is what requests are smuggled with.
        http1_refuse(io, slot, 400, b"bad request: this route takes no body")
        return
    if body_reserve(io, slot, n):
        memcpy(h.body.data, head + io.request.target.start, n)
        h.received = n
        body_submit(io, slot)


cdef void _accept_body(Http1Io *io, uint32_t slot, bint more_is_here) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if not h.chunked and h.remaining == 0:
        body_answer_empty(io, slot)
        return
    if h.remaining > io.max_body:
        http1_refuse(io, slot, 413, b"request body is too large")
        return
    if not body_reserve(io, slot, CHUNKED_START if h.chunked else h.remaining):
        return
    h.phase = HTTP1_BODY
    connection_arm(&io.connections, slot, TIMER_BODY, io.now)
    if io.request.expect_continue and not more_is_here:
        http1_continue(io, slot)


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
    h.linger = False
    h.is_head = request.method == METHOD_HEAD
    h.arrived = io.now
    h.route = NO_CONNECTION            # none yet
    h.received = 0
    h.chunked = request.body == BODY_CHUNKED
    h.remaining = request.content_length if request.body == BODY_LENGTH else 0
    if h.chunked:
        chunked_begin(&h.decoder)
    if request.path_encoded:
        path_n = http_decode_path(path, request.path.length, io.path)
        path = io.path
        if path_n < 0:
            http1_refuse(io, slot, -path_n, b"bad request: malformed percent-encoding in the path")
            return
    verdict.status = 0
    verdict.extra = NULL
    verdict.flags = 0
    verdict.deadline = 0
    io.service.judge(io.service.context, head, request, path, <size_t>path_n, &verdict, &wants_target)
    h.route = verdict.route
    h.task_flags = verdict.flags
    h.deadline = verdict.deadline
    if verdict.status != 0:
        _refuse_at_head(io, slot, &verdict, request.expect_continue)
    elif request.bad_expectation:
        http1_refuse(io, slot, 417, b"expectation failed: only 100-continue is known")
    elif wants_target:
        _submit_target(io, slot, head)
    else:
        _accept_body(io, slot, more_is_here)


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
    io.heads += 1
    free(h.partial)
    h.partial = NULL
    if consumed < 0:
        http1_refuse_head(io, slot, -consumed, _parse_error(-consumed))
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
    while at < n and c.generation == generation and io.heads < HTTP1_HEADS:
        if h.phase == HTTP1_HEAD:
            step = _take_head(io, slot, data + at, n - at)
            if step == 0:
                break
        elif h.phase == HTTP1_BODY:
            step = body_take(io, slot, data + at, n - at)
        elif h.phase == HTTP1_DISCARD:
            step = body_discard(io, slot, n - at)
        elif h.phase == HTTP1_LINGER or not h.keep_alive and h.phase == HTTP1_WRITE:
            step = n - at
        else:
            break
        at += step
    return at


cdef size_t _feed_kept(Http1Io *io, uint32_t slot) noexcept nogil:
    # What an earlier read brought, pipelined requests mostly, where it lies; how many bytes were consumed.
    cdef Connection *c = &io.connections.all[slot]
    cdef uint32_t generation = c.generation
    cdef size_t used = _feed(io, slot, c.input + c.input_start, c.input_n)
    if c.generation == generation:
        connection_consume(c, used)
    return used


cdef int64_t _receive_and_feed(Http1Io *io, uint32_t slot) noexcept nogil:
    # A head that is not complete is put in front of what comes; it leaves room, being half of it at most.
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
    # Bytes that it went on by; RECEIVE_AGAIN, RECEIVE_GONE; 0 at the client's FIN.
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
    if h.phase == HTTP1_BODY and body_is_plain(io, slot):
        return body_receive(io, slot, quota)
    return _receive_and_feed(io, slot)


cdef void http1_advance(Http1Io *io, uint32_t slot) noexcept nogil:
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
    # The client sends nothing more: what it asked is answered, what it left half said is not.
    if c.read_closed and not c.readable and _wants_bytes(h):
        http1_shut(io, slot)
