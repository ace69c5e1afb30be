/* How threads of a slot that wait to send events are woken: the slot's other bell, on which several sleep, and whose
 * announcement none of them clears (worker.pyx). Core acknowledges what each of them waits for. Claim: none sleeps on.
 *
 * engine: ring bell_prepare bell_ring
 * fault: bell_prepare fence_seq_cst no_fence
 * fault: bell_ring fence_seq_cst no_fence
 */

#include "checker.hpp"

enum { SENDERS = 2 };

struct StreamBell : rl::test_suite<StreamBell, SENDERS + 1> {
    rl::atomic<uint64_t> acknowledged[SENDERS];
    Bell bell;
    Kernel kernel;

    void before() {
        for (unsigned i = 0; i < SENDERS; i++)
            acknowledged[i]($) = 0;
        bell_zero(&bell);
        kernel.begin();
    }

    void thread(unsigned index) {
        if (index < SENDERS)
            sender(&acknowledged[index]);
        else
            core();
    }

    void sender(rl::atomic<uint64_t> *mine) {          /* Sender._may_send, _wait */
        while (!load_acquire_u64(mine)) {
            uint32_t seen = bell_prepare(&bell);
            if (!load_acquire_u64(mine))
                kernel.futex_wait(&bell.counter, seen);
        }
    }

    void core() {                                      /* stream_acknowledge, dispatch_notify */
        for (unsigned i = 0; i < SENDERS; i++) {
            store_release_u64(&acknowledged[i], 1);
            if (bell_ring(&bell))
                kernel.wake();
        }
    }
};

int main(int n, char **argument) { return check<StreamBell>(3, n, argument); }
