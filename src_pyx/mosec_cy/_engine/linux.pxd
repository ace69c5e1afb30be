# Linux system interface: declarations and inline functions. System calls newer than glibc 2.28 are declared with their
# numbers.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from posix.time cimport timespec
from posix.types cimport pid_t

cdef enum:
    NEVER = 0x7FFFFFFFFFFFFFFF        # ns of the clock below: no deadline
    FUTEX_ALL = 0x7FFFFFFF            # all sleepers on a futex

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/futex.h>
    #include <poll.h>
    #include <signal.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef SYS_pidfd_send_signal
    #define SYS_pidfd_send_signal 424
    #endif
    #ifndef SYS_pidfd_open
    #define SYS_pidfd_open 434
    #endif
    #ifndef SYS_epoll_pwait2
    #define SYS_epoll_pwait2 441
    #endif

    /* An invariant, looked at in debug builds alone. */
    #ifdef MOSEC_CY_DEBUG
    #include <stdlib.h>
    #define debug_assert(condition) ((condition) ? (void)0 : abort())
    #else
    #define debug_assert(condition) ((void)0)
    #endif

    /* Length in bits; of 0 it is 0. */
    static inline uint32_t bits_of(uint64_t n) { return n ? 64u - (uint32_t)__builtin_clzll(n) : 0u; }

    /* Nanoseconds of CLOCK_MONOTONIC: the one clock of all processes of a service. */
    static inline uint64_t mosec_now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    static inline int mosec_futex_wait(uint32_t *word, uint32_t seen, const struct timespec *timeout) {
        return (int)syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout, NULL, 0);
    }
    static inline int mosec_futex_wake(uint32_t *word, int count) {
        return (int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    }
    static inline int mosec_epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *timeout) {
        return (int)syscall(SYS_epoll_pwait2, fd, events, n, timeout, NULL, 0);
    }
    static inline int mosec_pidfd_open(pid_t pid) {
        return (int)syscall(SYS_pidfd_open, pid, 0);
    }
    static inline int mosec_pidfd_send_signal(int pidfd, int signal) {
        return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
    }

    /* Atomics on shared memory. Each use names its partner and its order at the place of use. */
    static inline uint32_t load_acquire_u32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint32_t load_relaxed_u32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void store_release_u32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void store_relaxed_u32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline uint32_t add_fetch_u32(uint32_t *p, uint32_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t exchange_u32(uint32_t *p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }
    static inline uint64_t load_acquire_u64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint64_t load_relaxed_u64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void store_release_u64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void store_relaxed_u64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline uint64_t fetch_or_u64(uint64_t *p, uint64_t v) { return __atomic_fetch_or(p, v, __ATOMIC_ACQ_REL); }
    static inline int cas_u64(uint64_t *p, uint64_t *expected, uint64_t desired) {
        return __atomic_compare_exchange_n(p, expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    static inline void fence_seq_cst(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    """
    void debug_assert(bint condition) noexcept nogil
    uint32_t bits_of(uint64_t n) noexcept nogil
    uint64_t mosec_now_ns() noexcept nogil
    int mosec_futex_wait(uint32_t *word, uint32_t seen, const timespec *timeout) noexcept nogil
    int mosec_futex_wake(uint32_t *word, int count) noexcept nogil
    int mosec_epoll_pwait2(int fd, epoll_event *events, int n, const timespec *timeout) noexcept nogil
    int mosec_pidfd_open(pid_t pid) noexcept nogil
    int mosec_pidfd_send_signal(int pidfd, int signal) noexcept nogil

    uint32_t load_acquire_u32(const uint32_t *p) noexcept nogil
    uint32_t load_relaxed_u32(const uint32_t *p) noexcept nogil
    void store_release_u32(uint32_t *p, uint32_t v) noexcept nogil
    void store_relaxed_u32(uint32_t *p, uint32_t v) noexcept nogil
    uint32_t add_fetch_u32(uint32_t *p, uint32_t v) noexcept nogil
    uint32_t exchange_u32(uint32_t *p, uint32_t v) noexcept nogil
    uint64_t load_acquire_u64(const uint64_t *p) noexcept nogil
    uint64_t load_relaxed_u64(const uint64_t *p) noexcept nogil
    void store_release_u64(uint64_t *p, uint64_t v) noexcept nogil
    void store_relaxed_u64(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t fetch_or_u64(uint64_t *p, uint64_t v) noexcept nogil
    bint cas_u64(uint64_t *p, uint64_t *expected, uint64_t desired) noexcept nogil
    void fence_seq_cst() noexcept nogil

    ctypedef union epoll_data_t:
        void *ptr
        int fd
        uint32_t u32
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLLET
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLL_CLOEXEC
        EFD_CLOEXEC
        EFD_NONBLOCK
    int epoll_create1(int flags) noexcept nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event) noexcept nogil
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout) noexcept nogil
    int eventfd(unsigned int initval, int flags) noexcept nogil
