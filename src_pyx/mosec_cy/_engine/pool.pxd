# Blocks of payload over memory that the caller gives: power-of-two size classes, one claim word for each block.
# Knows no clock, no descriptor and no allocator.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef inline uint64_t align_up(uint64_t value, uint64_t alignment) noexcept nogil:      # to a power of two
    return (value + alignment - 1) & ~(alignment - 1)

cdef enum:
    POOL_MIN_SHIFT = 10            # smallest block: 1 KiB
    POOL_MAX_CLASSES = 32
    POOL_PAYLOAD_OFFSET = 64       # bytes before a request's payload: room for metadata, and alignment
    POOL_OK = 0
    POOL_BAD_BLOCK = -1            # no such block, or the range leaves it
    POOL_NOT_HELD = -2             # the claim to drop or to take over does not exist
    POOL_LEASED = -3               # a lessee holds it already
    POOL_BAD_BUDGET = -4           # no class fits the budget, or it is beyond any address space

# The word of a block. 0: free. Bit 63: core's claim. Low 63 bits: lessee, (slot + 1) << 32 | incarnation, or 0.
# Each side sets and drops only its own claim, by compare-and-swap; core may take over a lessee's
# claim when a completion passes the block to core (pool_take_over).
#
# Block numbers are class << class_shift | index, so a class is one shift away; numbers past a class's count are no
# blocks. In shared memory: `touched`, one 64-bit map for each class (bit i: some word of the i-th 64th of the class has
# been claimed once), then, from the next page on, the words. Words that the map leaves out are read only by a process
# that is about to claim there: reading a hole of a memfd would allocate its page.
ctypedef struct PoolClass:
    uint32_t first                 # number of its first block
    uint32_t count                 # blocks in it, at most 1 << class_shift
    uint64_t offset                # bytes from the data area's start to its first block

ctypedef struct Pool:
    uint64_t *words                # `blocks` of them, in shared memory, indexed by block number
    uint64_t *touched              # POOL_MAX_CLASSES of them, in shared memory
    uint8_t *data                  # the data area, in shared memory
    uint32_t blocks                # every block number is below this
    uint32_t class_shift           # log2 of the block numbers that a class takes up
    uint32_t chunk_shift           # log2 of the words that a bit of `touched` stands for
    uint32_t classes               # class i holds blocks of 1 << (POOL_MIN_SHIFT + i) bytes
    PoolClass sizes[POOL_MAX_CLASSES]
    # Private hints; a hint may be wrong, the compare-and-swap decides.
    uint32_t cursor[POOL_MAX_CLASSES]            # where the next scan of a class begins
    uint32_t scans[POOL_MAX_CLASSES]             # allocations since the cursor went back to home
    uint32_t home[POOL_MAX_CLASSES]              # first candidate of this process in a class
    uint32_t share[POOL_MAX_CLASSES]             # core only: indices below this are in no other process's home
    uint32_t *recent[POOL_MAX_CLASSES]      # core only: stack of blocks of its share that it freed last (LIFO), or NULL
    uint32_t recent_count[POOL_MAX_CLASSES]
    uint32_t recent_capacity[POOL_MAX_CLASSES]

cdef inline bint pool_has(const Pool *pool, uint32_t block) noexcept nogil:            # there is such a block
    return block < pool.blocks and (
        (block & ((<uint32_t>1 << pool.class_shift) - 1)) < pool.sizes[block >> pool.class_shift].count
    )

cdef inline uint64_t pool_block_size(const Pool *pool, uint32_t block) noexcept nogil:    # bytes; 0: no such block
    if not pool_has(pool, block):
        return 0
    return <uint64_t>1 << (POOL_MIN_SHIFT + (block >> pool.class_shift))

cdef inline uint8_t *pool_block_data(const Pool *pool, uint32_t block) noexcept nogil:    # NULL: no such block
    cdef uint32_t size
    if not pool_has(pool, block):
        return NULL
    size = block >> pool.class_shift
    return pool.data + pool.sizes[size].offset + (<uint64_t>(block - pool.sizes[size].first) << (POOL_MIN_SHIFT + size))

