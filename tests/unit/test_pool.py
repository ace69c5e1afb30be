"""The pool: its geometry, claims and refusals, also over memory that others have written to."""

import itertools
import mmap
import os
import struct

import pytest

from tests.drivers.pool import BAD_BLOCK, LEASED, NONE, NOT_HELD, OK, BlockPool, lessee
from tests.unit.pools import CORE, OTHER, PAGE, SLOT, drain, make, memory_for, word_at


def test_geometry_of_a_budget() -> None:
    assert make(64 << 10, 16).classes() == [
        (1 << 10, 0, 16),
        (2 << 10, 16, 16),
        (4 << 10, 32, 16),
        (8 << 10, 48, 8),
        (16 << 10, 64, 4),
        (32 << 10, 80, 2),
    ]


@pytest.mark.parametrize("budget", [2 << 10, 3000, 100_000, 10**6 + 7])
@pytest.mark.parametrize("most", [1, 3, 100, 5000])
def test_classes_keep_to_the_budget_and_blocks_are_disjoint(budget: int, most: int) -> None:
    memory = memory_for(budget, most)
    pool = BlockPool(memory, budget, most)
    spans: list[tuple[int, int]] = []
    for size, first, count in pool.classes():
        assert 1 <= count <= most and count * size <= budget and size <= budget // 2
        starts = [pool.offset(block) for block in range(first, first + count)]
        assert all(start % min(size, PAGE) == 0 for start in starts)
        assert starts[0] % PAGE == 0  # no page belongs to two classes
        spans += [(start, start + size) for start in starts]
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert spans[-1][1] <= len(memory)


def test_a_service_with_much_memory_fits_its_address_space() -> None:
    assert BlockPool.bytes_needed(1 << 38, 32768) < 1 << 46


@pytest.mark.parametrize("budget", [-1, 0, 2047, 1 << 46, 1 << 63, 1 << 200])
def test_impossible_budgets_are_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="laid out"):
        BlockPool.bytes_needed(budget, 2**32 - 1)


def test_bad_memory_is_refused() -> None:
    memory = memory_for(4096, 4)
    with pytest.raises(ValueError, match="bytes"):
        BlockPool(memoryview(memory)[: len(memory) - 1], 4096, 4)
    with pytest.raises(ValueError, match="aligned"):
        BlockPool(memoryview(mmap.mmap(-1, len(memory) + PAGE))[64:], 4096, 4)
    with pytest.raises(BufferError):
        BlockPool(bytes(len(memory)), 4096, 4)


def test_a_block_fits_its_payload() -> None:
    pool = make()
    for size in (0, 1, 1024, 1025, 2048, 30_000, 32 << 10):
        block = pool.allocate(size)
        assert size <= pool.block_size(block) < max(2 * size, 1025)
    assert pool.allocate((32 << 10) + 1) is None
    assert pool.allocate(2**64 - 1) is None


@pytest.mark.parametrize("claimant", [0, SLOT])
def test_every_block_can_be_had_once_and_then_none(claimant: int) -> None:
    pool = make()
    blocks = drain(pool, 1, claimant)
    assert sorted(blocks) == [n for _, first, count in pool.classes() for n in range(first, first + count)]
    assert pool.count() == ((0, len(blocks)) if claimant else (len(blocks), 0))
    for block in blocks:
        assert (pool.drop_lease(block, claimant) if claimant else pool.drop_core(block)) == OK
    assert pool.count() == (0, 0)
    assert sorted(drain(pool, 1, claimant)) == sorted(blocks)


def test_an_exhausted_class_borrows_from_the_next_larger_one() -> None:
    pool = make()
    for _ in range(16):
        assert pool.block_size(pool.allocate(1)) == 1 << 10
    assert pool.block_size(pool.allocate(1)) == 2 << 10


@pytest.mark.parametrize("slots", [1, 3, 40])
def test_slots_start_apart_and_each_can_use_all(slots: int) -> None:
    budget, most = 256 << 10, 64
    memory = memory_for(budget, most)
    pools = [BlockPool(memory, budget, most, process, slots + 1) for process in range(slots + 1)]
    first = [pool.allocate(1, lessee(process, 1)) for process, pool in enumerate(pools)]
    assert len(set(first)) == slots + 1 and max(first) < 64
    last = pools[-1]
    rest = drain(last, 1, SLOT)
    assert len(rest) + slots + 1 == sum(count for _, _, count in last.classes())


