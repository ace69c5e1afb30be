/* What the engine's functions are compiled against: the checker's atomics in place of the processor's, the shared
 * structures with the words that several threads write as atomics, and what a kernel does. `engine.inc` holds the
 * functions themselves, as Cython translates them (tools/engine_cpp.py). Threads stand for processes.
 *
 * A model names the functions that it is compiled with, and the faults that can be put into them: in which function,
 * what it calls, and what it then calls instead. Each must be found; the number of one is the program's argument.
 *
 * The checker runs threads in many orders and lets each load return any value that the C++11 memory model admits (but
 * for those that would come from the future). It reports assertions that do not hold, data races (on Data and Place)
 * and deadlocks. */

#include <relacy/relacy.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>

using std::size_t;

inline rl::memory_order order(int of) {
    switch (of) {
    case __ATOMIC_RELAXED: return rl::mo_relaxed;
    case __ATOMIC_ACQUIRE: return rl::mo_acquire;
    case __ATOMIC_RELEASE: return rl::mo_release;
    case __ATOMIC_ACQ_REL: return rl::mo_acq_rel;
    default: return rl::mo_seq_cst;
    }
}
#define __atomic_load_n(p, o) (p)->load(order(o), $)
#define __atomic_store_n(p, v, o) (p)->store(v, order(o), $)
#define __atomic_add_fetch(p, v, o) ((p)->fetch_add(v, order(o), $) + (v))
#define __atomic_fetch_or(p, v, o) (p)->fetch_or(v, order(o), $)
#define __atomic_exchange_n(p, v, o) (p)->exchange(v, order(o), $)
#define __atomic_compare_exchange_n(p, e, v, weak, o, failed) (p)->compare_exchange_strong(*(e), v, order(o), $, order(failed), $)
#define __atomic_thread_fence(o) rl::atomic_thread_fence(order(o), $)

typedef rl::var<int> Data;                             /* what no two threads may touch at once: a payload */

/* ring.pxd */
enum { RING_OK = 0, RING_FULL = -1, RING_EMPTY = -2, RING_BROKEN = -3, CAPACITY = 2 };
const uint32_t NO_BLOCK = 0xFFFFFFFF;
struct Descriptor { uint64_t task; uint32_t sequence; uint32_t block; };
struct Place {
    rl::var<uint64_t> task;
    rl::var<uint32_t> sequence, block;
    Place &operator=(const Descriptor &d) { task($) = d.task; sequence($) = d.sequence; block($) = d.block; return *this; }
    operator Descriptor() { Descriptor d = {task($), sequence($), block($)}; return d; }
};
struct RingMemory { rl::atomic<uint64_t> head, tail; Place descriptors[CAPACITY]; };
struct RingEnd { RingMemory *memory; uint64_t mask, own, peer; };
struct Bell { rl::atomic<uint32_t> counter, sleeping; };

/* ring.pxd */
enum { WORD_DISPATCHED = 1, WORD_STARTED = 2, WORD_CANCELLED = 4 };

/* pool.pxd: one class of BLOCKS blocks */
enum { BLOCKS = 2, POOL_MIN_SHIFT = 10, FIRST_FIT_SHIFT = 16, LARGEST_PERIOD = 32,
       POOL_OK = 0, POOL_BAD_BLOCK = -1, POOL_NOT_HELD = -2, POOL_LEASED = -3 };
const uint64_t CORE = (uint64_t)1 << 63;
struct PoolClass { uint32_t first, count; uint64_t offset; };
struct Pool {
    rl::atomic<uint64_t> *words, *touched;
    uint32_t blocks, class_shift, chunk_shift, classes;
    PoolClass sizes[1];
    uint32_t cursor[1], scans[1], home[1], share[1], *recent[1], recent_count[1], recent_capacity[1];
};

static int fault;                                      /* number of the one that is put in; 0: none */

#include "engine.inc"

inline void ring_open(RingEnd *end, RingMemory *memory) {         /* ring_attach */
    RingEnd made = {memory, CAPACITY - 1, 0, 0};
    *end = made;
}

inline void ring_zero(RingMemory *memory) {
    memory->head($) = 0;
    memory->tail($) = 0;
}

inline void bell_zero(Bell *bell) {
    bell->counter($) = 0;
    bell->sleeping($) = 0;
}

/* The kernel: a lock around what it compares and changes. */
struct Kernel {
    rl::mutex lock;
    rl::condition_variable sleepers;
    bool edge, dead;                                   /* an eventfd and a pidfd that epoll watches */

    void begin() { edge = dead = false; }
    void futex_wait(rl::atomic<uint32_t> *word, uint32_t seen) {
        lock.lock($);
        if (word->load(rl::mo_relaxed, $) == seen)
            sleepers.wait(lock, $);
        lock.unlock($);
    }
    void wake() { lock.lock($); sleepers.notify_all($); lock.unlock($); }
    void ring_eventfd() { lock.lock($); edge = true; sleepers.notify_all($); lock.unlock($); }
    void end_of_process() { lock.lock($); dead = true; sleepers.notify_all($); lock.unlock($); }
    /* True: a process has ended, which is reported once. */
    bool epoll(bool wait) {
        lock.lock($);
        while (wait && !edge && !dead)
            sleepers.wait(lock, $);
        bool told = dead;
        edge = dead = false;
        lock.unlock($);
        return told;
    }
};

/* Runs all orders in which a thread that could go on gives way at most `switches` times; 0: all there are. Exit status
 * 0: no order fails. */
template <typename Test> int check(unsigned switches, int arguments, char **argument) {
    fault = arguments > 1 ? atoi(argument[1]) : 0;
    rl::test_params params;
    params.search_type = switches ? rl::sched_bound : rl::sched_full;
    params.context_bound = switches;
    params.progress_output_period = 1000000;
    bool well = rl::simulate<Test>(params);
    std::cout << "orders: " << params.stop_iteration << std::endl;
    return well ? 0 : 1;
}
