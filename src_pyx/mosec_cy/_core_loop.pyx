"""The core's loop: events to connections and service, orders of the master, accepting."""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, ESRCH, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t
from libc.string cimport memset
from libc.time cimport time
from posix.unistd cimport close, read

from mosec_cy._batcher cimport NEVER
from mosec_cy._connection cimport connections_deadline
from mosec_cy._drain cimport drain_all
from mosec_cy._http1 cimport (
    http1_accept,
    http1_drain,
    http1_event,
    http1_expire,
    http1_farewell,
    http1_is_busy,
    http1_run_ready,
)
from mosec_cy._http1_write cimport http1_shut
from mosec_cy._http_writer cimport writer_set_time
from mosec_cy._linux cimport (
    EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, mosec_pidfd_open, mosec_pidfd_send_signal, store_relaxed_u64
)
from mosec_cy._loop cimport (
    TOKEN_CONNECTION,
    TOKEN_CONTROL,
    TOKEN_LISTENER,
    TOKEN_PROCESS,
    loop_add,
    loop_remove,
    loop_token,
    loop_wait,
    token_generation,
    token_kind,
    token_slot,
)
from mosec_cy._ring cimport bell_awake, bell_prepare
from mosec_cy._service cimport (
    service_deadline,
    service_expire,
    service_has_news,
    service_poll,
    service_row_dead,
    service_row_drain,
    service_row_ready,
    service_row_started,
    service_wake,
)
from mosec_cy._state cimport REPORT_ROW_KILLED, REPORT_ROW_OVERDUE, REPORT_RUNNING, REPORT_STOPPED, Link

