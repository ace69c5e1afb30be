"""The pool as Python objects, for tests and benchmarks: no socket and no clock."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from mosec_cy._engine.pool cimport (
    POOL_BAD_BLOCK,
    POOL_LEASED,
    POOL_MIN_SHIFT,
    POOL_NOT_HELD,
    POOL_OK,
    Pool,
    pool_allocate,
    pool_attach,
    pool_block_data,
    pool_block_size,
    pool_check,
    pool_count,
    pool_data_bytes,
    pool_detach,
    pool_drop_core,
    pool_drop_lease,
    pool_layout,
    pool_lease,
    pool_lessee,
    pool_sweep,
    pool_take_over,
    pool_words_bytes,
)
from mosec_cy._engine.ring cimport NO_BLOCK

cdef enum:
    PAGE = 4096


OK, BAD_BLOCK, NOT_HELD, LEASED = POOL_OK, POOL_BAD_BLOCK, POOL_NOT_HELD, POOL_LEASED
NONE = <uint32_t>NO_BLOCK


def lessee(uint32_t slot, uint32_t incarnation):
    """The name under which an incarnation of a slot claims blocks."""
    return pool_lessee(slot, incarnation)


cdef class BlockPool:
    """One process's view of a pool in a writable, zeroed, page-aligned buffer: words, then data.

    `budget` is in bytes; `process` is 0 for core, 1 + slot for a slot; `processes` counts core and all slots.
    Raises ValueError for a budget below 2 KiB or past the address space, and for a buffer that is too small
    or not page-aligned. Lessees are the ints that `lessee` makes; methods that change a claim return a code:
    OK, BAD_BLOCK, NOT_HELD or LEASED.
    """

    cdef Pool pool
    cdef Py_buffer buffer

    def __cinit__(self, memory, budget, uint32_t max_blocks_per_class, uint32_t process=0, uint32_t processes=1):
        lay_out(&self.pool, budget, max_blocks_per_class)
        PyObject_GetBuffer(memory, &self.buffer, PyBUF_WRITABLE)
        cdef size_t words = pool_words_bytes(&self.pool)
        if <uint64_t>self.buffer.len < words + pool_data_bytes(&self.pool) or <size_t>self.buffer.buf % PAGE:
            raise ValueError(f"a pool needs {words + pool_data_bytes(&self.pool)} bytes, page-aligned")
        pool_attach(&self.pool, self.buffer.buf, <char *>self.buffer.buf + words, process, processes)

    def __dealloc__(self):
        pool_detach(&self.pool)
        PyBuffer_Release(&self.buffer)

    @staticmethod
    def bytes_needed(budget, uint32_t max_blocks_per_class):
        """Bytes of address space that such a pool spans."""
        cdef Pool pool
        lay_out(&pool, budget, max_blocks_per_class)
        return pool_words_bytes(&pool) + pool_data_bytes(&pool)

    def classes(self):
        """(bytes of a block, number of the first block, number of blocks) for each class."""
        return [
            (1 << (POOL_MIN_SHIFT + i), self.pool.sizes[i].first, self.pool.sizes[i].count)
            for i in range(<int>self.pool.classes)
        ]

    def allocate(self, uint64_t size, uint64_t lessee=0):
        """A block of at least `size` bytes, claimed for core (0) or a lessee; None if there is none."""
        cdef uint32_t block = pool_allocate(&self.pool, size, lessee)
        return None if block == NO_BLOCK else block

    def block_size(self, uint32_t block):
        """Bytes; 0 for no such block."""
        return pool_block_size(&self.pool, block)

    def offset(self, uint32_t block):
        """Bytes from the buffer's start to the block; None for no such block."""
        cdef uint8_t *data = pool_block_data(&self.pool, block)
        return None if data == NULL else data - <uint8_t *>self.buffer.buf

    def check(self, uint32_t block, uint64_t offset, uint64_t length):
        """OK if the range lies in the block, else BAD_BLOCK."""
        return pool_check(&self.pool, block, offset, length)

    def lease(self, uint32_t block, uint64_t lessee):
        """Claim a block that core holds for a lessee as well."""
        return pool_lease(&self.pool, block, lessee)

    def drop_lease(self, uint32_t block, uint64_t lessee):
        """Drop the lessee's claim."""
        return pool_drop_lease(&self.pool, block, lessee)

    def take_over(self, uint32_t block, uint64_t lessee):
        """Move the claim of a block that is the lessee's alone to core."""
        return pool_take_over(&self.pool, block, lessee)

    def drop_core(self, uint32_t block):
        """Drop core's claim."""
        return pool_drop_core(&self.pool, block)

    def sweep(self, uint64_t lessee):
        """Drop all claims of a dead lessee; return how many."""
        return pool_sweep(&self.pool, lessee)

    def count(self):
        """(blocks claimed by core, blocks claimed by lessees)."""
        cdef uint32_t core_held = 0, leased = 0
        pool_count(&self.pool, &core_held, &leased)
        return core_held, leased


cdef int lay_out(Pool *pool, object budget, uint32_t max_blocks_per_class) except -1:
    if not 0 <= budget < 1 << 63 or pool_layout(pool, budget, max_blocks_per_class) != POOL_OK:
        raise ValueError(f"no pool can be laid out in a budget of {budget} bytes")
    return 0
