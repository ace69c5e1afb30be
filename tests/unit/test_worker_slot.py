"""How long a slot waits before its next process, after what has failed in it."""

from __future__ import annotations

import pytest

from mosec_cy import Worker
from mosec_cy._config.plan import Stage
from mosec_cy._master import slot as slot_module
from mosec_cy._master.slot import FIRST_DELAY, LONGEST_DELAY, MAX_FAILED_STARTS, State, WorkerSlot
from mosec_cy.runtime import Runtime


class Echo(Worker):
    def forward(self, data: object) -> object:
        return data


@pytest.fixture
def slot() -> WorkerSlot:
    """The first slot of a stage with one replica and a spare slot."""
    return WorkerSlot(Stage(1, Runtime(Echo), 1, 0, spares=1), 1, True, True)


def die(slot: WorkerSlot) -> float:
    """It gets ready, and ends at once; the delay then."""
    slot.became_ready()
    slot.ended()
    return slot.delay()


def test_delays_double_up_to_the_longest(slot: WorkerSlot) -> None:
    delays = [die(slot) for _ in range(12)]
    assert delays[:5] == [FIRST_DELAY * 2**n for n in range(5)]
    assert delays[-3:] == [LONGEST_DELAY] * 3
    assert delays == sorted(delays)


def test_the_longest_delay_holds_for_ever(slot: WorkerSlot) -> None:
    for _ in range(10_000):
        slot.start_failed()
    assert slot.delay() == LONGEST_DELAY


def test_who_has_served_long_enough_begins_anew(slot: WorkerSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        die(slot)
    monkeypatch.setattr(slot_module, "STABLE_AFTER", 0.0)
    assert die(slot) == FIRST_DELAY


def test_a_start_that_takes_long_is_no_service(slot: WorkerSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a process that did serve: what counts is how the last one ended."""
    monkeypatch.setattr(slot_module, "STABLE_AFTER", 0.0)
    die(slot)
    for _ in range(3):
        slot.state = State.STARTING
        slot.ended()
    assert slot.delay() == FIRST_DELAY * 8


def test_a_replica_that_moves_begins_anew(slot: WorkerSlot) -> None:
    for _ in range(5):
        die(slot)
    slot.assign(None)
    slot.assign(1)
    assert die(slot) == FIRST_DELAY


def test_hopeless_is_who_never_got_ready(slot: WorkerSlot) -> None:
    for _ in range(MAX_FAILED_STARTS):
        assert not slot.hopeless
        slot.start_failed()
    assert slot.hopeless
    slot.became_ready()
    for _ in range(MAX_FAILED_STARTS):
        slot.start_failed()
    assert not slot.hopeless
