"""Gives the pages of idle blocks back to the kernel."""

from libc.stdlib cimport calloc, free

from mosec_cy._pool cimport pool_block_data, pool_block_size, pool_claim_free, pool_unclaim

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *address, size_t length, int advice)
    int MADV_REMOVE

cdef enum:
    PAGE = 4096                # smaller blocks share their pages with others
    NEVER = 0x7FFFFFFFFFFFFFFF

cdef enum Mark:
    UNWATCHED = 0
    USED = 1                   # in this period
    RESTED = 2                 # not since the last period ended


cdef int trimmer_open(Trimmer *t, Pool *pool) noexcept nogil:
    t.pool = pool
    t.watched_n = 0
    t.next_at = NEVER
    # Untouched pages of these cost nothing.
    t.marks = <uint8_t *>calloc(pool.blocks, sizeof(uint8_t))
    t.watched = <uint32_t *>calloc(pool.blocks, sizeof(uint32_t))
    return 0 if t.marks != NULL and t.watched != NULL else -1


cdef void trimmer_close(Trimmer *t) noexcept nogil:
    free(t.marks)
    free(t.watched)
    t.marks = NULL
    t.watched = NULL


cdef void trimmer_note(Trimmer *t, uint32_t block, uint64_t now) noexcept nogil:
    if t.marks[block] == UNWATCHED:
        if pool_block_size(t.pool, block) < PAGE:
            return
        t.watched[t.watched_n] = block
        t.watched_n += 1
        if t.next_at == NEVER:
            t.next_at = now + TRIM_PERIOD_NS
    t.marks[block] = USED


cdef void _trim(Trimmer *t, uint32_t block) noexcept nogil:
    if pool_claim_free(t.pool, block):
        # Punches a hole into the memory file: the next toucher, in any process, gets zeroed pages.
        madvise(pool_block_data(t.pool, block), pool_block_size(t.pool, block), MADV_REMOVE)
        pool_unclaim(t.pool, block)


cdef void trimmer_run(Trimmer *t, uint64_t now) noexcept nogil:
    cdef uint32_t i, block
    cdef uint32_t kept = 0
    if now < t.next_at:
        return
    for i in range(t.watched_n):
        block = t.watched[i]
        if t.marks[block] == RESTED:
            # Emptied; or in use again, and then watched anew when that ends.
            _trim(t, block)
            t.marks[block] = UNWATCHED
            continue
        t.marks[block] = RESTED
        t.watched[kept] = block
        kept += 1
    t.watched_n = kept
    t.next_at = now + TRIM_PERIOD_NS if kept else NEVER
