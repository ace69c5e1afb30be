"""The pool against a model of who claims what: no block with two holders, none lost, every refusal right."""

import mmap

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.drivers.pool import BAD_BLOCK, LEASED, NONE, NOT_HELD, OK, BlockPool, lessee
from tests.fuzz.examples import examples

BUDGET, MOST = 8 << 10, 5  # 5 blocks of 1 KiB, 4 of 2 KiB, 2 of 4 KiB
SLOTS = 2
BLOCKS = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 8: 2, 9: 2, 10: 2, 11: 2, 16: 4, 17: 4}  # number: KiB

blocks = st.sampled_from([*BLOCKS, *BLOCKS, 5, 7, 12, 18, 24, 2**31, NONE])
slots = st.integers(0, SLOTS - 1)


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        memory = mmap.mmap(-1, BlockPool.bytes_needed(BUDGET, MOST))
        self.core = BlockPool(memory, BUDGET, MOST, 0, SLOTS + 1)
        self.slots = [BlockPool(memory, BUDGET, MOST, 1 + slot, SLOTS + 1) for slot in range(SLOTS)]
        self.names = [lessee(slot, 1) for slot in range(SLOTS)]
        self.incarnations = 1
        self.held: set[int] = set()  # by core
        self.leased: dict[int, int] = {}  # block: lessee

    def claimed(self, block: int) -> bool:
        return block in self.held or block in self.leased

    def check_allocation(self, block: int | None, kib: int) -> None:
        suitable = [b for b, size in BLOCKS.items() if size >= kib]
        free = [b for b in suitable if not self.claimed(b)]
        if block is None:
            assert not free
        else:
            assert block in free
            assert BLOCKS[block] == min(BLOCKS[b] for b in free)

    @rule(kib=st.integers(0, 5))
    def core_allocates(self, kib: int) -> None:
        block = self.core.allocate(kib << 10)
        self.check_allocation(block, kib)
        if block is not None:
            self.held.add(block)

    @rule(slot=slots, kib=st.integers(0, 5))
    def slot_allocates(self, slot: int, kib: int) -> None:
        block = self.slots[slot].allocate(kib << 10, self.names[slot])
        self.check_allocation(block, kib)
        if block is not None:
            self.leased[block] = self.names[slot]

    @rule(slot=slots, block=blocks)
    def slot_leases(self, slot: int, block: int) -> None:
        code = self.slots[slot].lease(block, self.names[slot])
        if block not in BLOCKS:
            assert code == BAD_BLOCK
        elif block not in self.held:
            assert code == NOT_HELD
        elif block in self.leased:
            assert code == LEASED
        else:
            assert code == OK
            self.leased[block] = self.names[slot]

    @rule(slot=slots, block=blocks)
    def slot_drops(self, slot: int, block: int) -> None:
        code = self.slots[slot].drop_lease(block, self.names[slot])
        if block not in BLOCKS:
            assert code == BAD_BLOCK
        elif self.leased.get(block) == self.names[slot]:
            assert code == OK
            del self.leased[block]
        else:
            assert code == NOT_HELD

    @rule(slot=slots, block=blocks)
    def core_receives(self, slot: int, block: int) -> None:
        code = self.core.take_over(block, self.names[slot])
        if block not in BLOCKS:
            assert code == BAD_BLOCK
        elif self.leased.get(block) == self.names[slot] and block not in self.held:
            assert code == OK
            self.held.add(block)
            del self.leased[block]
        else:
            assert code == NOT_HELD

    @rule(block=blocks)
    def core_drops(self, block: int) -> None:
        code = self.core.drop_core(block)
        if block not in BLOCKS:
            assert code == BAD_BLOCK
        elif block in self.held:
            assert code == OK
            self.held.remove(block)
        else:
            assert code == NOT_HELD

    @precondition(lambda self: len(self.leased) > 1)
    @rule(slot=slots)
    def slot_dies(self, slot: int) -> None:
        claims = [block for block, name in self.leased.items() if name == self.names[slot]]
        assert self.core.sweep(self.names[slot]) == len(claims)
        for block in claims:
            del self.leased[block]
        self.incarnations += 1
        self.names[slot] = lessee(slot, self.incarnations)

    @invariant()
    def accounting_balances(self) -> None:
        assert self.core.count() == (len(self.held), len(self.leased))


PoolMachine.TestCase.settings = settings(max_examples=examples(200), stateful_step_count=60, deadline=None)
TestPool = PoolMachine.TestCase


def test_the_model_has_the_geometry_of_the_pool() -> None:
    classes = BlockPool(mmap.mmap(-1, BlockPool.bytes_needed(BUDGET, MOST)), BUDGET, MOST).classes()
    assert {n: size >> 10 for size, first, count in classes for n in range(first, first + count)} == BLOCKS
