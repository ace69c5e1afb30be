"""A task's word in shared memory: starting (row) and taking back (core) are compare-and-swaps from the same value, so
that exactly one of them wins."""

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._linux cimport cas_u64, fetch_or_u64, load_relaxed_u64, store_release_u64


cdef inline uint64_t make_word(uint32_t sequence, uint64_t flags) noexcept nogil:
    return (<uint64_t>sequence << 32) | flags


cdef void word_hand(uint64_t *word, uint32_t sequence) noexcept nogil:
    # Release; partner: the acquire of the swap in word_start.
    store_release_u64(word, make_word(sequence, WORD_HANDED))


cdef bint word_take_back(uint64_t *word, uint32_t sequence) noexcept nogil:
    cdef uint64_t waiting = make_word(sequence, WORD_HANDED)
    # Acquire-release; partner: the same swap in word_start.
    return cas_u64(word, &waiting, make_word(sequence + 1, 0))


cdef void word_cancel(uint64_t *word) noexcept nogil:
    # Acquire-release; partner: the load in word_cancelled.
    fetch_or_u64(word, WORD_CANCELLED)


cdef bint word_start(uint64_t *word, uint32_t sequence) noexcept nogil:
    cdef uint64_t waiting = make_word(sequence, WORD_HANDED)
    # Acquire-release; partners: the release in word_hand and the same swap in word_take_back.
    return cas_u64(word, &waiting, make_word(sequence, WORD_STARTED))


cdef bint word_cancelled(const uint64_t *word, uint32_t sequence) noexcept nogil:
    # Relaxed: a hint that carries nothing with it; partner: the fetch-or in word_cancel.
    return load_relaxed_u64(word) == make_word(sequence, WORD_STARTED | WORD_CANCELLED)
