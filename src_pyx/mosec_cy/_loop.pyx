"""The event loop's system half: one epoll, its doorbell and its clock."""

from libc.errno cimport EINTR, errno
from posix.time cimport timespec
from posix.unistd cimport close

from mosec_cy._linux cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLET,
    EPOLLIN,
    epoll_create1,
    epoll_ctl,
    epoll_wait,
    mosec_epoll_pwait2,
    mosec_now_ns,
)

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
    # Edge-triggered: each ring is an event of its own, so the counter need never be read back.
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
            if n < 0 and errno != EINTR:       # before Linux 5.11; some sandboxes say EPERM of what they do not know
                loop.coarse = True
                n = _wait_ms(loop, ns)
    loop.now = mosec_now_ns()
    return n if n > 0 else 0
