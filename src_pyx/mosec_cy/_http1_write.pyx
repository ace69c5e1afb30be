"""Answers on an HTTP/1.x connection, and what becomes of it afterwards."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free
from libc.string cimport strlen

from mosec_cy._connection cimport (
    NO_CONNECTION,
    RECEIVE_GONE,
    SEND_AGAIN,
    SEND_DONE,
    TIMER_IDLE,
    TIMER_LINGER,
    TIMER_WRITE,
    Connection,
    connection_arm,
    connection_close,
    connection_list,
    connection_receive,
    connection_send,
)
from mosec_cy._http1_state cimport HTTP1_HEAD, HTTP1_LINGER, HTTP1_STREAM, HTTP1_WAIT, HTTP1_WRITE, Http1
from mosec_cy._http_writer cimport HTTP_HEAD_ROOM, WRITE_CLOSE, WRITE_KEEP_ALIVE_10, writer_head
from mosec_cy._ring cimport NO_BLOCK

cdef extern from "<sys/socket.h>" nogil:
    int shutdown(int fd, int how)
    int SHUT_WR

cdef const char *TEXT_PLAIN = b"text/plain; charset=utf-8"
# Memory comes back as soon as answers are sent: the shortest time that RFC 9110 section 10.2.3 can say.
cdef const char *RETRY_SOON = b"retry-after: 1\r\n"
cdef const char *CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef void http1_shut(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    if h.phase == HTTP1_WAIT or h.phase == HTTP1_STREAM:
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


cdef void _linger(Http1Io *io, uint32_t slot) noexcept nogil:
    # An early close would reset the connection and take the answer from the client's hands (RFC 9112 section 9.6).
    cdef Connection *c = &io.connections.all[slot]
    shutdown(c.fd, SHUT_WR)
    io.states[slot].phase = HTTP1_LINGER
    io.states[slot].received = 0
    io.states[slot].arrived = io.now
    connection_arm(&io.connections, slot, TIMER_LINGER, io.now)
    connection_list(&io.connections, slot)


cdef bint _more_came(Connection *c) noexcept nogil:
    cdef char[64] some
    return c.input_n > 0 or (c.readable and connection_receive(c, some, sizeof(some)) > 0)


cdef void http1_sent(Http1Io *io, uint32_t slot) noexcept nogil:
    cdef Connection *c = &io.connections.all[slot]
    cdef Http1 *h = &io.states[slot]
    if h.answer_block != NO_BLOCK:
        io.service.released(io.service.context, h.answer_block)
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
    h.phase = HTTP1_HEAD
    connection_arm(&io.connections, slot, TIMER_IDLE, io.now)
    if c.input_n or c.readable:
        connection_list(&io.connections, slot)


cdef void http1_write(Http1Io *io, uint32_t slot, const Answer *answer) noexcept nogil:
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
        http1_sent(io, slot)
    elif rc == SEND_AGAIN:
        connection_arm(&io.connections, slot, TIMER_WRITE, io.now)
    else:
        http1_shut(io, slot)


cdef bint http1_continue(Http1Io *io, uint32_t slot) noexcept nogil:
    if connection_send(&io.connections.all[slot], CONTINUE, strlen(CONTINUE), NULL, 0) == RECEIVE_GONE:
        http1_shut(io, slot)
        return False
    return True


cdef void http1_write_text(Http1Io *io, uint32_t slot, const Verdict *verdict) noexcept nogil:
    cdef Answer answer
    answer.status = verdict.status
    answer.content_type = TEXT_PLAIN
    answer.content_type_n = 0 if verdict.status == 204 else strlen(TEXT_PLAIN)
    answer.payload = <const uint8_t *>verdict.text
    answer.payload_n = strlen(verdict.text)
    answer.block = NO_BLOCK
    answer.extra = verdict.extra
    answer.extra_n = 0 if verdict.extra == NULL else strlen(verdict.extra)
    http1_write(io, slot, &answer)


cdef void http1_refuse(Http1Io *io, uint32_t slot, int status, const char *text) noexcept nogil:
    # The connection's framing can no longer be trusted, or its rest is not worth reading: answer and close.
    cdef Verdict verdict
    cdef Http1 *h = &io.states[slot]
    verdict.status = status
    verdict.text = text
    verdict.extra = NULL
    if status == 503:
        verdict.extra = RETRY_SOON
    h.keep_alive = False
    h.linger = True
    if h.body.block != NO_BLOCK:
        io.service.discard(io.service.context, h.body.block)
        h.body.block = NO_BLOCK
    http1_write_text(io, slot, &verdict)


cdef void http1_refuse_head(Http1Io *io, uint32_t slot, int status, const char *text) noexcept nogil:
    cdef Http1 *h = &io.states[slot]
    h.minor = 1
    h.is_head = False
    h.route = NO_CONNECTION            # counted under none
    h.arrived = io.now
    http1_refuse(io, slot, status, text)