def test_core_gets_back_what_it_freed_last() -> None:
    pool = make()
    a, b, c = (pool.allocate(1) for _ in range(3))
    for block in (b, a, c):
        pool.drop_core(block)
    assert [pool.allocate(1) for _ in range(3)] == [c, a, b]


def test_an_answer_that_went_out_leaves_its_warm_block_to_its_slot() -> None:
    memory = memory_for(4 << 20, 64)
    core, slot = BlockPool(memory, 4 << 20, 64, 0, 2), BlockPool(memory, 4 << 20, 64, 1, 2)
    block = slot.allocate(64 << 10, SLOT)
    assert core.take_over(block, SLOT) == OK and core.drop_core(block) == OK
    assert core.allocate(64 << 10) != block
    assert slot.allocate(64 << 10, SLOT) == block


def test_a_stale_entry_of_the_stack_is_passed_over() -> None:
    memory = memory_for(4096, 4)
    core, slot = BlockPool(memory, 4096, 4, 0, 2), BlockPool(memory, 4096, 4, 1, 2)
    a, b = core.allocate(1), core.allocate(1)
    core.drop_core(a)
    core.drop_core(b)
    taken = set(drain(slot, 1, SLOT))
    assert {a, b} < taken
    assert core.allocate(1) is None
    assert slot.drop_lease(a, SLOT) == OK
    assert core.allocate(1) == a  # by a scan: the stack is used up


@pytest.mark.parametrize("size", [64 << 10, 256 << 10])
def test_large_blocks_are_reused_while_they_are_warm(size: int) -> None:
    pool = BlockPool(memory_for(4 << 20, 64), 4 << 20, 64, 1, 2)
    used = set()
    for _ in range(100):
        block = pool.allocate(size, SLOT)
        used.add(block)
        pool.drop_lease(block, SLOT)
    assert len(used) == 1


@pytest.mark.parametrize(("size", "expected"), [(1 << 10, 32), (4 << 10, 16), (32 << 10, 2)])
def test_small_blocks_are_gone_through_up_to_one_large_block(size: int, expected: int) -> None:
    pool = BlockPool(memory_for(8 << 20, 128), 8 << 20, 128, 1, 2)
    used = set()
    for _ in range(200):
        block = pool.allocate(size, SLOT)
        used.add(block)
        pool.drop_lease(block, SLOT)
    assert len(used) == expected


def test_the_life_of_a_request_body_that_user_code_keeps() -> None:
    pool = make(2048, 2)
    (block, _) = drain(pool, 1)
    assert pool.lease(block, SLOT) == OK
    assert pool.count() == (2, 1)
    assert pool.drop_core(block) == OK  # answered; an array still looks into it
    assert pool.allocate(1) is None
    assert pool.drop_lease(block, SLOT) == OK
    assert pool.allocate(1) == block


def test_the_life_of_an_answer() -> None:
    pool = make()
    block = pool.allocate(1, SLOT)
    assert pool.take_over(block, SLOT) == OK
    assert pool.count() == (1, 0)
    assert pool.drop_lease(block, SLOT) == NOT_HELD
    assert pool.drop_core(block) == OK
    assert pool.count() == (0, 0)


def test_a_lease_needs_a_block_that_is_cores_alone() -> None:
    pool = make()
    block = pool.allocate(1)
    assert pool.lease(block, SLOT) == OK
    assert pool.lease(block, OTHER) == LEASED
    assert pool.lease(block, SLOT) == LEASED
    pool.drop_core(block)
    assert pool.lease(block, OTHER) == NOT_HELD
    pool.drop_lease(block, SLOT)
    assert pool.lease(block, SLOT) == NOT_HELD
    assert pool.lease(pool.allocate(1, OTHER), SLOT) == NOT_HELD


def test_nobody_drops_or_hands_over_what_another_holds() -> None:
    pool = make()
    block = pool.allocate(1, SLOT)
    for stranger in (OTHER, lessee(0, 2), 0, CORE):
        assert pool.drop_lease(block, stranger) == NOT_HELD
        assert pool.take_over(block, stranger) == NOT_HELD
    assert pool.drop_core(block) == NOT_HELD
    assert pool.count() == (0, 1)


def test_an_answer_cannot_alias_a_block_that_core_holds() -> None:
    pool = make()
    block = pool.allocate(1)
    pool.lease(block, SLOT)
    assert pool.take_over(block, SLOT) == NOT_HELD


