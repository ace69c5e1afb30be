/* Which process holds a block: the word of each block (pool.pyx), its payloads' leases (worker.pyx), core's way with
 * requests and answers (dispatch.pyx), what becomes of a dead slot's claims (pool.pyx), and the trimmer (pool.pyx).
 *
 * Core takes blocks for REQUESTS requests and dispatches them to two slots; a slot answers with a block of its own or
 * none, and may keep a view of the request's block after its answer; slot 0's first life may be killed at any step.
 * All words change by compare-and-swap only; the store of pool_unclaim is of a word that is core's alone. Claims: no
 * block has two holders, but for a lease that its holder gave; and when all is over, no word names a holder.
 *
 * Mutations, each of which must be found: CLAIM_BY_STORE, NO_SWEEP, SWEEP_BEFORE_DRAIN, LEASE_AFTER_PUBLISH,
 * TRIM_WITHOUT_CLAIM, TOUCHED_LATE, SWEEP_WITHOUT_NAME together with SWEEP_LATE (after the slot's next life has begun,
 * and of all its lives). */

#define REQUESTS 2
#define BLOCKS 2
#define SLOTS 2
#define NONE 255
#define CORE 128                       /* the bit of core's claim; the rest: the lessee */
#define LESSEE(slot, life) (1 + (slot) * 2 + (life))
#define LESSEE_OF(word) ((word) & 127)

byte word[BLOCKS];
bool touched[BLOCKS];                  /* Pool.touched, of a chunk; each block is one here */
byte holders[BLOCKS];                  /* its holders, by their account: bit 0 core, bit 1 + slot; not in the program */
#define BIT(slot) (2 << (slot))

chan submit[SLOTS] = [REQUESTS] of { byte };               /* block of the request */
chan complete[SLOTS] = [REQUESTS] of { byte, byte };       /* block of the request, and of the answer or NONE */
chan dead = [SLOTS] of { byte };                           /* pidfds */
bool kill;
byte life[SLOTS];                       /* SlotShared.incarnation, changed when the next one starts */

inline cas(b, old, new, ok) {          /* in one step, with `then` */
    ok = (word[b] == old);
    if :: ok -> word[b] = new :: else fi
}

/* pool.pyx claim: a hint, the map, the swap. Two holders would be seen here. */
inline claim(b, claimant, mark, ok) {
    ok = false;
    if
    :: word[b] != 0                                        /* load_relaxed_u64 */
    :: else ->
#ifndef TOUCHED_LATE
        touched[b] = true;                                    /* fetch_or_u64 */
#endif
#ifdef CLAIM_BY_STORE
        atomic { word[b] = claimant; ok = true; assert(holders[b] == 0); holders[b] = holders[b] | mark }
#else
        atomic {                                           /* cas_u64 */
            cas(b, 0, claimant, ok);
            if :: ok -> assert(holders[b] == 0); holders[b] = holders[b] | mark :: else fi
        }
#endif
#ifdef TOUCHED_LATE
        if :: ok -> touched[b] = true :: else fi
#endif
    fi
}

inline allocate(b, claimant, mark, ok) {                    /* pool_allocate: the first that can be claimed */
    b = 0;
    claim(b, claimant, mark, ok);
    if
    :: !ok -> b = 1; claim(b, claimant, mark, ok)
    :: else
    fi
}

inline drop_lease(b, me, mark) {                            /* pool_drop_lease */
    atomic { assert(LESSEE_OF(word[b]) == me); holders[b] = holders[b] & ~mark; word[b] = word[b] & CORE }
}

inline drop_core(b) {                                      /* pool_drop_core */
    atomic { assert(word[b] & CORE); holders[b] = holders[b] & ~1; word[b] = word[b] & ~CORE }
}

inline lease(b, me, mark, ok) {                             /* Item.settle: pool_lease */
    atomic {
        cas(b, CORE, CORE | me, ok);
        assert(ok);                                        /* core's claim still holds it, and no lessee does */
        holders[b] = holders[b] | mark
    }
}

proctype slot(byte r; byte mine) {
    byte request, answer, me = LESSEE(r, mine);
    bool ok, looks;
    {
end:    do
        :: submit[r] ? request ->                          /* Channel.take */
            answer = NONE;
            if
            :: true                                        /* an answer without a payload */
            :: allocate(answer, me, BIT(r), ok);           /* Payloads.room */
               if :: !ok -> answer = NONE :: else fi
            :: allocate(answer, me, BIT(r), ok);           /* OutputBlock: filled in place, and dropped unsent */
               if :: ok -> drop_lease(answer, me, BIT(r)) :: else fi;
               answer = NONE
            fi;
            if :: looks = false :: looks = true fi;        /* does user code keep a view? */
#ifndef LEASE_AFTER_PUBLISH
            if :: looks -> lease(request, me, BIT(r), ok) :: else fi;
#endif
            atomic {                                       /* Channel.push: from here on the block is core's to take */
                if :: answer != NONE -> holders[answer] = holders[answer] & ~BIT(r) :: else fi;
                complete[r] ! request, answer
            }
#ifdef LEASE_AFTER_PUBLISH
            if :: looks -> lease(request, me, BIT(r), ok) :: else fi;
#endif
            if :: looks -> drop_lease(request, me, BIT(r)) :: else fi      /* Item._give_back */
        od
    } unless { kill && r == 0 && mine == 0 };
    dead ! r
}

