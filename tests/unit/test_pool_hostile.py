"""The pool against impossible blocks and ranges, and against memory that somebody has spoilt."""

import mmap
import os
import struct

import pytest
from mosec_cy._block_pool import BAD_BLOCK, NONE, NOT_HELD, OK, BlockPool

from tests.unit.test_pool import CORE, OTHER, PAGE, ROW, drain, make, memory_for, word_at


@pytest.mark.parametrize("block", [16 * 6, 48 + 8, 95, 2**31, 2**32 - 2, NONE])
def test_there_is_no_such_block(block: int) -> None:
    """Past the last class, in the gap after a short class, and far out."""
    pool = make()
    assert pool.block_size(block) == 0
    assert pool.offset(block) is None
    assert pool.check(block, 0, 0) == BAD_BLOCK
    assert pool.lease(block, ROW) == pool.drop_lease(block, ROW) == BAD_BLOCK
    assert pool.take_over(block, ROW) == pool.join(block, ROW) == pool.drop_core(block) == BAD_BLOCK


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 0, OK),
        (0, 1024, OK),
        (1024, 0, OK),
        (64, 960, OK),
        (64, 961, BAD_BLOCK),
        (1025, 0, BAD_BLOCK),
        (0, 1025, BAD_BLOCK),
        (2**64 - 1, 1, BAD_BLOCK),
        (1, 2**64 - 1, BAD_BLOCK),
        (2**64 - 1, 2**64 - 1, BAD_BLOCK),
        (2**63, 2**63, BAD_BLOCK),
        (2**63 + 64, 2**63, BAD_BLOCK),
    ],
)
def test_a_range_must_lie_in_its_block(offset: int, length: int, expected: int) -> None:
    assert make().check(0, offset, length) == expected


@pytest.mark.parametrize("spoilt", [1, ROW, OTHER, CORE, CORE | ROW, 2**64 - 1])
def test_a_spoilt_word_costs_its_block_and_nothing_else(spoilt: int) -> None:
    memory = memory_for(64 << 10, 16)
    pool = BlockPool(memory, 64 << 10, 16)
    held = pool.allocate(1)
    memory[word_at(held + 1)] = struct.pack("<Q", spoilt)
    blocks = drain(pool, 1)
    assert held + 1 not in blocks and len(blocks) == len(set(blocks)) == 16 * 3 + 8 + 4 + 2 - 2
    assert pool.drop_core(held) == OK


def test_a_word_that_was_wiped_is_not_held_any_more() -> None:
    memory = memory_for(64 << 10, 16)
    pool = BlockPool(memory, 64 << 10, 16)
    block = pool.allocate(1)
    memory[word_at(block)] = bytes(8)
    assert pool.drop_core(block) == NOT_HELD
    assert pool.lease(block, ROW) == NOT_HELD


def test_scans_leave_holes_of_the_memory_alone() -> None:
    budget, most = 1 << 30, 32768
    fd = os.memfd_create("pool", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, BlockPool.bytes_needed(budget, most))
        with mmap.mmap(fd, 0) as memory:
            pool = BlockPool(memory, budget, most, 7, 8)
            pool.allocate(1, ROW)
            assert pool.allocate(1 << 20, ROW) is not None
            before = os.fstat(fd).st_blocks
            assert before * 512 <= 4 * PAGE  # the maps and two pages of words: no payload has been written
            assert pool.count() == (0, 2) and pool.sweep(ROW) == 2
            assert os.fstat(fd).st_blocks == before
            del pool
    finally:
        os.close(fd)
