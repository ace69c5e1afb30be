"""An answer that is a stream of events: chunked (RFC 9112 section 7.1), for HTTP/1.0 until the connection closes.

What is unsent lies in one block, `Http1.body`, from `Connection.payload` on; while all is sent there is none.
"""

from libc.stddef cimport size_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memmove, strlen

from mosec_cy._connection cimport (
    RECEIVE_GONE,
    SEND_DONE,
    TIMER_STREAM,
    TIMER_WRITE,
    Connection,
    connection_arm,
    connection_flush,
    connection_has_output,
    connection_list,
    connection_send,
)
from mosec_cy._event_stream cimport event_bytes, event_write
from mosec_cy._http1_state cimport HTTP1_STREAM, HTTP1_WRITE, Http1
from mosec_cy._http1_write cimport http1_sent, http1_shut
from mosec_cy._http_writer cimport (
    HTTP_HEAD_ROOM,
    WRITE_CHUNKED,
    WRITE_CLOSE,
    WRITE_NO_LENGTH,
    http_reason,
    writer_head,
)
from mosec_cy._ring cimport NO_BLOCK

cdef const char *EVENT_STREAM = b"text/event-stream"
cdef const char *PASS_ON = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"  # to caches, and to nginx
cdef const char *COMMENT = b":\n\n"
cdef const char *CHUNKED_COMMENT = b"3\r\n:\n\n\r\n"
cdef const char *LAST_CHUNK = b"0\r\n\r\n"

cdef enum:
    CHUNK_FRAME = 20               # bytes around a chunk's data: 16 digits at most, and two line ends
    # Bytes that are sent at once. Not more than STREAM_LITTLE: who sees its events taken and yet more than that under
    # way knows that the socket is full.
    MUCH = 1 << 16


cdef void stream_begin(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    cdef char[HTTP_HEAD_ROOM] head
    cdef uint32_t flags, n
    h.phase = HTTP1_STREAM
    h.chunked = h.minor == 1
    if not h.chunked or io.draining:
        h.keep_alive = False
    flags = WRITE_CHUNKED if h.chunked else WRITE_NO_LENGTH
    if not h.keep_alive:
        flags |= WRITE_CLOSE
    n = writer_head(&io.writer, head, 200, EVENT_STREAM, strlen(EVENT_STREAM), 0, PASS_ON, strlen(PASS_ON), flags)
    stream_sent(io, slot, connection_send(&io.connections.all[slot], head, n, NULL, 0))


cdef void stream_sent(Http1Io *io, uint32_t slot, int rc) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    if rc == RECEIVE_GONE:
        http1_shut(io, slot)
        return
    io.service.streamed(io.service.context, h.task, c.payload_n)
    if rc != SEND_DONE:
        if c.timer != TIMER_WRITE:
            connection_arm(&io.connections, slot, TIMER_WRITE, io.now)
        return
    if h.body.block != NO_BLOCK:
        io.service.discard(io.service.context, h.body.block)
        h.body.block = NO_BLOCK
    connection_arm(&io.connections, slot, TIMER_STREAM, io.now)


cdef bint _is_blocked(const Connection *c) noexcept nogil:
    # The socket is full: when it is so no more, the loop says so.
    return c.timer == TIMER_WRITE


cdef void stream_flush(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    if not _is_blocked(c) and connection_has_output(c):
        stream_sent(io, slot, connection_flush(c))


cdef uint8_t *_room(Http1Io *io, uint32_t slot, uint64_t n) noexcept nogil:
    # Room for `n` bytes behind what is unsent; NULL: there is no memory.
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
        elif io.service.buffer(io.service.context, c.payload, c.payload_n, max(needed, h.body.capacity + 1),
                               &h.body) != 0:
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


cdef void stream_put(Http1Io *io, uint32_t slot, const uint8_t *event, uint64_t n) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef uint8_t *to
    if n == 0:                                       # a chunk of no bytes would be the last
        return
    to = _room(io, slot, n + CHUNK_FRAME)
    if to == NULL:
        http1_shut(io, slot)                         # cut short: the client shall not take it for the end
        return
    to = _begin_chunk(h, to, n)
    memcpy(to, event, n)
    _end_chunk(c, h, to + n)
    if c.payload_n >= MUCH:
        stream_flush(io, slot)
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
        http1_sent(io, slot)
    elif rc == RECEIVE_GONE:
        http1_shut(io, slot)
    elif not _is_blocked(c):
        connection_arm(&io.connections, slot, TIMER_WRITE, io.now)


cdef void stream_end(Http1Io *io, uint32_t slot, const Answer *answer) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    cdef bint whole = answer.status == 200 or _put_error(io, slot, answer)
    cdef bint quiet = not connection_has_output(c)   # then the last chunk needs no block
    h.phase = HTTP1_WRITE
    io.service.counted(io.service.context, h.route, answer.status, h.arrived)
    if answer.block != NO_BLOCK:
        io.service.released(io.service.context, answer.block)
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


cdef void stream_comment(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef const char *text = CHUNKED_COMMENT if io.states[slot].chunked else COMMENT
    if not connection_has_output(c):
        stream_sent(io, slot, connection_send(c, text, strlen(text), NULL, 0))
    elif not _is_blocked(c):
        connection_arm(&io.connections, slot, TIMER_STREAM, io.now)
