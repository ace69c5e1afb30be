# The event loop's system half: one epoll, its doorbell and its clock.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from mosec_cy._linux cimport epoll_event
from mosec_cy._ring cimport Bell

cdef enum:
    LOOP_EVENTS = 256
    # What an event's token names, in its top four bits; then 28 bits of generation, 32 bits of slot. A stale event
    # (its descriptor was closed and reused within the same wake-up) fails the generation check.
    TOKEN_CONNECTION = 1
    TOKEN_LISTENER = 2
    TOKEN_BELL = 3
    TOKEN_CONTROL = 4
    TOKEN_PROCESS = 5

ctypedef struct Loop:
    int epoll
    int bell_fd                    # eventfd, edge-triggered; read only to mend it
    Bell *bell                     # core's, in shared memory
    bint coarse                    # the kernel has no epoll_pwait2: milliseconds
    uint64_t now                   # ns, CLOCK_MONOTONIC, read once a wake-up
    epoll_event events[256]

cdef int loop_open(Loop *loop, int bell_fd, Bell *bell) noexcept nogil          # 0 or -errno
cdef void loop_close(Loop *loop) noexcept nogil
cdef uint64_t loop_token(uint32_t kind, uint32_t generation, uint32_t slot) noexcept nogil
cdef uint32_t token_kind(uint64_t token) noexcept nogil
cdef uint32_t token_generation(uint64_t token) noexcept nogil                   # the low 28 bits of it
cdef uint32_t token_slot(uint64_t token) noexcept nogil
cdef int loop_add(Loop *loop, int fd, uint32_t events, uint64_t token) noexcept nogil      # 0 or -errno
cdef void loop_remove(Loop *loop, int fd) noexcept nogil
# Events until `deadline` (ns; <= now: without waiting). The caller has called bell_prepare and looked again
# if it waits. Updates `now`. The number of events.
cdef int loop_wait(Loop *loop, uint64_t deadline) noexcept nogil
