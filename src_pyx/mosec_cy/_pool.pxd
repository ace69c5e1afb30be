# Blocks of payload over memory that it is given: power-of-two size classes, one claim word a block.
# Knows no clock, no descriptor and no allocator.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    POOL_MIN_SHIFT = 10            # smallest block: 1 KiB
    POOL_MAX_CLASSES = 32
    POOL_PAYLOAD_OFFSET = 64       # bytes before a request's payload: room for metadata, and alignment
    POOL_OK = 0
    POOL_BAD_BLOCK = -1            # no such block, or the range leaves it
    POOL_NOT_HELD = -2             # the claim to drop or to take over is not there
    POOL_LEASED = -3               # another lessee holds it

# The word of a block. 0: free. Bit 63: core's claim. Low 63 bits: lessee, (row + 1) << 32 | incarnation, or 0.
# Each side sets and drops only its own claim, by compare-and-swap; core may take over a lessee's
# claim when a completion hands the block over (pool_take_over).
ctypedef struct PoolClass:
    uint32_t first                 # number of its first block
    uint32_t count                 # blocks in it
    uint64_t offset                # bytes from the data area's start to its first block

ctypedef struct Pool:
    uint64_t *words                # `blocks` of them, in shared memory
    uint8_t *data                  # the data area, in shared memory
    uint32_t blocks
    uint32_t classes               # class i holds blocks of 1 << (POOL_MIN_SHIFT + i) bytes
    PoolClass sizes[32]
    # Private hints; a hint may be wrong, the compare-and-swap decides.
    uint32_t cursor[32]            # where the next scan of a class begins
    uint32_t scans[32]             # allocations since the cursor went back to home
    uint32_t home[32]              # first candidate of this process in a class
    uint32_t *recent[32]           # core only: stack of blocks that it freed last (LIFO), or NULL
    uint32_t recent_count[32]
    uint32_t recent_capacity[32]

# Geometry, a pure function of the budget: the same in each process.
cdef int pool_layout(Pool *pool, uint64_t budget_bytes, uint32_t max_blocks_per_class) noexcept nogil
cdef size_t pool_words_bytes(const Pool *pool) noexcept nogil
cdef uint64_t pool_data_bytes(const Pool *pool) noexcept nogil
cdef void pool_attach(Pool *pool, void *words, void *data, uint32_t process, uint32_t processes) noexcept nogil

cdef uint64_t pool_lessee(uint32_t row, uint32_t incarnation) noexcept nogil
# A free block of at least `bytes` bytes, claimed for core (lessee 0) or for `lessee`; NO_BLOCK (0xFFFFFFFF) if there is none.
cdef uint32_t pool_allocate(Pool *pool, uint64_t bytes, uint64_t lessee) noexcept nogil
cdef uint64_t pool_block_size(const Pool *pool, uint32_t block) noexcept nogil           # bytes; 0: no such block
cdef uint8_t *pool_block_data(const Pool *pool, uint32_t block) noexcept nogil           # NULL: no such block
cdef int pool_check(const Pool *pool, uint32_t block, uint64_t offset, uint64_t length) noexcept nogil  # POOL_OK or POOL_BAD_BLOCK; no overflow
# Lessee's side.
cdef int pool_lease(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil          # core holds it meanwhile
cdef int pool_drop_lease(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil
# Core's side.
cdef int pool_take_over(Pool *pool, uint32_t block, uint64_t lessee) noexcept nogil      # lessee's claim becomes core's
cdef int pool_drop_core(Pool *pool, uint32_t block) noexcept nogil
cdef uint32_t pool_sweep(Pool *pool, uint64_t lessee) noexcept nogil                     # clears a dead incarnation's claims; how many
# Books, by a scan: blocks that are claimed by core, and by lessees.
cdef void pool_count(const Pool *pool, uint32_t *core_held, uint32_t *leased) noexcept nogil
