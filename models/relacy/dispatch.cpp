/* Which slot runs a task: the task's word (ring.pyx) between core, which dispatches it to slot 0, reclaims it and
 * dispatches it to slot 1, and the slots, as in dispatch.pml. Claim: no task is started twice, and the slot that starts
 * one finds the payload that it was dispatched with.
 *
 * engine: ring look_for_space ring_push ring_publish ring_pop
 * engine: ring make_word word_dispatch word_reclaim word_start
 * fault: word_start cas_u64 swap_by_store
 * fault: word_reclaim cas_u64 swap_by_store
 * fault: ring_publish store_release_u64 store_relaxed_u64
 * fault: ring_pop load_acquire_u64 load_relaxed_u64
 */

#include "checker.hpp"

enum { SLOTS = 2, TRIES = 2 };

struct Dispatch : rl::test_suite<Dispatch, SLOTS + 1> {
    RingMemory memory[SLOTS];
    RingEnd core_end[SLOTS], slot_end[SLOTS];
    rl::atomic<uint64_t> word;
    Data payload;
    unsigned starts;

    void before() {
        for (unsigned r = 0; r < SLOTS; r++) {
            ring_zero(&memory[r]);
            ring_open(&core_end[r], &memory[r]);
            ring_open(&slot_end[r], &memory[r]);
        }
        word($) = 0;
        starts = 0;
    }

    void thread(unsigned index) {
        if (index < SLOTS)
            slot(index);
        else
            core();
    }

    void hand(unsigned slot, uint32_t sequence) {       /* batcher_next_batch, _push_batch */
        Descriptor d = {0, sequence, 0};
        payload($) = sequence;
        word_dispatch(&word, sequence);
        ring_push(&core_end[slot], &d);
        ring_publish(&core_end[slot]);
    }

    void core() {
        hand(0, 1);
        if (word_reclaim(&word, 1))                  /* return_unstarted: reclaim_task */
            hand(1, 3);
    }

    void slot(unsigned me) {                            /* Channel._started */
        Descriptor d;
        for (unsigned i = 0; i < TRIES; i++)
            if (ring_pop(&slot_end[me], &d) == RING_OK && word_start(&word, d.sequence)) {
                starts++;
                RL_ASSERT(starts == 1);
                RL_ASSERT(payload($) == (int)d.sequence);
            }
    }
};

int main(int n, char **argument) { return check<Dispatch>(0, n, argument); }