def test_double_drops_change_nothing() -> None:
    pool = make()
    block = pool.allocate(1)
    assert pool.drop_core(block) == OK
    assert pool.drop_core(block) == NOT_HELD
    assert pool.allocate(1) == block
    assert pool.allocate(1) != block


def test_a_sweep_takes_one_incarnation_and_leaves_the_rest() -> None:
    pool = make()
    own, others, newer = pool.allocate(1, SLOT), pool.allocate(1, OTHER), pool.allocate(5000, lessee(0, 2))
    lent, kept = pool.allocate(1), pool.allocate(1)
    pool.lease(lent, SLOT)
    assert pool.sweep(SLOT) == 2
    assert pool.sweep(SLOT) == 0
    assert pool.sweep(0) == 0
    assert pool.drop_lease(own, SLOT) == pool.drop_lease(lent, SLOT) == NOT_HELD
    assert [pool.drop_core(lent), pool.drop_core(kept)] == [OK, OK]
    assert [pool.drop_lease(others, OTHER), pool.drop_lease(newer, lessee(0, 2))] == [OK, OK]
    assert pool.count() == (0, 0)


def test_a_sweep_finds_claims_in_every_chunk_of_a_large_class() -> None:
    budget, most = 64 << 20, 65536  # 64 chunks of 1024 words
    pool = BlockPool(memory_for(budget, most), budget, most, 1, 2)
    blocks = [pool.allocate(1, SLOT) for _ in range(most)]
    assert len(set(blocks)) == most
    assert pool.count() == (0, most) and pool.sweep(SLOT) == most and pool.count() == (0, 0)


def test_lessees_are_never_mistaken_for_free_or_core() -> None:
    names = [lessee(slot, incarnation) for slot in (0, 1, 2**31 - 2) for incarnation in (0, 1, 2**32 - 1)]
    assert len(set(names)) == len(names) and all(0 < name < CORE for name in names)


@pytest.mark.parametrize("block", [16 * 6, 48 + 8, 95, 2**31, 2**32 - 2, NONE])
def test_there_is_no_such_block(block: int) -> None:
    """Past the last class, in the gap after a short class, and far out."""
    pool = make()
    assert pool.block_size(block) == 0
    assert pool.offset(block) is None
    assert pool.check(block, 0, 0) == BAD_BLOCK
    assert pool.lease(block, SLOT) == pool.drop_lease(block, SLOT) == BAD_BLOCK
    assert pool.take_over(block, SLOT) == pool.drop_core(block) == BAD_BLOCK


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


# ---- memory that others have written to, or that nobody has touched ------------------------------


@pytest.mark.parametrize("corrupt", [1, SLOT, OTHER, CORE, CORE | SLOT, 2**64 - 1])
def test_a_corrupt_word_costs_its_block_and_nothing_else(corrupt: int) -> None:
    memory = memory_for(64 << 10, 16)
    pool = BlockPool(memory, 64 << 10, 16)
    held = pool.allocate(1)
    memory[word_at(held + 1)] = struct.pack("<Q", corrupt)
    blocks = drain(pool, 1)
    assert held + 1 not in blocks and len(blocks) == len(set(blocks)) == 16 * 3 + 8 + 4 + 2 - 2
    assert pool.drop_core(held) == OK


def test_a_word_that_was_wiped_is_not_held_any_more() -> None:
    memory = memory_for(64 << 10, 16)
    pool = BlockPool(memory, 64 << 10, 16)
    block = pool.allocate(1)
    memory[word_at(block)] = bytes(8)
    assert pool.drop_core(block) == NOT_HELD
    assert pool.lease(block, SLOT) == NOT_HELD


def test_scans_leave_holes_of_the_memory_alone() -> None:
    budget, most = 1 << 30, 32768
    fd = os.memfd_create("pool", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, BlockPool.bytes_needed(budget, most))
        with mmap.mmap(fd, 0) as memory:
            pool = BlockPool(memory, budget, most, 7, 8)
            pool.allocate(1, SLOT)
            assert pool.allocate(1 << 20, SLOT) is not None
            before = os.fstat(fd).st_blocks
            assert before * 512 <= 4 * PAGE  # the maps and two pages of words: no payload has been written
            assert pool.count() == (0, 2) and pool.sweep(SLOT) == 2
            assert os.fstat(fd).st_blocks == before
            del pool
    finally:
        os.close(fd)