# Geometry, a pure function of the budget: the same in each process. POOL_OK or POOL_BAD_BUDGET.
cdef int pool_layout(Pool *pool, uint64_t budget_bytes, uint32_t max_blocks_per_class) noexcept nogil
cdef size_t pool_words_bytes(const Pool *pool) noexcept nogil      # a multiple of the page size
cdef uint64_t pool_data_bytes(const Pool *pool) noexcept nogil     # a multiple of the page size
# After pool_layout, over zeroed, page-aligned memory. process: 0 is core, 1 + slot a slot; processes: core and all
# slots.
cdef void pool_attach(Pool *pool, void *words, void *data, uint32_t process, uint32_t processes) noexcept nogil
cdef void pool_detach(Pool *pool) noexcept nogil         # frees the private stacks; shared memory is left alone

cdef uint64_t pool_lessee(uint32_t slot, uint32_t incarnation) noexcept nogil
# Claims a free block of at least `bytes` bytes for core (lessee 0) or for `lessee`; NO_BLOCK (0xFFFFFFFF) if there is
# none. One thread of a process at a time (the hints are not atomic); everything below may be called from any thread,
# except pool_drop_core.
cdef uint32_t pool_allocate(Pool *pool, uint64_t bytes, uint64_t lessee) noexcept nogil
# POOL_OK or POOL_BAD_BLOCK; no overflow.
cdef int pool_check(const Pool *pool, uint32_t block, uint64_t offset, uint64_t length) noexcept nogil
# Lessee's side.
# Core holds the block meanwhile (else POOL_NOT_HELD) and no lessee does, this one included (else POOL_LEASED):
# a process that wants several views of a block counts them itself.
cdef int pool_lease(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil
cdef int pool_drop_lease(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil
# Core's side. take_over moves the claim of a block that is the lessee's alone (else POOL_NOT_HELD), so that no answer
# can alias a block that core holds for another task.
cdef int pool_take_over(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil
cdef int pool_drop_core(Pool *pool, uint32_t block) noexcept nogil
# For the trimmer. True when the block was free and is now core's; pool_unclaim frees it again and leaves no hint to it.
cdef bint pool_claim_free(Pool *pool, uint32_t block) noexcept nogil
cdef void pool_unclaim(Pool *pool, uint32_t block) noexcept nogil

# ---- accounting ----------------------------------------------------------------------------------
# Scans of all claims in a pool.

# Clears the claims of a dead incarnation; returns how many there were.
cdef uint32_t pool_sweep(Pool *pool, uint64_t lessee) noexcept nogil
# Blocks that are claimed by core, and by lessees (a block may be both).
cdef void pool_count(const Pool *pool, uint32_t *core_held, uint32_t *leased) noexcept nogil

# ---- trimmer -------------------------------------------------------------------------------------
# Gives the pages of idle blocks back to the kernel. A block that was not used for a whole period is claimed, emptied
# and freed again; used ones stay warm, since a page that must be faulted in costs twenty times the copy.

cdef enum:
    TRIM_PERIOD_NS = 10_000_000_000

ctypedef struct Trimmer:
    Pool *pool                 # core's
    uint8_t *marks             # one for each block number
    uint32_t *watched          # blocks that have a mark
    uint32_t watched_n
    uint64_t next_at           # ns; the largest value: no block is warm, there is nothing to wake up for

cdef int trimmer_open(Trimmer *t, Pool *pool) noexcept nogil                  # 0, or -1: no memory
cdef void trimmer_close(Trimmer *t) noexcept nogil
cdef void trimmer_note(Trimmer *t, uint32_t block, uint64_t now) noexcept nogil   # core has dropped the block
cdef void trimmer_run(Trimmer *t, uint64_t now) noexcept nogil               # when next_at has come
