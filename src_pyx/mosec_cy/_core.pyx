"""The core process: event loop, connections and service put together, steered by the master over one socket."""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from libc.time cimport time

from mosec_cy._batcher cimport Row, Stage, Task, batcher_init
from mosec_cy._connection cimport (
    NO_CONNECTION,
    TIMER_BODY,
    TIMER_HEADER,
    TIMER_IDLE,
    TIMER_LINGER,
    TIMER_WRITE,
    connections_deadline,
)
from mosec_cy._http1 cimport (
    Answer,
    Http1Io,
    http1_accept,
    http1_answer,
    http1_close,
    http1_drain,
    http1_event,
    http1_expire,
    http1_is_busy,
    http1_open,
    http1_run_ready,
)
from mosec_cy._http_parser cimport METHOD_GET, METHOD_POST
from mosec_cy._http_writer cimport writer_init, writer_set_time
from mosec_cy._linux cimport EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from mosec_cy._loop cimport (
    TOKEN_BELL,
    TOKEN_CONNECTION,
    TOKEN_CONTROL,
    TOKEN_LISTENER,
    TOKEN_PROCESS,
    Loop,
    loop_add,
    loop_close,
    loop_open,
    loop_remove,
    loop_token,
    loop_wait,
    token_generation,
    token_kind,
    token_slot,
)
from mosec_cy._pool cimport pool_detach
from mosec_cy._ring cimport bell_awake, bell_prepare
from mosec_cy._router cimport Route
from mosec_cy._segment cimport Segment
from mosec_cy._service cimport (
    REPORT_ROW_DEAD,
    REPORT_STOPPED,
    ContentType,
    Link,
    Service,
    service_bind,
    service_deadline,
    service_expire,
    service_has_news,
    service_poll,
    service_row_dead,
    service_row_drain,
    service_row_ready,
    service_row_started,
)

