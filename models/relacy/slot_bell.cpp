/* How a slot sleeps and is woken: its bell (ring.pyx) and the futex on the bell's counter, as in slot_bell.pml. Core
 * publishes PUBLISHED tasks, master may order the slot to stop. Claim: the slot does not sleep while there is something
 * to do.
 *
 * engine: ring look_for_space ring_push ring_publish ring_pop ring_release ring_has_news
 * engine: ring bell_prepare bell_awake bell_ring bell_force
 * fault: bell_prepare fence_seq_cst no_fence
 * fault: bell_ring fence_seq_cst no_fence
 * fault: bell_ring add_fetch_u32 no_count
 * fault: ring_publish store_release_u64 store_relaxed_u64
 */

#include "checker.hpp"

enum { PUBLISHED = 2 };

struct SlotBell : rl::test_suite<SlotBell, 3> {
    RingMemory memory;
    RingEnd core_end, slot_end;
    Bell bell;
    rl::atomic<uint32_t> command;                      /* SlotShared.command */
    Kernel kernel;
    unsigned taken;

    void before() {
        ring_zero(&memory);
        ring_open(&core_end, &memory);
        ring_open(&slot_end, &memory);
        bell_zero(&bell);
        command($) = 0;
        kernel.begin();
        taken = 0;
    }

    void thread(unsigned index) {
        if (index == 0)
            slot();
        else if (index == 1)
            core();
        else
            master();
    }

    void slot() {                                       /* Channel.take */
        Descriptor d;
        while (taken < PUBLISHED) {
            if (ring_has_news(&slot_end)) {
                while (ring_pop(&slot_end, &d) == RING_OK)
                    taken++;
                ring_release(&slot_end);
            } else if (load_acquire_u32(&command)) {
                return;
            } else {                                   /* Channel._sleep */
                uint32_t seen = bell_prepare(&bell);
                if (!ring_has_news(&slot_end) && !load_acquire_u32(&command))
                    kernel.futex_wait(&bell.counter, seen);
                bell_awake(&bell);
            }
        }
    }

    void core() {                                      /* dispatch.pyx: _push_batch, _wake */
        for (unsigned i = 0; i < PUBLISHED; i++) {
            Descriptor d = {i, 0, 0};
            ring_push(&core_end, &d);
            ring_publish(&core_end);
            if (bell_ring(&bell))
                kernel.wake();
        }
    }

    void master() {                                    /* Segment.stop_slot */
        if (rl::rand(2)) {
            store_release_u32(&command, 1);
            bell_force(&bell);
            kernel.wake();
        }
    }
};

int main(int n, char **argument) { return check<SlotBell>(3, n, argument); }
