"""The pool over memory that others have written to, or that nobody has touched."""

import mmap
import os
import struct

import pytest

from tests.drivers.pool import NOT_HELD, OK, BlockPool
from tests.unit.pools import CORE, OTHER, PAGE, ROW, drain, memory_for, word_at


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
