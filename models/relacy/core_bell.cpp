/* How core sleeps and is woken by two slots: its bell (ring.pyx) and an eventfd that epoll watches edge-triggered, as
 * in core_bell.pml. Slot 0 may be killed between clearing core's announcement and the call that wakes it. Claim: core
 * does not sleep while an answer is published.
 *
 * engine: ring look_for_space ring_push ring_publish ring_pop ring_has_news
 * engine: ring bell_prepare bell_awake bell_ring
 * fault: bell_prepare fence_seq_cst no_fence
 * fault: bell_ring fence_seq_cst no_fence
 * fault: ring_publish store_release_u64 store_relaxed_u64
 */

#include "checker.hpp"

enum { SLOTS = 2 };

struct CoreBell : rl::test_suite<CoreBell, SLOTS + 1> {
    RingMemory memory[SLOTS];
    RingEnd slot_end[SLOTS], core_end[SLOTS];
    Bell bell;
    Kernel kernel;
    bool over[SLOTS];                                   /* core has all of that slot's answers */

    void before() {
        for (unsigned r = 0; r < SLOTS; r++) {
            ring_zero(&memory[r]);
            ring_open(&slot_end[r], &memory[r]);
            ring_open(&core_end[r], &memory[r]);
            over[r] = false;
        }
        bell_zero(&bell);
        kernel.begin();
    }

    void thread(unsigned index) {
        if (index < SLOTS)
            slot(index);
        else
            core();
    }

    void slot(unsigned me) {                            /* Channel.push */
        Descriptor d = {1, 0, 0};
        ring_push(&slot_end[me], &d);
        ring_publish(&slot_end[me]);
        if (bell_ring(&bell)) {
            if (me == 0 && rl::rand(2))
                kernel.end_of_process();
            else
                kernel.ring_eventfd();
        }
    }

    void core() {                                      /* core.pyx: _wait; dispatch.pyx: dispatch_poll */
        while (!over[0] || !over[1]) {
            bell_prepare(&bell);
            kernel.epoll(!ring_has_news(&core_end[0]) && !ring_has_news(&core_end[1]));
            bell_awake(&bell);
            for (unsigned r = 0; r < SLOTS; r++) {
                Descriptor d;
                if (ring_pop(&core_end[r], &d) == RING_OK)
                    over[r] = true;
            }
        }
    }
};

int main(int n, char **argument) { return check<CoreBell>(3, n, argument); }
