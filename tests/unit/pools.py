"""What the tests of the pool share."""

import mmap

from tests.drivers.pool import BlockPool, lessee

PAGE = 4096
CORE = 1 << 63
SLOT = lessee(0, 1)
OTHER = lessee(1, 1)


def memory_for(budget: int, most: int) -> mmap.mmap:
    return mmap.mmap(-1, BlockPool.bytes_needed(budget, most))


def make(budget: int = 64 << 10, most: int = 16) -> BlockPool:
    return BlockPool(memory_for(budget, most), budget, most)


def word_at(block: int) -> slice:
    return slice(PAGE + 8 * block, PAGE + 8 * block + 8)


def drain(pool: BlockPool, size: int, claimant: int = 0) -> list[int]:
    return list(iter(lambda: pool.allocate(size, claimant), None))
