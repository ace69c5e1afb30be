# A task's word in shared memory: who may run it. All that core and the rows write both. Its upper half is the dispatch
# sequence, which grows at each hand-out and each take-back: a stale descriptor fits no later hand-out.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:                            # flags, in the lower half
    WORD_HANDED = 1                   # waits in a row's ring: the row may start it, core may take it back
    WORD_STARTED = 2                  # set by the row
    WORD_CANCELLED = 4                # set by core while it runs: nobody waits for the answer

# Core's side.
cdef void word_hand(uint64_t *word, uint32_t sequence) noexcept nogil
# True when (sequence) had not been started and now cannot be; the word's sequence is then the next.
cdef bint word_take_back(uint64_t *word, uint32_t sequence) noexcept nogil
cdef void word_cancel(uint64_t *word) noexcept nogil
# Row's side. True when (sequence) was waiting and is now started by the caller.
cdef bint word_start(uint64_t *word, uint32_t sequence) noexcept nogil
cdef bint word_cancelled(const uint64_t *word, uint32_t sequence) noexcept nogil