from mosec_cy._segment import Segment as SegmentType

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <netinet/tcp.h>
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
    """
    ssize_t control_receive(int fd, void *buffer, size_t n, int *passed) noexcept nogil
    int accept_connection(int listener) noexcept nogil
    ssize_t send(int fd, const void *buffer, size_t n, int flags) noexcept nogil
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef enum:
    MAX_LISTENERS = 16
    ACCEPTS = 64                       # an event, before others get their turn
    ACCEPT_PAUSE_NS = 100_000_000      # when descriptors or connection slots have run out
    HEADER_LINE = 8192                 # bytes of a request line
    HEADER_ALL = 32768                 # bytes of a head
    HEADER_COUNT = 100

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

ctypedef struct Core:
    Loop loop
    Http1Io io
    Service service
    int control
    int[MAX_LISTENERS] listeners
    uint32_t listener_count
    bint accepting
    uint64_t resume_at                 # ns; 0: accept is not paused
    uint64_t stop_at                   # ns; shutting down: when at the latest
    bint done


# ---- control -------------------------------------------------------------------------------------


cdef void _report(void *context, uint32_t kind, uint32_t row, uint64_t value) noexcept nogil:
    cdef Core *core = <Core *>context
    cdef ControlMessage message
    cdef int flags = MSG_NOSIGNAL
    memset(&message, 0, sizeof(message))
    message.kind = kind
    message.row = row
    message.value = value
    if kind != REPORT_STOPPED:
        message.incarnation = core.service.links[row].incarnation
        message.pid = core.service.links[row].pid
    if kind != REPORT_ROW_DEAD and kind != REPORT_STOPPED:
        flags |= MSG_DONTWAIT          # news that may be lost when master is behind
    send(core.control, &message, sizeof(message), flags)


cdef void _row_started(Core *core, const ControlMessage *order, int pidfd) noexcept nogil:
    service_row_started(&core.service, order.row, order.incarnation, order.pid, pidfd)
    if pidfd >= 0:
        loop_add(&core.loop, pidfd, EPOLLIN, loop_token(TOKEN_PROCESS, order.incarnation, order.row))


cdef void _set_accepting(Core *core, bint on) noexcept nogil:
    cdef uint32_t i
    core.accepting = on
    for i in range(core.listener_count):
        if on:
            loop_add(&core.loop, core.listeners[i], EPOLLIN, loop_token(TOKEN_LISTENER, 0, i))
        else:
            loop_remove(&core.loop, core.listeners[i])


cdef void _obey(Core *core, const ControlMessage *order, int passed) noexcept nogil:
    if order.row >= core.service.batcher.row_count:
        return
    if order.kind == ORDER_ROW_STARTED:
        _row_started(core, order, passed)
    elif order.kind == ORDER_ROW_READY:
        service_row_ready(&core.service, order.row, order.incarnation)
    elif order.kind == ORDER_ROW_DRAIN:
        service_row_drain(&core.service, order.row, order.incarnation)
    elif order.kind == ORDER_LISTEN:
        _set_accepting(core, True)
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


cdef void _pause_accepting(Core *core) noexcept nogil:
    # Out of descriptors or slots: new clients wait in the backlog, those that are connected are served.
    _set_accepting(core, False)
    core.resume_at = core.loop.now + ACCEPT_PAUSE_NS


cdef void _accept(Core *core, uint32_t listener) noexcept nogil:
    cdef int fd
    cdef uint32_t slot
    if listener >= core.listener_count or not core.accepting:
        return
    for _ in range(ACCEPTS):
        if core.io.connections.open == core.io.connections.capacity:
            _pause_accepting(core)
            return
        fd = accept_connection(core.listeners[listener])
        if fd < 0:
            if errno != EAGAIN and errno != EINTR and errno != ECONNABORTED:
                _pause_accepting(core)
            return
        slot = http1_accept(&core.io, fd)
        # Edge-triggered and for both directions, once for the connection's whole life.
        loop_add(&core.loop, fd, <uint32_t>EPOLLIN | <uint32_t>EPOLLOUT | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLET,
                 loop_token(TOKEN_CONNECTION, core.io.connections.all[slot].generation, slot))


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
    return soonest


cdef int _wait(Core *core) noexcept nogil:
    cdef int n
    if core.io.connections.ready_n:
        n = loop_wait(&core.loop, 0)
    else:
        bell_prepare(core.loop.bell)
        n = loop_wait(&core.loop, 0 if service_has_news(&core.service) else _deadline(core))
        bell_awake(core.loop.bell)
    core.io.now = core.loop.now
    core.service.now = core.loop.now
    return n


cdef void _finish_if_drained(Core *core) noexcept nogil:
    if core.loop.now >= core.stop_at or (core.service.inside == 0 and not http1_is_busy(&core.io)):
        _report(core, REPORT_STOPPED, 0, core.service.inside)
        core.done = True


cdef void _run(Core *core) noexcept nogil:
    cdef int i, n
    while not core.done:
        n = _wait(core)
        writer_set_time(&core.io.writer, time(NULL))
        for i in range(n):
            _handle(core, core.loop.events[i].data.u64, core.loop.events[i].events)
        service_poll(&core.service)
        http1_run_ready(&core.io)
        http1_expire(&core.io)
        service_expire(&core.service)
        core.service.statistics.connections = core.io.connections.open
        if core.resume_at and core.loop.now >= core.resume_at:
            core.resume_at = 0
            _set_accepting(core, True)
        if core.stop_at:
            _finish_if_drained(core)


# ---- set-up --------------------------------------------------------------------------------------


cdef bint _answer(void *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil:
    return http1_answer(<Http1Io *>io, slot, generation, answer)


cdef void *_array(size_t n, size_t size) except NULL:
    cdef void *memory = calloc(n, size)
    if memory == NULL:
        raise MemoryError(f"{n * size} bytes")
    return memory


cdef class _Engine:
    """Owns what one run of the core allocates, and keeps the configuration's strings alive."""

    cdef Core core
    cdef Segment segment
    cdef list strings
    cdef list arrays

    def __cinit__(self):
        memset(&self.core, 0, sizeof(Core))
        self.core.loop.epoll = -1
        self.strings = []

    def __dealloc__(self):
        cdef Service *s = &self.core.service
        cdef uint32_t i
        http1_close(&self.core.io)
        if self.core.loop.epoll >= 0:
            loop_close(&self.core.loop)
        pool_detach(&s.pool)
        if s.routes != NULL:
            for i in range(s.route_count):
                free(<void *>s.routes[i].stages)
        for array in (<uint64_t>s.links, <uint64_t>s.routes, <uint64_t>s.content_types, <uint64_t>s.stage_timeouts,
                      <uint64_t>s.scratch, <uint64_t>s.batcher.tasks, <uint64_t>s.batcher.stages, <uint64_t>s.batcher.rows):
            free(<void *><uint64_t>array)

    cdef const char *text(self, str value) except NULL:
        encoded = value.encode()
        self.strings.append(encoded)
        return <const char *>encoded

    cdef int open_io(self, dict config) except -1:
        cdef Http1Io *io = &self.core.io
        cdef bytes server = config["server"].encode()
        if http1_open(io, config["max_connections"]) != 0:
            raise MemoryError("connections")
        io.limits.line = HEADER_LINE
        io.limits.head = HEADER_ALL
        io.limits.headers = HEADER_COUNT
        io.max_body = config["max_request_size"]
        io.connections.duration[<int>TIMER_HEADER] = config["header_timeout_ns"]
        io.connections.duration[<int>TIMER_BODY] = config["body_timeout_ns"]
        io.connections.duration[<int>TIMER_WRITE] = config["write_timeout_ns"]
        io.connections.duration[<int>TIMER_IDLE] = config["idle_timeout_ns"]
        io.connections.duration[<int>TIMER_LINGER] = 2_000_000_000
        writer_init(&io.writer, server, len(server))
        return 0

    cdef int open_stages(self, list stages) except -1:
        cdef Service *s = &self.core.service
        cdef Stage *table = <Stage *>_array(len(stages), sizeof(Stage))
        cdef Row *rows = <Row *>_array(self.segment.rows, sizeof(Row))
        cdef Task *tasks = <Task *>_array(self.segment.task_slots, sizeof(Task))
        cdef uint32_t i, row
        cdef size_t largest = 1
        s.batcher.stages, s.batcher.rows, s.batcher.tasks = table, rows, tasks
        s.stage_timeouts = <uint64_t *>_array(len(stages), sizeof(uint64_t))
        for i, stage in enumerate(stages):
            table[i].max_batch_size = stage["max_batch_size"]
            table[i].max_wait_ns = stage["max_wait_ns"]
            table[i].first_row = stage["first_row"]
            table[i].rows = stage["rows"]
            s.stage_timeouts[i] = stage["timeout_ns"]
            for row in range(table[i].first_row, table[i].first_row + table[i].rows):
                rows[row].stage = i
                rows[row].ring_capacity = self.segment.submit_capacity(row)
                largest = max(largest, rows[row].ring_capacity, table[i].max_batch_size)
        s.scratch = <uint32_t *>_array(largest, sizeof(uint32_t))
        batcher_init(&s.batcher, tasks, self.segment.words(), self.segment.task_slots, table, len(stages), rows,
                     self.segment.rows)
        return 0

    cdef int open_rows(self, int master_bell) except -1:
        cdef Service *s = &self.core.service
        cdef uint32_t row
        s.links = <Link *>_array(self.segment.rows, sizeof(Link))
        for row in range(self.segment.rows):
            self.segment.attach_submit(row, &s.links[row].submit)
            self.segment.attach_complete(row, &s.links[row].complete)
            s.links[row].shared = self.segment.row(row)
            s.links[row].statistics = self.segment.row_statistics(row)
            s.links[row].wake_fd = master_bell if row == 0 else -1
            service_row_started(s, row, 0, 0, -1)
        service_row_started(s, 0, 1, 0, -1)        # the master's own row has always been there
        return 0

    cdef int open_routes(self, list routes, list content_types) except -1:
        cdef Service *s = &self.core.service
        cdef Route *route
        cdef uint32_t *stages
        cdef uint32_t i, k
        s.routes = <Route *>_array(len(routes) + 1, sizeof(Route))
        s.content_types = <ContentType *>_array(len(content_types), sizeof(ContentType))
        for i, entry in enumerate([*routes, {"path": "/", "method": "GET", "prefix": False, "stages": []}]):
            route = &s.routes[i]
            route.path = self.text(entry["path"])
            route.path_n = len(entry["path"].encode())
            route.method = METHOD_GET if entry["method"] == "GET" else METHOD_POST
            route.prefix = entry["prefix"]
            route.allow = b"GET, HEAD, OPTIONS" if route.method == METHOD_GET else b"POST, OPTIONS"
            stages = <uint32_t *>_array(len(entry["stages"]) + 1, sizeof(uint32_t))
            route.stages = stages
            route.stage_count = len(entry["stages"])
            for k in range(route.stage_count):
                stages[k] = entry["stages"][k]
            s.route_count = i + 1
        for i, value in enumerate(content_types):
            s.content_types[i].text = self.text(value)
            s.content_types[i].n = len(value.encode())
        s.content_type_count = len(content_types)
        return 0

    cdef int open_service(self, dict config) except -1:
        cdef Service *s = &self.core.service
        cdef uint64_t budget = self.segment.budget
        if self.segment.attach_pool(&s.pool, 0) != 0:
            raise MemoryError("block pool")
        s.statistics = self.segment.statistics()
        s.status_counts = self.segment.status_counts(0)
        s.timeout = config["service_timeout_ns"]
        s.kill_grace = config["kill_grace_ns"]
        s.capacity = config["capacity"]
        s.charge_limit = budget // 2
        s.timer_head = s.timer_tail = NO_CONNECTION
        self.open_stages(config["stages"])
        self.open_rows(config["master_bell_fd"])
        self.open_routes(config["routes"], config["content_types"])
        s.io = &self.core.io
        s.answer = _answer
        s.control = &self.core
        s.report = _report
        service_bind(s, &self.core.io.service)
        return 0

    cdef int open_loop(self, dict config) except -1:
        cdef Core *core = &self.core
        cdef int rc = loop_open(&core.loop, config["bell_fd"], self.segment.core_bell())
        if rc == 0:
            core.control = config["control_fd"]
            rc = loop_add(&core.loop, core.control, EPOLLIN, loop_token(TOKEN_CONTROL, 0, 0))
        if rc != 0:
            raise OSError(-rc, "epoll")
        for fd in config["listen_fds"][:MAX_LISTENERS]:
            core.listeners[core.listener_count] = fd
            core.listener_count += 1
        core.io.now = core.service.now = core.loop.now
        return 0


def run_core(dict config):
    """Serves until the master says stop or is gone; the process' exit status.

    Args:
        config: made by the master; descriptors in it are inherited.

    Raises:
        OSError, MemoryError, ValueError: the engine could not be set up.
    """
    cdef _Engine engine = _Engine()
    engine.segment = SegmentType.attach(config["segment_fd"])
    engine.open_io(config)
    engine.open_service(config)
    engine.open_loop(config)
    with nogil:
        _run(&engine.core)
    return 0
