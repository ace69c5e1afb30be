"""Payload blocks in power-of-two classes over shared memory, with one claim word for each block; and their trimmer."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from mosec_cy._engine.linux cimport NEVER, cas_u64, fetch_or_u64, load_relaxed_u64, store_release_u64
from mosec_cy._engine.ring cimport NO_BLOCK

cdef enum:
    PAGE = 4096
    HUGE_PAGE = 2 << 20
    WORDS_IN_PAGE_SHIFT = 9
    CHUNKS_SHIFT = 6               # a class has at most 64 chunks: the bits of its `touched` map
    MAX_CLASS_SHIFT = 26           # 32 classes of 2**26 numbers stay below NO_BLOCK
    MAX_DATA_SHIFT = 46            # of the 2**47 bytes that a process can map
    FIRST_FIT_SHIFT = 16           # from blocks of this size on every scan starts from home

cdef uint64_t CORE = <uint64_t>1 << 63
cdef uint32_t LARGEST_PERIOD = 32  # allocations after which a scan starts from home again, at most
cdef uint32_t RECENT_CAPACITY = 4096


cdef uint32_t log2_up(uint32_t value) noexcept nogil:
    cdef uint32_t shift = 0
    while (<uint64_t>1 << shift) < value:
        shift += 1
    return shift


cdef int pool_layout(Pool *pool, uint64_t budget_bytes, uint32_t max_blocks_per_class) noexcept nogil:
    cdef uint64_t end = 0, size, count
    cdef uint32_t most = min(max(max_blocks_per_class, 1), <uint32_t>1 << MAX_CLASS_SHIFT)
    cdef PoolClass *sizes
    memset(pool, 0, sizeof(Pool))
    if budget_bytes >> MAX_DATA_SHIFT or budget_bytes < <uint64_t>2 << POOL_MIN_SHIFT:
        return POOL_BAD_BUDGET
    pool.class_shift = log2_up(most)
    pool.chunk_shift = max(WORDS_IN_PAGE_SHIFT, <int>pool.class_shift - CHUNKS_SHIFT)
    while pool.classes < POOL_MAX_CLASSES:
        size = <uint64_t>1 << (POOL_MIN_SHIFT + pool.classes)
        if size > budget_bytes // 2:
            break
        count = min(budget_bytes // size, <uint64_t>most)
        # No two classes share a page, and large blocks can lie on huge pages.
        end = align_up(end, min(max(size, <uint64_t>PAGE), <uint64_t>HUGE_PAGE))
        sizes = &pool.sizes[pool.classes]
        sizes.first = pool.classes << pool.class_shift
        sizes.count = <uint32_t>count
        sizes.offset = end
        end += count * size
        pool.classes += 1
    pool.blocks = pool.classes << pool.class_shift
    return POOL_BAD_BUDGET if end >> MAX_DATA_SHIFT else POOL_OK


cdef size_t pool_words_bytes(const Pool *pool) noexcept nogil:
    return PAGE + align_up(<uint64_t>pool.blocks * sizeof(uint64_t), PAGE)


cdef uint64_t pool_data_bytes(const Pool *pool) noexcept nogil:
    cdef uint32_t last = pool.classes - 1
    return align_up(pool.sizes[last].offset + (<uint64_t>pool.sizes[last].count << (POOL_MIN_SHIFT + last)), PAGE)


cdef void pool_attach(Pool *pool, void *words, void *data, uint32_t process, uint32_t processes) noexcept nogil:
    # Core holds many blocks for long, a slot a few: core's home is the first half of each class,
    # and the homes of the slots are spread over the second.
    cdef uint32_t i, count, half
    cdef uint32_t slots = max(processes, 2) - 1
    pool.touched = <uint64_t *>words
    pool.words = <uint64_t *>(<uint8_t *>words + PAGE)
    pool.data = <uint8_t *>data
    for i in range(pool.classes):
        count = pool.sizes[i].count
        half = count - count // 2
        pool.recent[i] = NULL
        pool.recent_count[i] = pool.recent_capacity[i] = 0
        pool.share[i] = pool.home[i] = 0
        if process == 0:
            pool.share[i] = half
            pool.recent[i] = <uint32_t *>malloc(min(half, RECENT_CAPACITY) * sizeof(uint32_t))
            if pool.recent[i] != NULL:  # without a stack, core scans
                pool.recent_capacity[i] = min(half, RECENT_CAPACITY)
        else:
            pool.home[i] = <uint32_t>(half + <uint64_t>((process - 1) % slots) * (count // 2) // slots) % count
        pool.cursor[i] = pool.home[i]
        pool.scans[i] = 0


cdef void pool_detach(Pool *pool) noexcept nogil:
    cdef uint32_t i
    for i in range(pool.classes):
        free(pool.recent[i])
        pool.recent[i] = NULL
        pool.recent_count[i] = pool.recent_capacity[i] = 0


cdef uint64_t pool_lessee(uint32_t slot, uint32_t incarnation) noexcept nogil:
    return (<uint64_t>slot + 1) << 32 | incarnation


cdef bint claim(Pool *pool, uint32_t size, uint32_t index, uint64_t claimant) noexcept nogil:
    """Claim block `index` of class `size` if it is free; `touched` first, so that no scan misses the claim."""
    cdef uint64_t *word = &pool.words[pool.sizes[size].first + index]
    cdef uint64_t free_word = 0
    cdef uint64_t bit = <uint64_t>1 << (index >> pool.chunk_shift)
    if load_relaxed_u64(word) != 0:  # relaxed; a hint, the compare-and-swap decides
        return False
    if not load_relaxed_u64(&pool.touched[size]) & bit:  # relaxed; bits are only ever set
        fetch_or_u64(&pool.touched[size], bit)  # before the claim; pairs with the look in pool_sweep
    # Acquire; pairs with the release in pool_drop_core, in pool_drop_lease and in pool_unclaim: the process that
    # dropped the last claim no longer uses the block.
    return cas_u64(word, &free_word, claimant)


cdef uint32_t allocate_recent(Pool *pool, uint32_t size) noexcept nogil:
    """Core: the block of this class that it freed last and that no process has claimed since."""
    cdef uint32_t block
    while pool.recent_count[size]:
        pool.recent_count[size] -= 1
        block = pool.recent[size][pool.recent_count[size]]
        if claim(pool, size, block - pool.sizes[size].first, CORE):
            return block
    return NO_BLOCK


cdef uint32_t allocate_scanning(Pool *pool, uint32_t size, uint64_t claimant) noexcept nogil:
    """First fit from home for large blocks, whose warm pages are worth far more than the scan; next fit for
    small ones, with a return to home after as many as make up one large block."""
    cdef uint32_t shift = POOL_MIN_SHIFT + size
    cdef uint32_t period = 1
    cdef uint32_t count = pool.sizes[size].count
    cdef uint32_t index, _
    if shift < FIRST_FIT_SHIFT:
        period = min(<uint32_t>1 << (FIRST_FIT_SHIFT - shift), LARGEST_PERIOD)
    if pool.scans[size] >= period:
        pool.scans[size] = 0
        pool.cursor[size] = pool.home[size]
    index = pool.cursor[size]
    for _ in range(count):
        if claim(pool, size, index, claimant):
            pool.scans[size] += 1
            pool.cursor[size] = index + 1 if index + 1 < count else 0
            return pool.sizes[size].first + index
        index = index + 1 if index + 1 < count else 0
    return NO_BLOCK


cdef uint32_t pool_allocate(Pool *pool, uint64_t bytes, uint64_t lessee) noexcept nogil:
    cdef uint32_t size = 0, block
    while size < pool.classes and (<uint64_t>1 << (POOL_MIN_SHIFT + size)) < bytes:
        size += 1
    while size < pool.classes:
        block = NO_BLOCK
        if lessee == 0:
            block = allocate_recent(pool, size)
        if block == NO_BLOCK:
            block = allocate_scanning(pool, size, lessee if lessee else CORE)
        if block != NO_BLOCK:
            return block
        size += 1  # exhausted: a larger block serves as well, untouched pages of it cost nothing
    return NO_BLOCK


cdef int pool_check(const Pool *pool, uint32_t block, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t size = pool_block_size(pool, block)
    if size == 0 or offset > size or length > size - offset:
        return POOL_BAD_BLOCK
    return POOL_OK


cdef int pool_lease(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil:
    cdef uint64_t word = CORE
    if not pool_has(pool, block):
        return POOL_BAD_BLOCK
    # Acquire-release; pairs with pool_drop_lease of the lessee before.
    if cas_u64(&pool.words[block], &word, CORE | lessee):
        return POOL_OK
    return POOL_LEASED if word & CORE else POOL_NOT_HELD


cdef int pool_drop_lease(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil:
    cdef uint64_t word
    if not pool_has(pool, block):
        return POOL_BAD_BLOCK
    word = load_relaxed_u64(&pool.words[block])  # relaxed; a first guess for the compare-and-swap
    while lessee != 0 and word & ~CORE == lessee:
        # Release; pairs with the acquire in claim, by the block's next holder.
        if cas_u64(&pool.words[block], &word, word & CORE):
            return POOL_OK
    return POOL_NOT_HELD


cdef int pool_take_over(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil:
    cdef uint64_t expected = lessee
    if not pool_has(pool, block):
        return POOL_BAD_BLOCK
    # Acquire; pairs with the swap in claim, the lessee's. (The ring that carried the block number orders its payload.)
    if lessee != 0 and cas_u64(&pool.words[block], &expected, CORE):
        return POOL_OK
    return POOL_NOT_HELD


cdef int pool_drop_core(Pool *pool, uint32_t block) noexcept nogil:
    cdef uint64_t word
    cdef uint32_t size
    if not pool_has(pool, block):
        return POOL_BAD_BLOCK
    word = load_relaxed_u64(&pool.words[block])  # relaxed; a first guess for the compare-and-swap
    while word & CORE:
        # Release; pairs with the acquire in claim, by the block's next holder.
        if not cas_u64(&pool.words[block], &word, word & ~CORE):
            continue
        size = block >> pool.class_shift
        # A block from a slot's part goes back to that slot's scan, which finds it warm.
        if word == CORE and block - pool.sizes[size].first < pool.share[size] and (
            pool.recent_count[size] < pool.recent_capacity[size]
        ):
            pool.recent[size][pool.recent_count[size]] = block
            pool.recent_count[size] += 1
        return POOL_OK
    return POOL_NOT_HELD


cdef bint pool_claim_free(Pool *pool, uint32_t block) noexcept nogil:
    cdef uint64_t word = 0
    # Acquire; pairs with the release in pool_drop_core and in pool_drop_lease, by the block's last holder.
    return pool_has(pool, block) and cas_u64(&pool.words[block], &word, CORE)


cdef void pool_unclaim(Pool *pool, uint32_t block) noexcept nogil:
    # Release; pairs with the acquire in claim, by the block's next holder.
    store_release_u64(&pool.words[block], 0)


# ---- accounting ----------------------------------------------------------------------------------

# Drops the claims of dead processes and counts those of live ones. Scans, off the usual path.

cdef uint32_t sweep_chunk(uint64_t *words, uint32_t count, uint64_t lessee) noexcept nogil:
    cdef uint32_t i, cleared = 0
    cdef uint64_t word
    for i in range(count):
        word = load_relaxed_u64(&words[i])  # relaxed; a dead process changes nothing, and only it set this claim
        while word & ~CORE == lessee:
            # Release; pairs with the acquire in claim, by the block's next holder. If the word
            # has changed meanwhile, the loop looks once more.
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
        touched = load_relaxed_u64(&pool.touched[size])  # relaxed; the kernel's report of the death orders it
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


# ---- trimmer -------------------------------------------------------------------------------------

# Gives the pages of idle blocks back to the kernel, off the usual path.

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *address, size_t length, int advice)
    int MADV_REMOVE

cdef enum Mark:
    UNWATCHED = 0
    USED = 1                   # in this period
    RESTED = 2                 # not used since the last period ended


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
        if pool_block_size(t.pool, block) < PAGE:           # smaller blocks share their pages with others
            return
        t.watched[t.watched_n] = block
        t.watched_n += 1
        if t.next_at == NEVER:
            t.next_at = now + TRIM_PERIOD_NS
    t.marks[block] = USED


cdef void _trim(Trimmer *t, uint32_t block) noexcept nogil:
    if pool_claim_free(t.pool, block):
        # Punches a hole into the memory file: the next process to touch it gets zeroed pages.
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
            # Emptied; or in use again, and then watched again when that ends.
            _trim(t, block)
            t.marks[block] = UNWATCHED
            continue
        t.marks[block] = RESTED
        t.watched[kept] = block
        kept += 1
    t.watched_n = kept
    t.next_at = now + TRIM_PERIOD_NS if kept else NEVER