cdef extern from "<signal.h>" nogil:
    int SIGKILL

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <linux/filter.h>
    #include <string.h>
    #include <sys/socket.h>
    /* One control message; a descriptor that came with it goes to *passed (-1: none). */
    static ssize_t control_receive(int fd, void *buffer, size_t n, int *passed) {
        char room[CMSG_SPACE(sizeof(int))];
        struct iovec part = {buffer, n};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
        ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        *passed = -1;
        if (got > 0) {
            struct cmsghdr *c = CMSG_FIRSTHDR(&message);
            if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(passed, CMSG_DATA(c), sizeof(int));
        }
        return got;
    }
    static int accept_connection(int listener) {
        int one = 1;
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)     /* fails on a unix socket, where it is not needed */
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
    }
    /* Ignore attempts to connect (TCP's SYN, RFC 9293 section 3.1): the client repeats its own a second later. */
    static void ignore_connects(int listener) {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),                 /* the segment's flags */
            BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, 0),
            BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        };
        struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
        setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    }
    """
    ssize_t control_receive(int fd, void *buffer, size_t n, int *passed) noexcept nogil
    int accept_connection(int listener) noexcept nogil
    void ignore_connects(int listener) noexcept nogil
    ssize_t send(int fd, const void *buffer, size_t n, int flags) noexcept nogil
    int shutdown(int fd, int how) noexcept nogil
    int MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RD

cdef enum:
    WAKE_EVERY = 16                    # events: by then a row that sleeps is told of its work
    ACCEPTS = 64                       # an event, before others get their turn
    HANDSHAKE_NS = 20_000_000          # for handshakes that are under way when nobody else may connect, at the end
    FAREWELL_NS = 250_000_000          # for clients that were connected when the port was shut, at the end
    ACCEPT_PAUSE_NS = 100_000_000      # when the system has no descriptors or memory
    SAFETY_LOOK_NS = 200_000_000       # longest sleep while a client waits

cdef enum:                             # orders of the master
    ORDER_ROW_STARTED = 1
    ORDER_ROW_READY = 2
    ORDER_ROW_DRAIN = 3
    ORDER_LISTEN = 4
    ORDER_SHUTDOWN = 5

ctypedef struct ControlMessage:        # "=IIIiQ"; both directions
    uint32_t kind
    uint32_t row
    uint32_t incarnation
    int32_t pid
    uint64_t value


# ---- control -------------------------------------------------------------------------------------


cdef void core_report(void *context, uint32_t kind, uint32_t row, uint64_t value) noexcept nogil:
    cdef Core *core = <Core *>context
    cdef ControlMessage message
    cdef int flags = MSG_NOSIGNAL
    memset(&message, 0, sizeof(message))
    message.kind = kind
    message.row = row
    message.value = value
    if kind != REPORT_STOPPED and kind != REPORT_RUNNING:
        message.incarnation = core.service.links[row].incarnation
        message.pid = core.service.links[row].pid
    if kind == REPORT_ROW_OVERDUE or kind == REPORT_ROW_KILLED:
        flags |= MSG_DONTWAIT          # news that may be lost when master is behind
    send(core.control, &message, sizeof(message), flags)


cdef bint _watch(Core *core, uint32_t row) noexcept nogil:
    # A row without a pidfd: the kernel found no free descriptor for the one that came with the order. False: it has
    # none even now.
    cdef Link *link = &core.service.links[row]
    if link.pidfd >= 0 or link.pid <= 0:
        return True
    link.pidfd = mosec_pidfd_open(link.pid)
    if link.pidfd >= 0:
        loop_add(&core.loop, link.pidfd, EPOLLIN, loop_token(TOKEN_PROCESS, link.incarnation, row))
        if link.given_up:
            mosec_pidfd_send_signal(link.pidfd, SIGKILL)     # as row_give_up could not
    elif errno == ESRCH:               # master has seen its end, and waits for us to say so
        service_row_dead(&core.service, row)
    else:
        return False
    return True


cdef void _row_started(Core *core, const ControlMessage *order, int pidfd) noexcept nogil:
    # A replica keeps its counts when it moves to another row: `value` is the row that they began in, 0 its own.
    cdef uint64_t counts = order.value if 0 < order.value < core.service.batcher.row_count else order.row
    core.service.links[order.row].statistics = core.service.row_statistics + counts
    service_row_started(&core.service, order.row, order.incarnation, order.pid, pidfd)
    if pidfd >= 0:
        loop_add(&core.loop, pidfd, EPOLLIN, loop_token(TOKEN_PROCESS, order.incarnation, order.row))
    elif not _watch(core, order.row) and (core.accepting or core.resume_at):
        _pause_accepting(core, core.loop.now + ACCEPT_PAUSE_NS)        # a row comes before any client


cdef void _set_accepting(Core *core, bint on) noexcept nogil:
    cdef uint32_t i
    cdef int rc = 0
    core.accepting = on
    for i in range(core.listener_count):
        if on:
            rc |= loop_add(&core.loop, core.listeners[i], EPOLLIN, loop_token(TOKEN_LISTENER, 0, i))
        else:
            loop_remove(&core.loop, core.listeners[i])
    if rc != 0:                        # the kernel has no memory for it now
        _pause_accepting(core, core.loop.now + ACCEPT_PAUSE_NS)


cdef void _obey(Core *core, const ControlMessage *order, int passed) noexcept nogil:
    if passed >= 0 and (order.kind != ORDER_ROW_STARTED or order.row >= core.service.batcher.row_count):
        close(passed)
    if order.row >= core.service.batcher.row_count:
        return
    if order.kind == ORDER_ROW_STARTED:
        _row_started(core, order, passed)
    elif order.kind == ORDER_ROW_READY:
        service_row_ready(&core.service, order.row, order.incarnation)
    elif order.kind == ORDER_ROW_DRAIN:
        service_row_drain(&core.service, order.row, order.incarnation)
    elif order.kind == ORDER_LISTEN:
        core.resume_at = core.loop.now
        _resume_accepting(core)
    elif order.kind == ORDER_SHUTDOWN:
        core.stop_at = order.value
        core.service.draining = True
        http1_drain(&core.io)


cdef void _read_control(Core *core) noexcept nogil:
    cdef ControlMessage order
    cdef int passed = -1
    cdef ssize_t got
    while True:
        got = control_receive(core.control, &order, sizeof(order), &passed)
        if got == sizeof(order):
            _obey(core, &order, passed)
        elif got == 0:
            core.done = True           # master is gone
            return
        elif got < 0 and errno != EINTR:
            return


# ---- connections ---------------------------------------------------------------------------------


cdef void _pause_accepting(Core *core, uint64_t resume_at) noexcept nogil:
    # New clients wait in the backlog, those that are connected are served. One that goes makes room for another;
    # `resume_at` is for what does not depend on them: a limit that is raised, what others in the system give back.
    _set_accepting(core, False)
    core.paused_open = core.io.connections.open
    core.resume_at = resume_at


cdef void _resume_accepting(Core *core) noexcept nogil:
    cdef uint32_t row
    if core.io.connections.open >= core.paused_open and core.loop.now < core.resume_at:
        return
    for row in range(core.service.batcher.row_count):
        if not _watch(core, row):
            _pause_accepting(core, core.loop.now + ACCEPT_PAUSE_NS)
            return
    core.resume_at = 0
    _set_accepting(core, True)


cdef void _adopt(Core *core, int fd) noexcept nogil:
    cdef uint32_t slot = http1_accept(&core.io, fd)
    # Edge-triggered and for both directions, once for the connection's whole life.
    if loop_add(&core.loop, fd, <uint32_t>EPOLLIN | <uint32_t>EPOLLOUT | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLET,
                loop_token(TOKEN_CONNECTION, core.io.connections.all[slot].generation, slot)) != 0:
        http1_shut(&core.io, slot)


cdef void _accept(Core *core, uint32_t listener) noexcept nogil:
    cdef int fd
    if listener >= core.listener_count or not core.accepting:
        return
    for _ in range(ACCEPTS):
        if core.io.connections.open == core.io.connections.capacity:
            _pause_accepting(core, NEVER)
            return
        fd = accept_connection(core.listeners[listener])
        if fd >= 0:
            _adopt(core, fd)
        elif errno != EINTR and errno != ECONNABORTED:
            if errno != EAGAIN:
                _pause_accepting(core, core.loop.now + ACCEPT_PAUSE_NS)
            return


cdef void _accept_all(Core *core, uint32_t listener) noexcept nogil:
    cdef uint32_t before
    while True:
        before = core.io.connections.open
        _accept(core, listener)
        if core.io.connections.open < before + ACCEPTS:
            return


cdef void _handle(Core *core, uint64_t token, uint32_t events) noexcept nogil:
    cdef uint32_t kind = token_kind(token)
    cdef uint32_t slot = token_slot(token)
    if kind == TOKEN_CONNECTION:
        if slot < core.io.connections.used and core.io.connections.all[slot].fd >= 0 and \
                core.io.connections.all[slot].generation & 0xFFFFFFF == token_generation(token):
            http1_event(&core.io, slot, events)
    elif kind == TOKEN_LISTENER:
        _accept(core, slot)
    elif kind == TOKEN_CONTROL:
        _read_control(core)
    elif kind == TOKEN_PROCESS:
        if slot < core.service.batcher.row_count and core.service.links[slot].pidfd >= 0:
            loop_remove(&core.loop, core.service.links[slot].pidfd)
            service_row_dead(&core.service, slot)


# ---- the loop ------------------------------------------------------------------------------------


cdef uint64_t _deadline(Core *core) noexcept nogil:
    cdef uint64_t soonest = service_deadline(&core.service)
    cdef uint64_t at = connections_deadline(&core.io.connections)
    if at < soonest:
        soonest = at
    if core.resume_at and core.resume_at < soonest:
        soonest = core.resume_at
    if core.stop_at and core.stop_at < soonest:
        soonest = core.stop_at
    # While somebody waits, a look now and then: a process gone wild can silence the bell (fill its counter, mark core
    # as awake), and the answers of all others would be found only with the next request.
    if core.service.inside and core.loop.now + SAFETY_LOOK_NS < soonest:
        soonest = core.loop.now + SAFETY_LOOK_NS
    return soonest


cdef void _mend_bell(Core *core) noexcept nogil:
    # An eventfd whose counter is full cannot be written any more; one that was read can.
    cdef uint64_t count
    read(core.loop.bell_fd, &count, sizeof(count))


cdef int _wait(Core *core) noexcept nogil:
    cdef int n
    cdef uint64_t asleep_at = core.loop.now
    if core.io.connections.ready_n:
        n = loop_wait(&core.loop, 0)
    else:
        bell_prepare(core.loop.bell)
        n = loop_wait(&core.loop, 0 if service_has_news(&core.service) else _deadline(core))
        bell_awake(core.loop.bell)
        if n == 0 and core.loop.now - asleep_at >= SAFETY_LOOK_NS and service_has_news(&core.service):
            _mend_bell(core)
    core.io.now = core.loop.now
    core.service.now = core.loop.now
    return n


cdef void _shut_port(Core *core) noexcept nogil:
    # For master too, which has the same sockets. Who is in the backlog then is reset, so nobody may come into it after
    # the last look. (A unix socket knows no SYN, and may be looked into once it is shut.)
    cdef uint32_t i
    for i in range(core.listener_count):
        _accept_all(core, i)
        shutdown(core.listeners[i], SHUT_RD)
        _accept_all(core, i)
    if core.accepting:
        _set_accepting(core, False)
    core.resume_at = core.shut_at = 0
    core.stop_at = core.loop.now + FAREWELL_NS


cdef void _leave(Core *core) noexcept nogil:
    # All have been answered or time is up. Clients that connected just now get a moment to ask, and their refusal.
    cdef uint32_t i
    core_report(core, REPORT_STOPPED, 0, core.service.inside)
    drain_all(&core.service)
    http1_farewell(&core.io)
    for i in range(core.listener_count):
        ignore_connects(core.listeners[i])
    core.leaving = True
    core.shut_at = core.stop_at = core.loop.now + HANDSHAKE_NS


cdef void _finish_if_drained(Core *core) noexcept nogil:
    cdef bint late = core.loop.now >= core.stop_at
    if not core.leaving:
        if late or (core.service.inside == 0 and not http1_is_busy(&core.io)):
            _leave(core)
        return
    if core.shut_at:
        if not late:
            return
        _shut_port(core)
        late = False
    core.done = core.done or late or core.io.connections.open == 0


cdef void core_run(Core *core) noexcept nogil:
    cdef int i, n
    core_report(core, REPORT_RUNNING, 0, 0)
    while not core.done:
        n = _wait(core)
        writer_set_time(&core.io.writer, time(NULL))
        for i in range(n):
            _handle(core, core.loop.events[i].data.u64, core.loop.events[i].events)
            if i % WAKE_EVERY == WAKE_EVERY - 1:
                service_wake(&core.service)
        service_poll(&core.service)
        service_wake(&core.service)
        http1_run_ready(&core.io)
        http1_expire(&core.io)
        service_expire(&core.service)
        service_wake(&core.service)
        store_relaxed_u64(&core.service.statistics.connections, core.io.connections.open)     # relaxed: a gauge
        if core.resume_at:
            _resume_accepting(core)
        if core.stop_at:
            _finish_if_drained(core)