inline settle(r, request, answer) {                        /* dispatch.pyx _complete */
    if
    :: answer != NONE ->
        atomic {                                           /* _accept_block: pool_take_over */
            cas(answer, LESSEE(r, life[r]), CORE, ok);
            assert(ok);                                    /* an answer that was published counts */
            assert(holders[answer] == 0);
            holders[answer] = 1
        }
    :: else
    fi;
    drop_core(request);                                    /* block_drop */
    running[r]--;
    if
    :: answer != NONE -> drop_core(answer)                 /* it has been sent */
    :: else
    fi
}

inline sweep(r) {                                          /* pool.pyx pool_sweep */
    b = 0;
    do
    :: b < BLOCKS ->
        atomic {
            if
            :: !touched[b]
#ifdef SWEEP_WITHOUT_NAME
            :: touched[b] && (LESSEE_OF(word[b]) == LESSEE(r, 0) || LESSEE_OF(word[b]) == LESSEE(r, 1)) ->
#else
            :: touched[b] && LESSEE_OF(word[b]) == LESSEE(r, 0) ->
#endif
                holders[b] = holders[b] & ~BIT(r);
                word[b] = word[b] & CORE
            :: else
            fi
        };
        b++
    :: else -> break
    od
}

proctype core() {
    byte b, r, request, answer, requests, i, late = NONE;
    byte dispatched[SLOTS] = NONE;                              /* its unanswered request, for when it dies */
    byte running[SLOTS];
    bool ok;
end:
    do
    :: requests < REQUESTS ->                              /* a request is read into a block, and dispatched */
        requests++;
        allocate(b, CORE, 1, ok);
        if
        :: !ok                                             /* 503 */
        :: ok && running[0] == 0 -> running[0]++; dispatched[0] = b; submit[0] ! b
        :: ok && running[1] == 0 -> running[1]++; dispatched[1] = b; submit[1] ! b
        :: ok && running[0] && running[1] -> drop_core(b)
        fi
    :: complete[0] ? request, answer -> dispatched[0] = NONE; settle(0, request, answer)
    :: complete[1] ? request, answer -> dispatched[1] = NONE; settle(1, request, answer)
    :: dead ? r ->                                         /* slot_dead */
#ifdef SWEEP_BEFORE_DRAIN
        sweep(r);
#endif
        do                                                 /* slot_poll: what was published before the death counts */
        :: complete[r] ? request, answer -> dispatched[r] = NONE; settle(r, request, answer)
        :: empty(complete[r]) -> break
        od;
        if                                                 /* batcher_slot_down: 500, or to another slot */
        :: dispatched[r] != NONE -> drop_core(dispatched[r]); running[r]--; dispatched[r] = NONE
        :: else
        fi;
        atomic { do :: submit[r] ? _ :: empty(submit[r]) -> break od };        /* ring_reset */
#if !defined(NO_SWEEP) && !defined(SWEEP_BEFORE_DRAIN) && !defined(SWEEP_LATE)
        sweep(r);
#endif
#ifdef SWEEP_LATE
        late = r;
#endif
        life[r] = 1; run slot(r, 1)                         /* REPORT_SLOT_DEAD: master starts the next one */
#ifdef SWEEP_LATE
    :: late != NONE -> r = late; late = NONE; sweep(r)
#endif
    :: i < BLOCKS ->                                       /* trimmer_run; each block once */
#ifdef TRIM_WITHOUT_CLAIM
        ok = (word[i] == 0);
#else
        atomic {                                           /* pool_claim_free */
            cas(i, 0, CORE, ok);
            if :: ok -> assert(holders[i] == 0); holders[i] = 1 :: else fi
        };
#endif
        if
        :: ok ->
            assert((holders[i] & ~1) == 0);                /* madvise: the pages are emptied */
#ifndef TRIM_WITHOUT_CLAIM
            atomic { assert(word[i] == CORE); holders[i] = 0; word[i] = 0 }     /* pool_unclaim */
#endif
        :: else
        fi;
        i++
    od
}

proctype killer() {
    if :: kill = true :: true fi
}

init {
    byte b;
    atomic { run slot(0, 0); run slot(1, 0); run core(); run killer() };
    timeout;
    do
    :: b < BLOCKS -> assert(word[b] == 0); b++
    :: else -> break
    od
}
