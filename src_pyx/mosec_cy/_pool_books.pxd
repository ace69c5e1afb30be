# The pool's books: scans of the claims of a whole pool.

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._pool cimport Pool

# Clears the claims of a dead incarnation; how many.
cdef uint32_t pool_sweep(Pool *pool, uint64_t lessee) noexcept nogil
# Blocks that are claimed by core, and by lessees (a block may be both).
cdef void pool_count(const Pool *pool, uint32_t *core_held, uint32_t *leased) noexcept nogil
