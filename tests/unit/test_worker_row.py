"""How long a row waits before its next process, after what has failed in it."""

from __future__ import annotations

import pytest

from mosec_cy import Worker
from mosec_cy._config.plan import Stage
from mosec_cy._master import slot
from mosec_cy._master.slot import FIRST_DELAY, LONGEST_DELAY, MAX_FAILED_STARTS, State, WorkerSlot
from mosec_cy.runtime import Runtime


class Echo(Worker):
    def forward(self, data: object) -> object:
        return data


@pytest.fixture
def row() -> WorkerSlot:
    """The first row of a stage with one replica and a spare row."""
    return WorkerSlot(Stage(1, Runtime(Echo), 1, 0, spares=1), 1, True, True)


def die(row: WorkerSlot) -> float:
    """It gets ready, and ends at once; the delay then."""
    row.became_ready()
    row.ended()
    return row.delay()


def test_delays_double_up_to_the_longest(row: WorkerSlot) -> None:
    delays = [die(row) for _ in range(12)]
    assert delays[:5] == [FIRST_DELAY * 2**n for n in range(5)]
    assert delays[-3:] == [LONGEST_DELAY] * 3
    assert delays == sorted(delays)


def test_the_longest_delay_holds_for_ever(row: WorkerSlot) -> None:
    for _ in range(10_000):
        row.start_failed()
    assert row.delay() == LONGEST_DELAY


def test_who_has_served_long_enough_begins_anew(row: WorkerSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        die(row)
    monkeypatch.setattr(slot, "STABLE_AFTER", 0.0)
    assert die(row) == FIRST_DELAY


def test_a_start_that_takes_long_is_no_service(row: WorkerSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a process that did serve: what counts is how the last one ended."""
    monkeypatch.setattr(slot, "STABLE_AFTER", 0.0)
    die(row)
    for _ in range(3):
        row.state = State.STARTING
        row.ended()
    assert row.delay() == FIRST_DELAY * 8


def test_a_replica_that_moves_begins_anew(row: WorkerSlot) -> None:
    for _ in range(5):
        die(row)
    row.assign(None)
    row.assign(1)
    assert die(row) == FIRST_DELAY


def test_hopeless_is_who_never_got_ready(row: WorkerSlot) -> None:
    for _ in range(MAX_FAILED_STARTS):
        assert not row.hopeless
        row.start_failed()
    assert row.hopeless
    row.became_ready()
    for _ in range(MAX_FAILED_STARTS):
        row.start_failed()
    assert not row.hopeless
