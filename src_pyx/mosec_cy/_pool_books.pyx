"""The pool's books: what the dead held is dropped, what the living hold is counted. Scans, off the usual path."""

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._linux cimport cas_u64, load_relaxed_u64
from mosec_cy._pool cimport Pool

cdef uint64_t CORE = <uint64_t>1 << 63


cdef uint32_t sweep_chunk(uint64_t *words, uint32_t count, uint64_t lessee) noexcept nogil:
    cdef uint32_t i, cleared = 0
    cdef uint64_t word
    for i in range(count):
        word = load_relaxed_u64(&words[i])  # relaxed; a dead process changes nothing, and only it set this claim
        while word & ~CORE == lessee:
            # Release; pairs with the acquire in claim, of whoever has the block next. Core may drop its own claim
            # meanwhile (in another thread of it): then once more.
            if cas_u64(&words[i], &word, word & CORE):
                cleared += 1
                break
    return cleared


cdef uint32_t pool_sweep(Pool *pool, uint64_t lessee) noexcept nogil:
    cdef uint32_t size, start, cleared = 0
    cdef uint32_t chunk = <uint32_t>1 << pool.chunk_shift
    cdef uint64_t touched
    if lessee == 0:
        return 0
    for size in range(pool.classes):
        touched = load_relaxed_u64(&pool.touched[size])  # relaxed; the kernel's news of the death orders it
        start = 0
        while touched and start < pool.sizes[size].count:
            if touched & 1:
                cleared += sweep_chunk(
                    &pool.words[pool.sizes[size].first + start], min(chunk, pool.sizes[size].count - start), lessee
                )
            touched >>= 1
            start += chunk
    return cleared


cdef void pool_count(const Pool *pool, uint32_t *core_held, uint32_t *leased) noexcept nogil:
    cdef uint32_t size, i
    cdef uint64_t touched, word
    core_held[0] = leased[0] = 0
    for size in range(pool.classes):
        touched = load_relaxed_u64(&pool.touched[size])  # relaxed, here and below: a count of what moves meanwhile
        for i in range(pool.sizes[size].count):
            if not touched >> (i >> pool.chunk_shift) & 1:
                continue
            word = load_relaxed_u64(&pool.words[pool.sizes[size].first + i])  # relaxed, as above
            core_held[0] += (word & CORE) != 0
            leased[0] += (word & ~CORE) != 0
