/* How core sleeps and is woken by slots: the bell (ring.pyx), an eventfd that epoll watches edge-triggered and that no
 * process reads (connection.pyx), and a pidfd of each slot.
 *
 * Slot 0 publishes ANSWERS, slot 1 one fewer; slot 0 may be killed at any step, also between clearing core's
 * announcement and making the call that wakes it. Claim: core does not sleep while an answer is published, whichever
 * slot published it.
 *
 * Mutations, each of which must be found: NO_SLEEPER_FENCE, NO_RINGER_FENCE, NO_SECOND_LOOK, NO_PIDFD (core does not
 * learn of the death). */

#define ANSWERS 2
#define SLOTS 2
#define CELLS 3
#define SLEEPING 2          /* Bell.sleeping; cells 0 and 1: RingMemory.head of the slots' `complete` rings */
#define BUFFERS 3
#define CORE 2
#include "store_buffers.pml"
#ifdef NO_SECOND_LOOK
#define LOOK_AGAIN false
#else
#define LOOK_AGAIN true
#endif

bool edge;                  /* the eventfd is on epoll's list of what is ready */
bool dead[SLOTS];            /* its pidfd is readable */
byte taken[SLOTS];
bool killed;

proctype slot(byte me) {
    byte n, was_sleeping;
    {
        do
        :: n < ANSWERS - me ->
            n++;
            store(me, me, n);                                /* ring_publish: store_release_u64 */
#ifndef NO_RINGER_FENCE
            fence(me);                                       /* bell_ring: fence_seq_cst */
#endif
            if
            :: memory[SLEEPING] == 0
            :: else ->
                atomic { fence(me); was_sleeping = memory[SLEEPING]; memory[SLEEPING] = 0 }   /* exchange_u32 */
                if
                :: was_sleeping == 0
                :: else ->
                    fence(me);                               /* add_fetch_u32; core does not look at the counter */
                    edge = true                              /* Channel.push: write */
                fi
            fi
        :: else -> break
        od
    } unless { killed && me == 0 };
    if
#ifndef NO_PIDFD
    :: killed && me == 0 -> fence(me); dead[me] = true       /* once the process has ended */
#endif
    :: else
    fi
}

inline slot_poll(r) {                                         /* dispatch.pyx slot_poll: ring_pop until it is empty */
    taken[r] = memory[r]
}

proctype core() {
end:
    do
    :: store(CORE, SLEEPING, 1);                             /* core.pyx _wait: bell_prepare */
#ifndef NO_SLEEPER_FENCE
       fence(CORE);
#endif
       if                                                    /* dispatch_has_news, then loop_wait */
       :: LOOK_AGAIN && memory[0] != taken[0]
       :: !LOOK_AGAIN || memory[0] == taken[0] ->
            if
            :: LOOK_AGAIN && memory[1] != taken[1]
            :: !LOOK_AGAIN || memory[1] == taken[1] ->
                fence(CORE);                                 /* the system call */
end_asleep:     edge || dead[0]
            fi
       fi;
       edge = false;                                         /* reported once, as edges are */
       store(CORE, SLEEPING, 0);                             /* bell_awake */
       if                                                    /* _handle: TOKEN_PROCESS, slot_dead */
       :: dead[0] -> dead[0] = false; slot_poll(0)
       :: else
       fi;
       slot_poll(0);                                          /* dispatch_poll */
       slot_poll(1)
    od
}

proctype killer() {
    if
    :: true
    :: killed = true
    fi
}

init {
    atomic { run drain(0); run drain(1); run drain(CORE); run slot(0); run slot(1); run core(); run killer() };
    timeout;
    assert(taken[0] == memory[0] && taken[1] == memory[1]);
    assert(taken[1] == ANSWERS - 1)
}
