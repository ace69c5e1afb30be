"""A single-producer single-consumer ring of task descriptors, the bell for its sleeping side, and the task word."""

from mosec_cy._engine.linux cimport (
    add_fetch_u32,
    cas_u64,
    exchange_u32,
    fence_seq_cst,
    fetch_or_u64,
    load_acquire_u32,
    load_acquire_u64,
    load_relaxed_u32,
    load_relaxed_u64,
    store_relaxed_u32,
    store_release_u32,
    store_release_u64,
)


cdef size_t ring_bytes(uint32_t capacity) noexcept nogil:
    return sizeof(RingMemory) + (<size_t>capacity - 1) * sizeof(Descriptor)


cdef void ring_attach(RingEnd *end, void *memory, uint32_t capacity) noexcept nogil:
    end.memory = <RingMemory *>memory
    end.mask = <uint64_t>capacity - 1
    end.own = 0
    end.peer = 0


cdef void ring_reset(RingEnd *end) noexcept nogil:
    # Release; pairs with the acquire in ring_pop and in look_for_space, of the next process, which starts after this.
    store_release_u64(&end.memory.head, 0)
    store_release_u64(&end.memory.tail, 0)
    end.own = 0
    end.peer = 0


cdef int look_for_space(RingEnd *end) noexcept nogil:
    """Producer: re-read the consumer's index. It may only have moved on, up to the producer's own."""
    # Acquire; pairs with the release in ring_release: the consumer has copied the places that it released.
    cdef uint64_t tail = load_acquire_u64(&end.memory.tail)
    if end.own - tail > end.own - end.peer:
        return RING_BROKEN
    end.peer = tail
    return RING_OK


cdef uint32_t ring_free(RingEnd *end) noexcept nogil:
    look_for_space(end)  # a broken ring keeps the last possible index; ring_push reports it when that is used up
    return <uint32_t>(end.mask + 1 - (end.own - end.peer))


cdef bint ring_is_corrupt(RingEnd *end) noexcept nogil:
    return look_for_space(end) != RING_OK


cdef int ring_push(RingEnd *end, const Descriptor *descriptor) noexcept nogil:
    if end.own - end.peer > end.mask:
        if look_for_space(end) != RING_OK:
            return RING_BROKEN
        if end.own - end.peer > end.mask:
            return RING_FULL
    end.memory.descriptors[end.own & end.mask] = descriptor[0]
    end.own += 1
    return RING_OK


cdef void ring_publish(RingEnd *end) noexcept nogil:
    # Release; pairs with the acquire in ring_pop and ring_has_news: the descriptors are written before they are seen.
    store_release_u64(&end.memory.head, end.own)


cdef int ring_pop(RingEnd *end, Descriptor *out) noexcept nogil:
    cdef uint64_t head
    if end.own == end.peer:
        # Acquire; pairs with the release in ring_publish.
        head = load_acquire_u64(&end.memory.head)
        if head - end.own > end.mask + 1:
            return RING_BROKEN
        if head == end.own:
            return RING_EMPTY
        end.peer = head
    out[0] = end.memory.descriptors[end.own & end.mask]
    end.own += 1
    return RING_OK


cdef void ring_release(RingEnd *end) noexcept nogil:
    # Release; pairs with the acquire in look_for_space: the copies are made before a place is written again.
    store_release_u64(&end.memory.tail, end.own)


# Why no wake-up is lost. Sleeper: S1 seen = counter, S2 sleeping = 1, fence, S3 look for work, S4 wait while
# counter == seen. Ringer: R1 publish, fence, R2 read sleeping, R3 exchange it for 0, R4 counter += 1, R5 wake.
# Of the two fences one is first: either S3 sees what R1 published, or R2 sees S2's 1 or a later value. That value is
# 1: this ringer goes on to R5, unless R3 shows that another did. Or 0 from another ringer's R3: its R4 and R5 follow.
# Or 0 from bell_awake: the sleeper is up and passes S2, the fence and S3 again before it sleeps.
# The ringer that won R3 took a 1 that S2 released after S1, so its R4 comes after S1: S4 finds another count, or R5
# finds the sleeper. A ringer that is late between R3 and R5 can only cause a wake-up too many.
# A ringer killed there loses one: core learns of its death by pidfd, and master rings slots with bell_force.

cdef uint32_t bell_prepare(Bell *bell) noexcept nogil:
    cdef uint32_t seen = load_acquire_u32(&bell.counter)  # acquire; pairs with the add in bell_ring
    store_release_u32(&bell.sleeping, 1)                  # release; pairs with the exchange in bell_ring
    fence_seq_cst()                                       # fence; pairs with the one in bell_ring
    return seen


cdef void bell_awake(Bell *bell) noexcept nogil:
    store_relaxed_u32(&bell.sleeping, 0)  # relaxed; late is harmless: a ringer then makes one call too many


cdef bint bell_ring(Bell *bell) noexcept nogil:
    fence_seq_cst()  # fence; pairs with the one in bell_prepare
    if load_relaxed_u32(&bell.sleeping) == 0:
        return False
    if exchange_u32(&bell.sleeping, 0) == 0:  # acquire-release; pairs with the store in bell_prepare
        return False
    add_fetch_u32(&bell.counter, 1)  # sequentially consistent; pairs with the load in bell_prepare
    return True


cdef void bell_force(Bell *bell) noexcept nogil:
    add_fetch_u32(&bell.counter, 1)  # sequentially consistent; pairs with the load in bell_prepare


# ---- the task word -------------------------------------------------------------------------------

# A task's word in shared memory: starting (slot) and reclaiming (core) are compare-and-swaps from the same value, so
# that exactly one of them wins.

cdef inline uint64_t make_word(uint32_t sequence, uint64_t flags) noexcept nogil:
    return (<uint64_t>sequence << 32) | flags


cdef void word_dispatch(uint64_t *word, uint32_t sequence) noexcept nogil:
    # Release; partner: the acquire of the swap in word_start.
    store_release_u64(word, make_word(sequence, WORD_DISPATCHED))


cdef bint word_reclaim(uint64_t *word, uint32_t sequence) noexcept nogil:
    cdef uint64_t waiting = make_word(sequence, WORD_DISPATCHED)
    # Acquire-release; partner: the same swap in word_start.
    return cas_u64(word, &waiting, make_word(sequence + 1, 0))


cdef void word_cancel(uint64_t *word) noexcept nogil:
    # Acquire-release; partner: the load in word_cancelled.
    fetch_or_u64(word, WORD_CANCELLED)


cdef bint word_start(uint64_t *word, uint32_t sequence) noexcept nogil:
    cdef uint64_t waiting = make_word(sequence, WORD_DISPATCHED)
    # Acquire-release; partners: the release in word_dispatch and the same swap in word_reclaim.
    return cas_u64(word, &waiting, make_word(sequence, WORD_STARTED))


cdef bint word_cancelled(const uint64_t *word, uint32_t sequence) noexcept nogil:
    # Relaxed: a hint that carries nothing with it; partner: the fetch-or in word_cancel.
    return load_relaxed_u64(word) == make_word(sequence, WORD_STARTED | WORD_CANCELLED)
