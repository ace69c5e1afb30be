/* How a slot sleeps and is woken: the ring's indices, the bell (ring.pyx) and the futex on its counter.
 *
 * One slot takes; core publishes PUBLISHED tasks, one after the other, and may die at any step; master may order the
 * slot to stop at any time. Claim: the slot does not sleep while there is something to do.
 *
 * Mutations, each of which must be found: NO_SLEEPER_FENCE, NO_RINGER_FENCE, NO_SECOND_LOOK, WAIT_WITHOUT_COUNT,
 * SEEN_LATE (the counter is read after sleep was announced), STOP_RINGS (master rings where it has to force). */

#define PUBLISHED 3
#define CELLS 4
#define HEAD 0              /* RingMemory.head */
#define SLEEPING 1          /* Bell.sleeping */
#define COUNTER 2           /* Bell.counter */
#define COMMAND 3           /* SlotShared.command */
#define BUFFERS 3
#define SLOT 0
#define CORE 1
#define MASTER 2
#include "store_buffers.pml"
#ifdef NO_SECOND_LOOK
#define LOOK_AGAIN false
#else
#define LOOK_AGAIN true
#endif

bool asleep;                /* the slot is in the kernel, in futex_wait */
byte taken;
bool slot_ended, core_killed, core_died, stop_ordered;

inline wake() { asleep = false }           /* mosec_futex_wake */

inline bell_ring(who, was_sleeping) {
#ifndef NO_RINGER_FENCE
    fence(who);                            /* bell_ring: fence_seq_cst */
#endif
    if                                     /* bell_ring: load_relaxed_u32 */
    :: memory[SLEEPING] == 0
    :: else ->
        atomic { fence(who); was_sleeping = memory[SLEEPING]; memory[SLEEPING] = 0 }       /* exchange_u32 */
        if
        :: was_sleeping == 0
        :: else ->
            atomic { fence(who); memory[COUNTER] = memory[COUNTER] + 1 }                    /* add_fetch_u32 */
            wake()                         /* dispatch.pyx _wake */
        fi
    fi
}

proctype slot() {
    byte seen;
    do
    :: if
       :: memory[HEAD] != taken -> taken = memory[HEAD]      /* Channel.take: ring_has_news; _started: ring_pop */
       :: else ->
            if
            :: memory[COMMAND] != 0 -> break                 /* Channel.take: SLOT_STOP */
            :: else ->
#ifndef SEEN_LATE
                seen = memory[COUNTER];                      /* bell_prepare: load_acquire_u32 */
                store(SLOT, SLEEPING, 1);                     /* bell_prepare: store_release_u32 */
#else
                store(SLOT, SLEEPING, 1);
#endif
#ifndef NO_SLEEPER_FENCE
                fence(SLOT);                                  /* bell_prepare: fence_seq_cst */
#endif
                if                                           /* Channel._sleep: looks again */
                :: LOOK_AGAIN && memory[HEAD] != taken
                :: !LOOK_AGAIN || memory[HEAD] == taken ->
                    if
                    :: memory[COMMAND] != 0
                    :: else ->
#ifdef SEEN_LATE
                        seen = memory[COUNTER];
#endif
                        atomic {                             /* mosec_futex_wait: compares under the kernel's lock */
                            fence(SLOT);
#ifdef WAIT_WITHOUT_COUNT
                            asleep = true
#else
                            asleep = (memory[COUNTER] == seen)
#endif
                        }
end_asleep:             !asleep
                    fi
                fi;
                store(SLOT, SLEEPING, 0)                      /* bell_awake: store_relaxed_u32 */
            fi
       fi
    od;
    slot_ended = true
}

proctype core() {
    byte n, was_sleeping;
    {
        do
        :: n < PUBLISHED ->
            n++;
            store(CORE, HEAD, n);                            /* ring_publish: store_release_u64 */
            bell_ring(CORE, was_sleeping)
        :: else -> break
        od
    } unless { core_killed };
    core_died = core_killed
}

proctype master() {
    byte was_sleeping;
    if
    :: true
    :: true ->                                               /* Segment.stop_slot */
        store(MASTER, COMMAND, 1);
#ifdef STOP_RINGS
        bell_ring(MASTER, was_sleeping);
#else
        atomic { fence(MASTER); memory[COUNTER] = memory[COUNTER] + 1 };       /* bell_force: add_fetch_u32 */
        wake();
#endif
        stop_ordered = true
    fi
}

proctype killer() {
    if
    :: true
    :: core_killed = true
    fi
}

init {
    atomic { run drain(SLOT); run drain(CORE); run drain(MASTER); run slot(); run core(); run master(); run killer() };
    timeout;                                                 /* no process has anything left to do */
    assert(!stop_ordered || slot_ended);
    assert(core_died || slot_ended || taken == PUBLISHED)
}
