"""Deadlines in any order: the heap against a plain list."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.drivers.batcher import DeadlineHeap

IDS = 24
TIMES = st.one_of(st.integers(0, 5), st.integers(0, 2**63 - 1))


class HeapMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.heap = DeadlineHeap(IDS)
        self.model: dict[int, int] = {}

    @rule(id=st.integers(0, IDS - 1), at=TIMES)
    def add(self, id: int, at: int) -> None:
        if id in self.model:
            with pytest.raises(ValueError, match="in there already"):
                self.heap.add(id, at)
        else:
            self.heap.add(id, at)
            self.model[id] = at

    @rule(id=st.integers(0, IDS - 1))
    def remove(self, id: int) -> None:
        if id in self.model:
            self.heap.remove(id)
            del self.model[id]
        else:
            with pytest.raises(ValueError, match="not in there"):
                self.heap.remove(id)

    @precondition(lambda self: self.model)
    @rule()
    def take_first(self) -> None:
        at, id = self.heap.next()
        assert self.model.pop(id) == at
        self.heap.remove(id)

    @invariant()
    def first_is_least(self) -> None:
        assert len(self.heap) == len(self.model)
        if self.model:
            at, id = self.heap.next()
            assert at == min(self.model.values()) == self.model[id]
        else:
            assert self.heap.next() is None


TestHeap = HeapMachine.TestCase
TestHeap.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("order", ["rising", "falling", "random", "equal"])
def test_they_come_out_in_order(order: str) -> None:
    times = {
        "rising": list(range(2000)),
        "falling": list(range(2000, 0, -1)),
        "random": random.Random(1).choices(range(1000), k=2000),
        "equal": [7] * 2000,
    }[order]
    heap = DeadlineHeap(len(times))
    for id, at in enumerate(times):
        heap.add(id, at)
    gone = set(range(0, 2000, 3))
    for id in gone:
        heap.remove(id)
    came = []
    while (first := heap.next()) is not None:
        assert times[first[1]] == first[0]
        heap.remove(first[1])
        came.append(first[0])
    assert came == sorted(at for id, at in enumerate(times) if id not in gone)


def test_an_id_beyond_the_memory_is_refused() -> None:
    heap = DeadlineHeap(1)
    with pytest.raises(ValueError, match="not below 1"):
        heap.add(1, 0)
    assert len(heap) == 0
