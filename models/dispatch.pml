/* Which slot runs a task: the task's word in shared memory (ring.pyx), the sequence in it, and core's side: dispatch,
 * reclaim, cancellation, completion, and what happens to a dead slot's tasks (batcher.pyx, dispatch.pyx). A word is
 * changed in one step by a compare-and-swap, or by core's store while no other process may change it.
 *
 * One slot serves REQUESTS requests one after the other. Core dispatches each to one of two slots and may reclaim it, a
 * client may leave, and the first life of slot 0 may be killed at any step. Descriptors of what was reclaimed stay in
 * their ring. Claims: no request is started twice, none is lost, each has one end; an answer is that of the request
 * that it is given to; an answer that was published before its slot died counts; no slot sees the cancellation of
 * another's request.
 *
 * Mutations, each of which must be found: NO_SEQUENCE (also where NO_CLIENT_LEAVES), START_BY_STORE, RECLAIM_BY_STORE,
 * DISPATCH_AFTER_PUSH, SETTLE_BEFORE_DRAIN, CANCEL_WITHOUT_SEQUENCE. */

#define REQUESTS 2
#define RECLAIMS 2                   /* in all, at most */
#define SLOTS 2
#define NO_SLOT 255
#define DISPATCHED 1                       /* WORD_DISPATCHED */
#define STARTED 2                      /* WORD_STARTED */
#define CANCELLED 4                    /* WORD_CANCELLED */
#define WORD(sequence, flags) ((sequence) * 8 + (flags))
#ifdef NO_SEQUENCE
#define NEXT(sequence) (sequence)
#else
#define NEXT(sequence) (sequence + 1)
#endif

byte word;
chan submit[SLOTS] = [4] of { byte, byte };       /* sequence; the request, which the program does not send */
chan complete[SLOTS] = [4] of { byte, byte };
chan dead = [1] of { byte };
bool kill;
bool leaves[REQUESTS];
byte overdue;                          /* times that an unstarted task is found to be late */

/* Not in the program: what happened to each request. */
byte starts[REQUESTS], ends[REQUESTS];
bool published[REQUESTS], left[REQUESTS];

proctype slot(byte r; byte life) {
    byte sequence, request;
    bool ok;
    {
end:    do
        :: submit[r] ? sequence, request ->                /* Channel._started: ring_pop */
#ifdef START_BY_STORE
            ok = (word == WORD(sequence, DISPATCHED));
            if :: ok -> atomic { word = WORD(sequence, STARTED); starts[request]++ } :: else fi;
#else
            atomic {                                       /* word_start */
                ok = (word == WORD(sequence, DISPATCHED));
                if :: ok -> word = WORD(sequence, STARTED); starts[request]++ :: else fi
            }
#endif
            if
            :: ok ->
                assert(starts[request] == 1 && ends[request] == 0);
                if                                         /* Channel.is_cancelled: word_cancelled */
#ifdef CANCEL_WITHOUT_SEQUENCE
                :: word & CANCELLED -> assert(left[request])
#else
                :: word == WORD(sequence, STARTED | CANCELLED) -> assert(left[request])
#endif
                :: else
                fi;
                atomic { published[request] = true; complete[r] ! sequence, request }      /* Channel._publish */
#ifdef CANCEL_WITHOUT_SEQUENCE
                if                                         /* user code may ask late */
                :: word & CANCELLED -> assert(left[request])
                :: else
                fi
#else
                if
                :: word == WORD(sequence, STARTED | CANCELLED) -> assert(left[request])
                :: else
                fi
#endif
            :: else                                        /* stale */
            fi
        od
    } unless { kill && r == 0 && life == 0 };
    dead ! r
}

inline finish(request) { ends[request]++; assert(ends[request] == 1); state = FREE }

inline reclaim(ok) {                                     /* reclaim_task: word_reclaim */
#ifdef RECLAIM_BY_STORE
    ok = (word == WORD(sequence, DISPATCHED));
    if :: ok -> word = WORD(NEXT(sequence), 0); sequence = NEXT(sequence) :: else fi
#else
    atomic {
        ok = (word == WORD(sequence, DISPATCHED));
        if :: ok -> word = WORD(NEXT(sequence), 0); sequence = NEXT(sequence) :: else fi
    }
#endif
}

inline drain(r) {                                          /* slot_poll: _complete: batcher_complete */
    complete[r] ? got, answered ->
    if
    :: state == AT_SLOT && at == r && got == sequence ->
        assert(answered == request);
        finish(request)
    :: else                                                /* that slot may not answer it */
    fi
}

inline settle_dead(r) {                                          /* batcher_slot_down */
    if
    :: state == AT_SLOT && at == r ->
        reclaim(ok);
        if
        :: ok -> state = QUEUED
        :: else -> assert(!published[request]); finish(request)        /* 500 at once */
        fi
    :: else
    fi
}

inline hand(r) {                                           /* batcher_next_batch, _push_batch */
    sequence = NEXT(sequence);
#ifdef DISPATCH_AFTER_PUSH
    submit[r] ! sequence, request;
    word = WORD(sequence, DISPATCHED);
#else
    word = WORD(sequence, DISPATCHED);                         /* word_dispatch */
    submit[r] ! sequence, request;                         /* ring_push, ring_publish */
#endif
    state = AT_SLOT;
    at = r
}

mtype = { FREE, QUEUED, AT_SLOT }

proctype core() {
    mtype state = FREE;
    byte sequence, at = NO_SLOT, request, next, reclaims, got, answered, r;
    bool ok;
    bool up[SLOTS] = true;
end:
    do
    :: state == FREE && next < REQUESTS -> request = next; next++; state = QUEUED      /* task_new, batcher_enqueue */
    :: state == QUEUED && up[0] -> hand(0)
    :: state == QUEUED && up[1] -> hand(1)
    :: state == AT_SLOT && reclaims < overdue ->                                   /* batcher_reclaim */
        reclaims++;
        reclaim(ok);
        if :: ok -> state = QUEUED :: else fi
    :: state != FREE && leaves[request] && !left[request] ->              /* batcher_withdraw */
        if
        :: state == QUEUED -> left[request] = true; finish(request)
        :: else ->
            reclaim(ok);
            left[request] = true;
            if
            :: ok -> finish(request)
            :: else -> word = word | CANCELLED                                         /* word_cancel: RUNNING */
            fi
        fi
    :: drain(0)
    :: drain(1)
    :: dead ? r ->                                         /* slot_dead */
        up[r] = false;
#ifdef SETTLE_BEFORE_DRAIN
        settle_dead(r);
#endif
        do
        :: drain(r)
        :: empty(complete[r]) -> break
        od;
        settle_dead(r);
        atomic { do :: submit[r] ? _, _ :: empty(submit[r]) -> break od };             /* ring_reset */
        up[r] = true;
        run slot(r, 1)
    od
}

proctype killer() {
    if :: kill = true :: true fi
}

init {
    byte q;
    atomic {                                               /* what will happen, at whatever time */
#ifndef NO_CLIENT_LEAVES
        if :: leaves[0] = true :: leaves[1] = true :: true fi;
#endif
        do :: overdue < RECLAIMS -> overdue++ :: break od;
        run slot(0, 0); run slot(1, 0); run core(); run killer()
    };
    timeout;
    do
    :: q < REQUESTS -> assert(ends[q] == 1 && starts[q] <= 1); q++
    :: else -> break
    od
}
