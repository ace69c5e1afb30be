/* A ring between its two ends (ring.pyx). Claim: what is popped is what was pushed, in order, and no place is written
 * while it is read.
 *
 * engine: ring look_for_space ring_push ring_publish ring_pop ring_release
 * fault: ring_publish store_release_u64 store_relaxed_u64
 * fault: ring_pop load_acquire_u64 load_relaxed_u64
 * fault: ring_release store_release_u64 store_relaxed_u64
 * fault: look_for_space load_acquire_u64 load_relaxed_u64
 */

#include "checker.hpp"

enum { PUSHED = 3, TRIES = 4 };

struct Ring : rl::test_suite<Ring, 2> {
    RingMemory memory;
    RingEnd producer, consumer;

    void before() {
        ring_zero(&memory);
        ring_open(&producer, &memory);
        ring_open(&consumer, &memory);
    }

    void thread(unsigned index) {
        if (index == 0)
            produce();
        else
            consume();
    }

    void produce() {
        unsigned pushed = 0;
        for (unsigned i = 0; i < TRIES && pushed < PUSHED; i++) {
            Descriptor d = {pushed, pushed + 7, pushed + 9};
            int code = ring_push(&producer, &d);
            RL_ASSERT(code != RING_BROKEN);
            if (code == RING_OK) {
                pushed++;
                ring_publish(&producer);
            }
        }
    }

    void consume() {
        unsigned popped = 0;
        for (unsigned i = 0; i < TRIES; i++) {
            Descriptor d;
            int code = ring_pop(&consumer, &d);
            RL_ASSERT(code != RING_BROKEN);
            if (code == RING_OK) {
                RL_ASSERT(d.task == popped && d.sequence == popped + 7 && d.block == popped + 9);
                popped++;
                ring_release(&consumer);
            }
        }
    }
};

int main(int n, char **argument) { return check<Ring>(0, n, argument); }
