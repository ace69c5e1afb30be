/* Which process holds a block: the words of two blocks (pool.pyx), which core and a slot claim, lease, pass on, drop
 * and empty, as in pool.pml. Claim: what one holder does to a block is over before the next one begins.
 *
 * engine: ring look_for_space ring_push ring_publish ring_pop ring_release
 * engine: pool pool_has claim allocate_recent allocate_scanning pool_allocate pool_lease pool_drop_lease
 * engine: pool pool_take_over pool_drop_core pool_claim_free pool_unclaim
 * engine: pool sweep_chunk pool_sweep
 * fault: claim cas_u64 swap_by_store
 * fault: claim cas_u64 swap_relaxed
 * fault: pool_drop_lease cas_u64 swap_relaxed
 * fault: pool_drop_core cas_u64 swap_relaxed
 * fault: pool_claim_free cas_u64 swap_relaxed
 * fault: pool_unclaim store_release_u64 store_relaxed_u64
 * fault: pool_sweep load_relaxed_u64 nothing_touched
 */

#include "checker.hpp"

const uint64_t SLOT = (uint64_t)1 << 32 | 1, OTHER = (uint64_t)2 << 32 | 1;        /* pool_lessee */

struct Blocks : rl::test_suite<Blocks, 3> {
    RingMemory submit, complete;
    RingEnd core_submit, core_complete, slot_submit, slot_complete;
    rl::atomic<uint64_t> words[BLOCKS], touched[1];
    Data data[BLOCKS];
    Pool pools[3];                                     /* each process' own view */
    Kernel kernel;

    void before() {
        ring_zero(&submit);
        ring_zero(&complete);
        ring_open(&core_submit, &submit);
        ring_open(&slot_submit, &submit);
        ring_open(&core_complete, &complete);
        ring_open(&slot_complete, &complete);
        touched[0]($) = 0;
        for (unsigned i = 0; i < BLOCKS; i++)
            words[i]($) = 0;
        memset(pools, 0, sizeof pools);
        for (unsigned i = 0; i < 3; i++) {             /* pool_layout, pool_attach */
            Pool &pool = pools[i];
            pool.words = words;
            pool.touched = touched;
            pool.blocks = BLOCKS;
            pool.class_shift = 1;
            pool.classes = 1;
            pool.sizes[0].count = BLOCKS;
        }
        kernel.begin();
    }

    void thread(unsigned index) {
        if (index == 0)
            core(&pools[0]);
        else if (index == 1)
            slot(&pools[1]);
        else
            other(&pools[2]);
    }

    /* A request in a block of core's goes to the slot; its answer comes back in a block of the slot's. */
    void core(Pool *pool) {
        uint32_t block = pool_allocate(pool, 1, 0);
        if (block == NO_BLOCK)
            return;
        data[block]($) = 1;
        Descriptor d = {0, 0, block};
        ring_push(&core_submit, &d);
        ring_publish(&core_submit);
        if (kernel_says_it_has_ended()) {              /* slot_dead: slot_poll, then pool_sweep */
            answered(pool, block);
            pool_sweep(pool, SLOT);
            RL_ASSERT((words[0].load(rl::mo_relaxed, $) & ~CORE) != SLOT);
            RL_ASSERT((words[1].load(rl::mo_relaxed, $) & ~CORE) != SLOT);
        } else {
            answered(pool, block);
        }
        trim(pool);
    }

    bool kernel_says_it_has_ended() {
        kernel.lock.lock($);
        bool told = kernel.dead;
        kernel.lock.unlock($);
        return told;
    }

    void answered(Pool *pool, uint32_t request) {      /* _complete: _accept_block, block_drop */
        Descriptor d;
        if (ring_pop(&core_complete, &d) != RING_OK)
            return;
        if (d.block != NO_BLOCK) {
            RL_ASSERT(pool_take_over(pool, d.block, SLOT) == POOL_OK);
            RL_ASSERT(data[d.block]($) == 2);
            pool_drop_core(pool, d.block);
        }
        pool_drop_core(pool, request);
    }

    void trim(Pool *pool) {                            /* pool.pyx _trim */
        for (uint32_t block = 0; block < BLOCKS; block++)
            if (pool_claim_free(pool, block)) {
                data[block]($) = 0;
                pool_unclaim(pool, block);
            }
    }

    void slot(Pool *pool) {
        Descriptor d;
        if (ring_pop(&slot_submit, &d) == RING_OK) {
            RL_ASSERT(data[d.block]($) == 1);
            uint32_t answer = pool_allocate(pool, 1, SLOT);
            if (answer != NO_BLOCK)
                data[answer]($) = 2;
            RL_ASSERT(pool_lease(pool, d.block, SLOT) == POOL_OK);              /* Item.settle */
            Descriptor out = {0, 0, answer};
            ring_push(&slot_complete, &out);
            ring_publish(&slot_complete);
            RL_ASSERT(data[d.block]($) == 1);          /* a view of the request that is kept */
            if (rl::rand(2))
                pool_drop_lease(pool, d.block, SLOT);   /* Item._give_back; else it is killed before */
        }
        kernel.end_of_process();
    }

    /* Another slot, which writes an answer whose client has left: Channel._publish drops it. */
    void other(Pool *pool) {
        uint32_t block = pool_allocate(pool, 1, OTHER);
        if (block != NO_BLOCK) {
            data[block]($) = 3;
            pool_drop_lease(pool, block, OTHER);
        }
    }
};

int main(int n, char **argument) { return check<Blocks>(3, n, argument); }
