"""The transport of connections: sockets, buffers that outlive an event, time-outs; and the epoll loop beneath it."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from posix.time cimport timespec
from posix.unistd cimport close

from mosec_cy._engine.linux cimport (
    NEVER,
    EPOLLET,
    EPOLLIN,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    epoll_create1,
    epoll_ctl,
    epoll_wait,
    mosec_epoll_pwait2,
    mosec_now_ns,
)
from mosec_cy._engine.list cimport NO_INDEX, list_insert, list_remove

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/sockios.h>" nogil:
    unsigned long SIOCOUTQ

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    struct linger:
        int l_onoff
        int l_linger
    int setsockopt(int fd, int level, int option, const void *value, unsigned int n)
    int SOL_SOCKET, SO_LINGER
    ssize_t recv(int fd, void *buffer, size_t n, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int MSG_NOSIGNAL, MSG_DONTWAIT


cdef int connections_open(Connections *t, uint32_t capacity) noexcept nogil:
    memset(t, 0, sizeof(Connections))
    # calloc of this size maps untouched pages: a slot costs memory when it is first used.
    t.all = <Connection *>calloc(capacity, sizeof(Connection))
    # Twice: a round may list again each of the connections that it is still walking over.
    t.ready = <uint32_t *>calloc(2 * <size_t>capacity, sizeof(uint32_t))
    if t.all == NULL or t.ready == NULL:
        free(t.all)
        free(t.ready)
        return -1
    t.capacity = capacity
    t.free_head = NO_CONNECTION
    cdef uint32_t kind
    for kind in range(<uint32_t>TIMER_KINDS):
        t.timers[kind] = List(head=NO_INDEX, tail=NO_INDEX)
    return 0


cdef void connections_close(Connections *t) noexcept nogil:
    cdef uint32_t slot
    for slot in range(t.used):
        if t.all[slot].fd >= 0:
            connection_close(t, slot)
    free(t.all)
    free(t.ready)
    t.all = NULL
    t.ready = NULL


cdef uint32_t connection_open(Connections *t, int fd) noexcept nogil:
    cdef uint32_t slot = t.free_head
    cdef uint32_t generation
    if slot != NO_CONNECTION:
        t.free_head = t.all[slot].timer_link.next
    elif t.used < t.capacity:
        slot = t.used
        t.used += 1
    else:
        return NO_CONNECTION
    cdef Connection *c = &t.all[slot]
    generation = c.generation
    cdef bint listed = c.listed          # the ready list still names the slot, from its previous connection
    memset(c, 0, sizeof(Connection))
    c.fd = fd
    c.generation = generation
    c.listed = listed
    t.open += 1
    return slot


cdef void _reset_on_close(int fd) noexcept nogil:
    cdef linger at_once
    at_once.l_onoff = 1
    at_once.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(linger))


cdef void connection_close(Connections *t, uint32_t slot) noexcept nogil:
    cdef Connection *c = &t.all[slot]
    connection_arm(t, slot, TIMER_NONE, 0)
    if connection_has_output(c):         # else the kernel keeps its part for minutes if the client does not read
        _reset_on_close(c.fd)
    close(c.fd)                          # leaves the epoll set by itself: the descriptor was never duplicated
    c.fd = -1
    c.generation += 1
    free(c.input)
    free(c.output)
    c.input = NULL
    c.output = NULL
    c.input_start = c.input_n = c.output_n = c.output_sent = 0
    c.payload = NULL
    c.payload_n = 0
    c.timer_link.next = t.free_head
    t.free_head = slot
    t.open -= 1


cdef uint64_t _unread(const Connection *c) noexcept nogil:
    cdef int n = 0
    ioctl(c.fd, SIOCOUTQ, &n)
    return <uint64_t>n


cdef uint64_t connection_progress(const Connection *c) noexcept nogil:
    # A client that reads 50 kB a second empties the kernel's megabytes, and so causes EPOLLOUT, only once in a while.
    return c.moved + c.unread - _unread(c) if c.timer == TIMER_WRITE else c.moved


cdef void connection_arm(Connections *t, uint32_t slot, uint8_t timer, uint64_t now) noexcept nogil:
    cdef Connection *c = &t.all[slot]
    if c.timer != TIMER_NONE:
        list_remove(&t.timers[c.timer], &t.all[0].timer_link, sizeof(Connection), slot)
    c.timer = timer
    c.moved = 0
    if timer == TIMER_WRITE:
        c.unread = _unread(c)
    if timer == TIMER_NONE:
        return
    c.deadline = now + t.duration[timer]
    list_insert(&t.timers[timer], &t.all[0].timer_link, sizeof(Connection), slot, NO_INDEX)


cdef uint32_t connection_expired(Connections *t, uint64_t now) noexcept nogil:
    cdef uint32_t kind, slot
    for kind in range(1, <uint32_t>TIMER_KINDS):
        slot = t.timers[kind].head
        if slot != NO_INDEX and t.all[slot].deadline <= now:
            return slot
    return NO_CONNECTION


cdef uint64_t connections_deadline(const Connections *t) noexcept nogil:
    cdef uint64_t soonest = NEVER
    cdef uint32_t kind, slot
    for kind in range(1, <uint32_t>TIMER_KINDS):
        slot = t.timers[kind].head
        if slot != NO_INDEX and t.all[slot].deadline < soonest:
            soonest = t.all[slot].deadline
    return soonest


cdef void connection_list(Connections *t, uint32_t slot) noexcept nogil:
    if not t.all[slot].listed:
        t.all[slot].listed = True
        t.ready[t.ready_n] = slot
        t.ready_n += 1


cdef int64_t connection_receive(Connection *c, void *buffer, size_t n) noexcept nogil:
    cdef ssize_t got = recv(c.fd, buffer, n, MSG_DONTWAIT)
    while got < 0 and errno == EINTR:
        got = recv(c.fd, buffer, n, MSG_DONTWAIT)
    if got > 0:
        # A short read has emptied the socket (epoll(7)): the next bytes make a new edge.
        if <size_t>got < n and not c.read_closed:
            c.readable = False
        return got
    c.readable = False
    if got == 0:
        c.read_closed = True
        return 0
    if errno == EAGAIN:
        return RECEIVE_AGAIN
    return RECEIVE_GONE


cdef int connection_keep_input(Connection *c, const char *data, size_t n) noexcept nogil:
    c.input = <char *>malloc(n)
    if c.input == NULL:
        return -1
    memcpy(c.input, data, n)
    c.input_start = 0
    c.input_n = <uint32_t>n
    return 0


cdef void connection_consume(Connection *c, size_t n) noexcept nogil:
    c.input_start += <uint32_t>n
    c.input_n -= <uint32_t>n
    if c.input_n == 0:
        free(c.input)
        c.input = NULL


cdef size_t connection_take_input(Connection *c, char *buffer) noexcept nogil:
    cdef size_t n = c.input_n
    if n:
        memcpy(buffer, c.input + c.input_start, n)
        connection_consume(c, n)
    return n


cdef int _keep_output(Connection *c, const char *head, size_t n) noexcept nogil:
    cdef char *grown = <char *>realloc(c.output, c.output_n + n)
    if grown == NULL:
        return SEND_GONE
    memcpy(grown + c.output_n, head, n)
    c.output = grown
    c.output_n += <uint32_t>n
    return SEND_AGAIN


cdef ssize_t _send(int fd, const void *head, size_t head_n, const void *payload, size_t payload_n) noexcept nogil:
    # Bytes sent (0 when the socket is full), or SEND_GONE.
    cdef iovec parts[2]
    cdef msghdr message
    cdef ssize_t sent
    memset(&message, 0, sizeof(msghdr))
    parts[0].iov_base = <void *>head
    parts[0].iov_len = head_n
    parts[1].iov_base = <void *>payload
    parts[1].iov_len = payload_n
    message.msg_iov = parts
    message.msg_iovlen = 2 if payload_n else 1
    while True:
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent >= 0:
            return sent
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            return SEND_GONE


cdef int connection_send(
    Connection *c, const char *head, size_t head_n, const uint8_t *payload, uint64_t payload_n
) noexcept nogil:
    cdef ssize_t sent
    if connection_has_output(c):         # an interim response (100) still waits
        if _keep_output(c, head, head_n) == SEND_GONE:
            return SEND_GONE
        c.payload = payload
        c.payload_n = payload_n
        return connection_flush(c)
    sent = _send(c.fd, head, head_n, payload, payload_n)
    if sent < 0:
        return SEND_GONE
    if <size_t>sent == head_n + payload_n:
        return SEND_DONE
    if <size_t>sent < head_n:
        if _keep_output(c, head + sent, head_n - sent) == SEND_GONE:
            return SEND_GONE
        sent = <ssize_t>head_n
    c.payload = payload + (<size_t>sent - head_n)
    c.payload_n = payload_n - (<size_t>sent - head_n)
    return SEND_AGAIN


cdef int connection_flush(Connection *c) noexcept nogil:
    # Sends once: a send that falls short makes an edge when there is room again, and meanwhile others have their turn.
    cdef size_t head_n = c.output_n - c.output_sent
    cdef ssize_t sent
    if head_n:
        sent = _send(c.fd, c.output + c.output_sent, head_n, c.payload, c.payload_n)
    else:
        sent = _send(c.fd, c.payload, c.payload_n, NULL, 0)
    if sent < 0:
        return SEND_GONE
    c.moved += sent
    if <size_t>sent < head_n:
        c.output_sent += <uint32_t>sent
        return SEND_AGAIN
    if head_n:
        free(c.output)
        c.output = NULL
        c.output_n = c.output_sent = 0
    c.payload += <size_t>sent - head_n
    c.payload_n -= <size_t>sent - head_n
    return SEND_AGAIN if c.payload_n else SEND_DONE


cdef bint connection_has_output(const Connection *c) noexcept nogil:
    return c.output_n > c.output_sent or c.payload_n > 0


# ---- epoll ---------------------------------------------------------------------------------------

# The system calls of the event loop: one epoll instance, core's bell and the clock.

cdef enum:
    NS_PER_MS = 1_000_000
    LONGEST_WAIT_MS = 0x7FFFFFFF


cdef int loop_open(Loop *loop, int bell_fd, Bell *bell) noexcept nogil:
    loop.epoll = epoll_create1(EPOLL_CLOEXEC)
    if loop.epoll < 0:
        return -errno
    loop.bell_fd = bell_fd
    loop.bell = bell
    loop.coarse = False
    loop.now = mosec_now_ns()
    # Edge-triggered: each ring of the bell is an event of its own, so the counter need never be read back.
    return loop_add(loop, bell_fd, <uint32_t>EPOLLIN | <uint32_t>EPOLLET, loop_token(TOKEN_BELL, 0, 0))


cdef void loop_close(Loop *loop) noexcept nogil:
    close(loop.epoll)
    loop.epoll = -1


cdef uint64_t loop_token(uint32_t kind, uint32_t generation, uint32_t slot) noexcept nogil:
    return <uint64_t>kind << 60 | <uint64_t>(generation & 0xFFFFFFF) << 32 | slot


cdef uint32_t token_kind(uint64_t token) noexcept nogil:
    return <uint32_t>(token >> 60)


cdef uint32_t token_generation(uint64_t token) noexcept nogil:
    return <uint32_t>(token >> 32) & 0xFFFFFFF


cdef uint32_t token_slot(uint64_t token) noexcept nogil:
    return <uint32_t>token


cdef int loop_add(Loop *loop, int fd, uint32_t events, uint64_t token) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = token
    if epoll_ctl(loop.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
        return -errno
    return 0


cdef void loop_remove(Loop *loop, int fd) noexcept nogil:
    cdef epoll_event event
    epoll_ctl(loop.epoll, EPOLL_CTL_DEL, fd, &event)


cdef int _wait_ms(Loop *loop, uint64_t ns) noexcept nogil:
    # Rounded up: a wake-up before the deadline would find nothing due and spin.
    cdef uint64_t ms = (ns + NS_PER_MS - 1) // NS_PER_MS
    return epoll_wait(loop.epoll, loop.events, LOOP_EVENTS, -1 if ms > LONGEST_WAIT_MS else <int>ms)


cdef int loop_wait(Loop *loop, uint64_t deadline) noexcept nogil:
    cdef timespec timeout
    cdef uint64_t ns
    cdef int n
    if deadline <= loop.now:
        n = epoll_wait(loop.epoll, loop.events, LOOP_EVENTS, 0)
    else:
        ns = deadline - loop.now
        if loop.coarse:
            n = _wait_ms(loop, ns)
        else:
            timeout.tv_sec = <int64_t>(ns // 1_000_000_000)
            timeout.tv_nsec = <int64_t>(ns % 1_000_000_000)
            n = mosec_epoll_pwait2(loop.epoll, loop.events, LOOP_EVENTS, &timeout)
            if n < 0 and errno != EINTR:       # before Linux 5.11; some sandboxes answer EPERM to unknown calls
                loop.coarse = True
                n = _wait_ms(loop, ns)
    loop.now = mosec_now_ns()
    return n if n > 0 else 0
