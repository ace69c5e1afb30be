"""Processes that share a pool: contention, and death by SIGKILL at any instruction."""

import mmap
import os
import random
import struct
from functools import partial

import pytest

from tests.drivers.pool import NOT_HELD, OK, BlockPool, lessee
from tests.stress.forked import Processes

BUDGET, MOST, SLOTS = 64 << 10, 16, 2
PAGE = 4096


class Arena:
    """A shared mapping: a page of progress counters, one a process, then the pool."""

    def __init__(self) -> None:
        self.size = BlockPool.bytes_needed(BUDGET, MOST)
        self.memory = mmap.mmap(-1, PAGE + self.size)

    def pool(self, process: int) -> BlockPool:
        return BlockPool(memoryview(self.memory)[PAGE:], BUDGET, MOST, process, SLOTS + 1)

    def progress(self, process: int) -> int:
        return struct.unpack_from("<Q", self.memory, 64 * process)[0]

    def advance(self, process: int, to: int) -> None:
        struct.pack_into("<Q", self.memory, 64 * process, to)

    def stamp(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.memory, PAGE + offset, value)

    def stamped(self, offset: int) -> int:
        return struct.unpack_from("<Q", self.memory, PAGE + offset)[0]


def churn(arena: Arena, process: int, name: int, lent: list[int], turns: int) -> None:
    """Allocate, lease, look and drop in random order; whatever is held carries the holder's stamp all along."""
    pool, choose = arena.pool(process), random.Random(name)
    own: list[int] = []
    leased: list[int] = []
    for turn in range(turns):
        if own and (len(own) > 6 or choose.random() < 0.5):
            block = own.pop(choose.randrange(len(own)))
            assert arena.stamped(pool.offset(block)) == name
            assert pool.drop_lease(block, name) == OK
        elif (block := pool.allocate(choose.choice((1, 3000, 9000, 20000)), name)) is not None:
            arena.stamp(pool.offset(block), name)
            own.append(block)
        if leased and choose.random() < 0.5:
            assert pool.drop_lease(leased.pop(), name) == OK
        elif lent and pool.lease(block := choose.choice(lent), name) == OK:
            leased.append(block)
        arena.advance(process, turn + 1)
    for block in own + leased:
        assert pool.drop_lease(block, name) == OK


def free_blocks(pool: BlockPool) -> list[int]:
    """All blocks that can be had, had once and given back."""
    blocks = list(iter(lambda: pool.allocate(1), None))
    for block in blocks:
        assert pool.drop_core(block) == OK
    return blocks


@pytest.mark.timeout(120)
def test_no_block_has_two_holders_under_contention(processes: Processes) -> None:
    arena = Arena()
    core = arena.pool(0)
    total = len(free_blocks(core))
    lent = [core.allocate(1) for _ in range(4)]
    slots = [
        processes.start(partial(churn, arena, process, lessee(process - 1, 1), lent, 300_000))
        for process in range(1, SLOTS + 1)
    ]
    for pid in slots:
        processes.finish(pid)
    assert core.count() == (len(lent), 0)
    assert len(free_blocks(core)) == total - len(lent)


@pytest.mark.timeout(120)
def test_accounting_balances_after_kills_at_random_moments(processes: Processes) -> None:
    arena, choose = Arena(), random.Random(20)
    core = arena.pool(0)
    total = len(free_blocks(core))
    lent = [core.allocate(1) for _ in range(4)]
    swept = 0
    for incarnation in range(1, 61):
        name = lessee(0, incarnation)
        arena.advance(1, 0)
        pid = processes.start(partial(churn, arena, 1, name, lent, 1 << 40))
        target = choose.randrange(1, 2000)
        while arena.progress(1) < target and processes.alive(pid):
            os.sched_yield()
        processes.kill(pid)
        claims = core.count()[1]
        assert core.sweep(name) == claims
        swept += claims
        assert core.count() == (len(lent), 0)
        assert len(free_blocks(core)) == total - len(lent)
    assert swept > 60  # they did die with claims
    for block in lent:
        assert core.drop_core(block) == OK
    assert core.drop_core(lent[0]) == NOT_HELD
    assert len(free_blocks(core)) == total


@pytest.mark.timeout(120)
def test_one_slot_dies_while_another_goes_on(processes: Processes) -> None:
    arena, choose = Arena(), random.Random(21)
    core = arena.pool(0)
    total = len(free_blocks(core))
    survivor = processes.start(partial(churn, arena, 2, lessee(1, 1), [], 100_000))
    for incarnation in range(1, 31):
        name = lessee(0, incarnation)
        arena.advance(1, 0)
        pid = processes.start(partial(churn, arena, 1, name, [], 1 << 40))
        target = choose.randrange(1, 1000)
        while arena.progress(1) < target and processes.alive(pid):
            os.sched_yield()
        processes.kill(pid)
        core.sweep(name)
        assert core.sweep(name) == 0
    processes.finish(survivor)
    assert core.count() == (0, 0)
    assert len(free_blocks(core)) == total
