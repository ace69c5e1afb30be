"""The core process: event loop, connections and service put together from the master's configuration."""

import os
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, ESRCH, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from libc.time cimport time
from posix.unistd cimport close, read

from mosec_cy._engine.batcher cimport Deadline, Deadlines, Slot, Stage, Task, batcher_init, deadlines_init
from mosec_cy._engine.connection cimport (
    TIMER_BODY,
    TIMER_HEADER,
    TIMER_IDLE,
    TIMER_LINGER,
    TIMER_PROBE,
    TIMER_STREAM,
    TIMER_WRITE,
    TOKEN_CONNECTION,
    TOKEN_CONTROL,
    TOKEN_LISTENER,
    TOKEN_PROCESS,
    Loop,
    connections_deadline,
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
from mosec_cy._engine.dispatch cimport (
    COST_BYTES,
    COST_COUNT,
    COST_PREVIOUS,
    Answer,
    ContentType,
    Dispatcher,
    SlotState,
    TaskState,
    Pipeline,
    dispatch_deadline,
    dispatch_has_news,
    dispatch_notify,
    dispatch_poll,
    slot_dead,
    slot_drain,
    slot_ready,
    slot_started,
)
from mosec_cy._engine.http1 cimport (
    Http1Io,
    http1_accept,
    http1_answer,
    http1_close,
    http1_drain,
    http1_event,
    http1_expire,
    http1_reject_pending,
    http1_is_busy,
    http1_open,
    http1_run_ready,
    http1_shut,
    http1_stream,
)
from mosec_cy._engine.http_request cimport CODING_GZIP, CODING_ZSTD, HTTP_MAX_HEADERS, METHOD_GET, METHOD_POST
from mosec_cy._engine.http_response cimport HTTP_CONTENT_TYPE_MAX, writer_init, writer_set_time
from mosec_cy._engine.linux cimport (
    NEVER,
    EPOLLET,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    mosec_pidfd_open,
    mosec_pidfd_send_signal,
    store_relaxed_u64,
)
from mosec_cy._engine.pool cimport pool_detach, trimmer_close, trimmer_open
from mosec_cy._engine.ring cimport bell_awake, bell_prepare
from mosec_cy._engine.segment cimport (
    ORDER_LISTEN,
    ORDER_SHUTDOWN,
    ORDER_SLOT_DRAIN,
    ORDER_SLOT_READY,
    ORDER_SLOT_STARTED,
    REPORT_RUNNING,
    REPORT_SLOT_KILLED,
    REPORT_SLOT_OVERDUE,
    REPORT_STOPPED,
    ControlMessage,
    Segment,
)
from mosec_cy._engine.segment import Segment as SegmentType
from mosec_cy._engine.service cimport (
    PROBE_ALIVE,
    PROBE_LIVE,
    PROBE_READY,
    Route,
    Service,
    service_expire,
    service_refuse_all,
)

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
    WAKE_EVERY = 16                    # events, after which sleeping slots are notified of their work
    ACCEPTS = 64                       # at one event, before other events get their turn
    HANDSHAKE_NS = 20_000_000          # for handshakes that are under way when the port takes no new ones, at the end
    REJECT_PENDING_NS = 250_000_000    # for clients that were connected when the port was shut, at the end
    ACCEPT_PAUSE_NS = 100_000_000      # when the system has no descriptors or memory
    SAFETY_LOOK_NS = 200_000_000       # longest sleep while a client waits

cdef enum:
    MAX_LISTENERS = 16

ctypedef struct Core:
    Loop loop
    Http1Io io
    Service service
    int control
    int[MAX_LISTENERS] listeners
    uint32_t listener_count
    bint accepting
    uint64_t resume_at                 # ns: when to accept again at the latest; 0: accept is not paused
    uint32_t paused_open               # connections when it was paused
    uint64_t stop_at                   # ns; shutting down: when at the latest
    bint leaving                       # no client waits for an answer any more, and no new one may connect
    uint64_t shut_at                   # ns: when to shut the port, after that; 0: it is shut, or not yet time
    bint done


# ---- control -------------------------------------------------------------------------------------


cdef void core_report(void *context, uint32_t kind, uint32_t slot, uint64_t value) noexcept nogil:
    cdef Core *core = <Core *>context
    cdef Dispatcher *d = &core.service.dispatcher
    cdef ControlMessage message
    cdef int flags = MSG_NOSIGNAL
    memset(&message, 0, sizeof(message))
    message.kind = kind
    message.slot = slot
    message.value = value
    if kind != REPORT_STOPPED and kind != REPORT_RUNNING:
        message.incarnation = d.slots[slot].incarnation
        message.pid = d.slots[slot].pid
    if kind == REPORT_SLOT_OVERDUE or kind == REPORT_SLOT_KILLED:
        flags |= MSG_DONTWAIT          # a report that may be lost when master is behind
    send(core.control, &message, sizeof(message), flags)


cdef bint _watch(Core *core, uint32_t slot) noexcept nogil:
    # For a slot without a pidfd: the kernel had no free descriptor for the one that came with the order. False: there
    # is still none.
    cdef Dispatcher *d = &core.service.dispatcher
    cdef SlotState *state = &d.slots[slot]
    if state.pidfd >= 0 or state.pid <= 0:
        return True
    state.pidfd = mosec_pidfd_open(state.pid)
    if state.pidfd >= 0:
        loop_add(&core.loop, state.pidfd, EPOLLIN, loop_token(TOKEN_PROCESS, state.incarnation, slot))
        if state.given_up:
            mosec_pidfd_send_signal(state.pidfd, SIGKILL)     # slot_give_up could not
    elif errno == ESRCH:               # master has seen its exit, and waits for core's report
        slot_dead(d, slot)
    else:
        return False
    return True


cdef void _slot_started(Core *core, const ControlMessage *order, int pidfd) noexcept nogil:
    # A replica keeps its counts when it moves to another slot: `value` is the slot that they began in, 0 its own.
    cdef Dispatcher *d = &core.service.dispatcher
    cdef uint64_t counts = order.value if 0 < order.value < d.batcher.slot_count else order.slot
    d.slots[order.slot].statistics = d.slot_statistics + counts
    slot_started(d, order.slot, order.incarnation, order.pid, pidfd)
    if pidfd >= 0:
        loop_add(&core.loop, pidfd, EPOLLIN, loop_token(TOKEN_PROCESS, order.incarnation, order.slot))
    elif not _watch(core, order.slot) and (core.accepting or core.resume_at):
        _pause_accepting(core, core.loop.now + ACCEPT_PAUSE_NS)        # a slot comes before any client


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
    cdef Dispatcher *d = &core.service.dispatcher
    if passed >= 0 and (order.kind != ORDER_SLOT_STARTED or order.slot >= d.batcher.slot_count):
        close(passed)
    if order.slot >= d.batcher.slot_count:
        return
    if order.kind == ORDER_SLOT_STARTED:
        _slot_started(core, order, passed)
    elif order.kind == ORDER_SLOT_READY:
        slot_ready(d, order.slot, order.incarnation)
    elif order.kind == ORDER_SLOT_DRAIN:
        slot_drain(d, order.slot, order.incarnation)
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
    # New clients wait in the backlog, connected ones are served. A connection that closes makes room for another.
    # `resume_at` covers what does not depend on connections: a raised limit, resources that other processes free.
    _set_accepting(core, False)
    core.paused_open = core.io.connections.open
    core.resume_at = resume_at


cdef void _resume_accepting(Core *core) noexcept nogil:
    cdef uint32_t slot
    if core.io.connections.open >= core.paused_open and core.loop.now < core.resume_at:
        return
    for slot in range(core.service.dispatcher.batcher.slot_count):
        if not _watch(core, slot):
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
    cdef Dispatcher *d = &core.service.dispatcher
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
        if slot < d.batcher.slot_count and d.slots[slot].pidfd >= 0:
            loop_remove(&core.loop, d.slots[slot].pidfd)
            slot_dead(d, slot)


# ---- the loop ------------------------------------------------------------------------------------


cdef uint64_t _deadline(Core *core) noexcept nogil:
    cdef Dispatcher *d = &core.service.dispatcher
    cdef uint64_t soonest = dispatch_deadline(d)
    cdef uint64_t at = connections_deadline(&core.io.connections)
    if at < soonest:
        soonest = at
    if core.resume_at and core.resume_at < soonest:
        soonest = core.resume_at
    if core.stop_at and core.stop_at < soonest:
        soonest = core.stop_at
    # While a client waits, core looks now and then: a faulty process can silence the bell (fill its counter, mark core
    # as awake), and the answers of all other slots would be found only with the next request.
    if d.deadlines.count and core.loop.now + SAFETY_LOOK_NS < soonest:
        soonest = core.loop.now + SAFETY_LOOK_NS
    return soonest


cdef void _mend_bell(Core *core) noexcept nogil:
    # An eventfd whose counter is full cannot be written any more; reading it makes it writable.
    cdef uint64_t count
    read(core.loop.bell_fd, &count, sizeof(count))


cdef int _wait(Core *core) noexcept nogil:
    cdef Dispatcher *d = &core.service.dispatcher
    cdef int n
    cdef uint64_t asleep_at = core.loop.now
    if core.io.connections.ready_n:
        n = loop_wait(&core.loop, 0)
    else:
        bell_prepare(core.loop.bell)
        n = loop_wait(&core.loop, 0 if dispatch_has_news(d) else _deadline(core))
        bell_awake(core.loop.bell)
        if n == 0 and core.loop.now - asleep_at >= SAFETY_LOOK_NS and dispatch_has_news(d):
            _mend_bell(core)
    core.io.now = core.loop.now
    d.now = core.loop.now
    return n


cdef void _shut_port(Core *core) noexcept nogil:
    # The port is shut for master too, which has the same sockets. Connections that are in the backlog then are reset,
    # so none may enter it after the last look. (A unix socket has no SYN to ignore, but accepts after it is shut.)
    cdef uint32_t i
    for i in range(core.listener_count):
        _accept_all(core, i)
        shutdown(core.listeners[i], SHUT_RD)
        _accept_all(core, i)
    if core.accepting:
        _set_accepting(core, False)
    core.resume_at = core.shut_at = 0
    core.stop_at = core.loop.now + REJECT_PENDING_NS


cdef void _leave(Core *core) noexcept nogil:
    # All requests have been answered or time is up. Clients that connected just now get a moment to send a request and
    # to receive its refusal.
    cdef uint32_t i
    core_report(core, REPORT_STOPPED, 0, core.service.dispatcher.deadlines.count)
    service_refuse_all(&core.service)
    http1_reject_pending(&core.io)
    for i in range(core.listener_count):
        ignore_connects(core.listeners[i])
    core.leaving = True
    core.shut_at = core.stop_at = core.loop.now + HANDSHAKE_NS


cdef void _finish_if_drained(Core *core) noexcept nogil:
    cdef bint late = core.loop.now >= core.stop_at
    if not core.leaving:
        if late or (core.service.dispatcher.deadlines.count == 0 and not http1_is_busy(&core.io)):
            _leave(core)
        return
    if core.shut_at:
        if not late:
            return
        _shut_port(core)
        late = False
    core.done = core.done or late or core.io.connections.open == 0


cdef void core_run(Core *core) noexcept nogil:
    # Runs until the master has ordered a stop and nothing is in flight, or the master is gone.
    cdef Dispatcher *d = &core.service.dispatcher
    cdef int i, n
    core_report(core, REPORT_RUNNING, 0, 0)
    while not core.done:
        n = _wait(core)
        writer_set_time(&core.io.writer, time(NULL))
        for i in range(n):
            _handle(core, core.loop.events[i].data.u64, core.loop.events[i].events)
            if i % WAKE_EVERY == WAKE_EVERY - 1:
                dispatch_notify(d)
        dispatch_poll(d)
        dispatch_notify(d)
        http1_run_ready(&core.io)
        http1_expire(&core.io)
        service_expire(&core.service)
        dispatch_notify(d)
        store_relaxed_u64(&d.statistics.connections, core.io.connections.open)     # relaxed: a gauge
        if core.resume_at:
            _resume_accepting(core)
        if core.stop_at:
            _finish_if_drained(core)


cdef enum:
    REQUEST_LINE = 8192                 # bytes of a request line with its CRLF
    HEAD = 32768                 # bytes of a head
    SPARE_DESCRIPTORS = 16
    LINGER_PERIOD_NS = 2_000_000_000   # a refused client that sends no byte for so long is cut off
    PROBE_NS = 100_000_000             # from a client's FIN to the probe whether it is still there

cdef const char *ALLOW_GET = b"allow: GET, HEAD, OPTIONS\r\n"
cdef const char *ALLOW_POST = b"allow: POST, OPTIONS\r\n"

PROBES = [
    {"path": path, "method": "GET", "prefix": False, "stages": [], "probe": probe}
    for path, probe in (("/", PROBE_ALIVE), ("/health/live", PROBE_LIVE), ("/health/ready", PROBE_READY))
]


cdef bint _answer(void *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil:
    return http1_answer(<Http1Io *>io, slot, generation, answer)


cdef void _stream(void *io, uint32_t slot, uint32_t generation, const uint8_t *event, uint64_t n) noexcept nogil:
    http1_stream(<Http1Io *>io, slot, generation, event, n)


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
        cdef Dispatcher *d = &self.core.service.dispatcher
        cdef uint32_t i
        http1_close(&self.core.io)
        if self.core.loop.epoll >= 0:
            loop_close(&self.core.loop)
        trimmer_close(&d.trimmer)
        pool_detach(&d.pool)
        if d.pipelines != NULL:
            for i in range(s.route_count):
                free(<void *>d.pipelines[i].stages)
        free(d.pipelines)
        free(s.lacking_texts)
        free(s.stalled_texts)
        free(d.slots)
        free(s.routes)
        free(d.content_types)
        free(d.stage_timeouts)
        free(d.cost_kinds)
        free(d.scratch)
        free(d.batcher.tasks)
        free(d.tasks)
        free(d.deadlines.heap)
        free(d.deadlines.places)
        free(d.batcher.stages)
        free(d.batcher.slots)

    cdef void *array(self, size_t n, size_t size) except NULL:
        cdef void *memory = calloc(n, size)
        if memory == NULL:
            raise MemoryError(f"{n * size} bytes")
        return memory

    cdef const char *text(self, str value) except NULL:
        encoded = value.encode()
        self.strings.append(encoded)
        return <const char *>encoded

    cdef uint32_t descriptors_left(self) except 0:
        # For connections. Some are kept back, for the pidfds of new workers when all others are used.
        cdef object used
        try:
            used = len(os.listdir("/proc/self/fd"))
        except OSError:
            used = 64               # core has not many yet
        return max(1, os.sysconf("SC_OPEN_MAX") - used - 2 * self.segment.slots - SPARE_DESCRIPTORS)

    cdef int open_io(self, dict config) except -1:
        cdef Http1Io *io = &self.core.io
        cdef bytes server = config["server"].encode()
        if http1_open(io, min(config["max_connections"], self.descriptors_left())) != 0:
            raise MemoryError("connections")
        io.limits.line = REQUEST_LINE
        io.limits.head = HEAD
        io.limits.headers = HTTP_MAX_HEADERS
        io.max_body = config["max_request_size"]
        io.connections.duration[<int>TIMER_HEADER] = config["header_timeout_ns"]
        io.connections.duration[<int>TIMER_BODY] = config["body_timeout_ns"]
        io.connections.duration[<int>TIMER_WRITE] = config["write_timeout_ns"]
        io.connections.duration[<int>TIMER_IDLE] = config["idle_timeout_ns"]
        io.connections.duration[<int>TIMER_STREAM] = config["stream_comment_ns"]
        io.connections.duration[<int>TIMER_LINGER] = LINGER_PERIOD_NS
        io.connections.duration[<int>TIMER_PROBE] = PROBE_NS
        writer_init(&io.writer, server, len(server))
        return 0

    cdef int open_stages(self, list stages) except -1:
        cdef Dispatcher *d = &self.core.service.dispatcher
        cdef Stage *table = <Stage *>self.array(len(stages), sizeof(Stage))
        cdef Slot *slots = <Slot *>self.array(self.segment.slots, sizeof(Slot))
        cdef Task *tasks = <Task *>self.array(self.segment.max_tasks, sizeof(Task))
        cdef uint32_t i, slot
        d.batcher.stages, d.batcher.slots, d.batcher.tasks = table, slots, tasks
        d.tasks = <TaskState *>self.array(self.segment.max_tasks, sizeof(TaskState))
        d.stage_timeouts = <uint64_t *>self.array(len(stages), sizeof(uint64_t))
        d.cost_kinds = <uint8_t *>self.array(len(stages), sizeof(uint8_t))
        for i, stage in enumerate(stages):
            table[i].max_batch_size = stage["max_batch_size"]
            table[i].automatic = stage.get("automatic", False)
            table[i].max_wait_ns = stage["max_wait_ns"] or (NEVER if table[i].automatic else 0)
            table[i].retry = stage.get("retry", 0)
            table[i].padded = stage.get("padded", False)
            table[i].max_batch_cost = stage.get("max_batch_cost", 0) or NEVER
            d.cost_kinds[i] = {"count": COST_COUNT, "bytes": COST_BYTES, "previous": COST_PREVIOUS}[
                stage.get("cost", "count")]
            table[i].costed = d.cost_kinds[i] != COST_COUNT or table[i].max_batch_cost != NEVER
            table[i].joins = stage.get("joins", False)
            d.stage_timeouts[i] = stage["timeout_ns"]
            for slot in range(stage["first_slot"], stage["first_slot"] + stage["slots"]):
                slots[slot].stage = i
                slots[slot].ring_capacity = self.segment.submit_capacity(slot)
        d.scratch = <uint32_t *>self.array(self.segment.max_tasks, sizeof(uint32_t))
        batcher_init(&d.batcher, tasks, self.segment.words(), self.segment.max_tasks, table, len(stages), slots,
                     self.segment.slots)
        return 0

    cdef int open_deadlines(self) except -1:
        cdef Deadlines *d = &self.core.service.dispatcher.deadlines
        d.heap = <Deadline *>self.array(self.segment.max_tasks, sizeof(Deadline))
        d.places = <uint32_t *>self.array(self.segment.max_tasks, sizeof(uint32_t))
        deadlines_init(d, d.heap, d.places)
        return 0

    cdef int open_slots(self, int master_bell) except -1:
        cdef Dispatcher *d = &self.core.service.dispatcher
        cdef uint32_t slot
        d.slots = <SlotState *>self.array(self.segment.slots, sizeof(SlotState))
        d.slot_statistics = self.segment.slot_statistics(0)
        d.stage_statistics = self.segment.stage_statistics(0)
        for slot in range(self.segment.slots):
            self.segment.attach_submit(slot, &d.slots[slot].submit)
            self.segment.attach_complete(slot, &d.slots[slot].complete)
            d.slots[slot].shared = self.segment.slot(slot)
            d.slots[slot].statistics = d.slot_statistics + slot
            d.slots[slot].wake_fd = master_bell if slot == 0 else -1
            slot_started(d, slot, 0, 0, -1)
        slot_started(d, 0, 1, 0, -1)        # the master's own slot has always been up
        return 0

    cdef int open_routes(self, list routes, list content_types) except -1:
        cdef Service *s = &self.core.service
        cdef Dispatcher *d = &self.core.service.dispatcher
        cdef Route *route
        cdef Pipeline *pipeline
        cdef uint32_t *stages
        cdef uint32_t i, k
        s.counted_routes = len(routes)
        s.routes = <Route *>self.array(len(routes) + len(PROBES), sizeof(Route))
        d.pipelines = <Pipeline *>self.array(len(routes) + len(PROBES), sizeof(Pipeline))
        d.content_types = <ContentType *>self.array(len(content_types), sizeof(ContentType))
        for i, entry in enumerate([*routes, *PROBES]):
            route = &s.routes[i]
            pipeline = &d.pipelines[i]
            route.path = self.text(entry["path"])
            route.path_n = len(entry["path"].encode())
            route.method = METHOD_GET if entry["method"] == "GET" else METHOD_POST
            route.prefix = entry["prefix"]
            route.allow = ALLOW_GET if route.method == METHOD_GET else ALLOW_POST
            stages = <uint32_t *>self.array(len(entry["stages"]) + 1, sizeof(uint32_t))
            pipeline.stages = stages
            pipeline.stage_count = len(entry["stages"])
            pipeline.streams = entry.get("streams", False)
            route.probe = entry.get("probe", PROBE_ALIVE)
            for k in range(pipeline.stage_count):
                stages[k] = entry["stages"][k]
            if pipeline.streams:
                self.mark_streaming(stages[pipeline.stage_count - 1])
            s.route_count = i + 1
        for i, value in enumerate(content_types):
            d.content_types[i].text = self.text(value)
            d.content_types[i].n = len(value.encode())
            if d.content_types[i].n > HTTP_CONTENT_TYPE_MAX:
                raise ValueError(f"a content type is at most {HTTP_CONTENT_TYPE_MAX} bytes: {value!r}")
        d.content_type_count = len(content_types)
        return 0

    cdef int open_probes(self, list stages) except -1:
        cdef Service *s = &self.core.service
        s.lacking_texts = <const char **>self.array(len(stages), sizeof(char *))
        s.stalled_texts = <const char **>self.array(len(stages), sizeof(char *))
        for i, stage in enumerate(stages):
            s.lacking_texts[i] = self.text(f"not ready: {stage['name']} has no worker")
            s.stalled_texts[i] = self.text(f"stalled: {stage['name']} does not get on with its work")
        return 0

    cdef void mark_streaming(self, uint32_t stage) noexcept:
        cdef Dispatcher *d = &self.core.service.dispatcher
        cdef uint32_t slot
        for slot in range(d.batcher.slot_count):
            d.slots[slot].streams = d.slots[slot].streams or d.batcher.slots[slot].stage == stage

    cdef int open_codings(self, list names) except -1:
        cdef Service *s = &self.core.service
        for name in names:
            s.codings |= {"gzip": CODING_GZIP, "zstd": CODING_ZSTD}[name]
        s.codings_text = self.text(f"content-encoding is not supported: send one of {', '.join(names)}, or none")
        s.codings_line = self.text(f"accept-encoding: {', '.join(names)}\r\n")
        return 0

    cdef int open_service(self, dict config) except -1:
        cdef Service *s = &self.core.service
        cdef Dispatcher *d = &self.core.service.dispatcher
        cdef uint64_t budget = self.segment.budget
        if self.segment.attach_pool(&d.pool, 0) != 0:
            raise MemoryError("block pool")
        if trimmer_open(&d.trimmer, &d.pool) != 0:
            raise MemoryError("trimmer")
        d.statistics = self.segment.statistics()
        s.status_counts = self.segment.status_counts(0)
        d.timeout = config["service_timeout_ns"]
        d.kill_grace = config["kill_grace_ns"]
        s.capacity = config["capacity"]
        s.charge_limit = budget // 2
        self.open_deadlines()
        self.open_stages(config["stages"])
        self.open_slots(config["master_bell_fd"])
        self.open_routes(config["routes"], config["content_types"])
        s.stall_margin = config["stall_margin_ns"]
        self.open_probes(config["stages"])
        self.open_codings(config["codings"])
        d.io = &self.core.io
        d.answer = _answer
        d.stream = _stream
        d.acknowledged = self.segment.acknowledged()
        d.control = &self.core
        d.report = core_report
        self.core.io.service = s
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
        core.io.now = core.service.dispatcher.now = core.loop.now
        return 0


def run_core(dict config):
    """Serve until the master orders a stop or is gone; return the process's exit status.

    Args:
        config: built by the master; the descriptors in it are inherited.

    Raises:
        OSError, MemoryError, ValueError: the engine could not be set up.
    """
    cdef _Engine engine = _Engine()
    engine.segment = SegmentType.attach(config["segment_fd"])
    engine.open_io(config)
    engine.open_service(config)
    engine.open_loop(config)
    with nogil:
        core_run(&engine.core)
    return 0
