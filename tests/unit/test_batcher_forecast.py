"""How long a stage will need for a task that comes now, by what its slots have needed so far."""

from __future__ import annotations

import pytest

from tests.drivers.batcher import Scheduler
from tests.unit.scheduling import MS, arrive, dispatch, finish, run, run_batch, scheduler, start


def test_without_a_measure_nothing_is_foretold() -> None:
    s = scheduler(slots=2)
    arrive(s, 100)
    assert s.forecast(0, 0) == 0


def test_the_first_batch_of_a_process_foretells_nothing() -> None:
    """It may have compiled and loaded what later ones find; only the second one tells."""
    s = scheduler(max_tasks=64)
    now = run(s, 5000 * MS, 0)
    arrive(s, 50, now)
    assert s.forecast(0, now) == 0
    batch = dispatch(s, now)
    start(s, batch)
    now += 10 * MS
    finish(s, batch, now)
    assert s.forecast(0, now) == (49 + 2) * 10 * MS
    s.slot_down(0)
    s.slot_up(0)
    assert s.forecast(0, now) == 0


def test_a_short_queue_counts_as_none() -> None:
    """As many as the slots take at once may wait whatever the measure says, so that it is put right."""
    s = scheduler(max_batch_size=4, slots=2, max_tasks=64)
    now = 0
    for _ in range(4):
        now = run_batch(s, 4, 1000 * MS, now)
    arrive(s, 8, now)
    assert s.forecast(0, now) == 0
    arrive(s, 1, now)
    assert s.forecast(0, now) > 0


def test_batches_before_it_and_its_own() -> None:
    s = scheduler(max_batch_size=4, max_tasks=256)
    now = run_batch(s, 4, 10 * MS, run_batch(s, 4, 10 * MS, 0))
    for waiting, batches in ((5, 2), (7, 2), (8, 3), (39, 10), (40, 11)):
        arrive(s, waiting - s.stage(0)["waiting"], now)
        # The one at work may only have begun.
        assert s.forecast(0, now) == (batches + 1) * 10 * MS


def test_slots_share_the_queue() -> None:
    s = scheduler(slots=2, max_tasks=256)
    now = run(s, 10 * MS, 0, times=4)
    s.slot_drain(0)
    arrive(s, 99, now)
    assert s.forecast(0, now) == (100 + 1) * 10 * MS  # alone
    s.slot_up(0)
    assert s.forecast(0, now) == (50 + 1) * 10 * MS  # not measured anew yet: like its neighbour


def test_a_slot_that_stands_still_is_noticed_before_it_answers() -> None:
    s = scheduler(max_tasks=64)
    now = run(s, 1 * MS, 0, times=20)
    arrive(s, 11, now)
    start(s, dispatch(s, now))
    assert s.forecast(0, now) == (11 + 1) * MS
    assert s.forecast(0, now + 1 * MS) == (11 + 1) * MS
    assert s.forecast(0, now + 500 * MS) == 11 * MS + 500 * MS  # that it may stand for as long again


def measured(s: Scheduler, slots: int, now: int) -> int:
    """Each slot has done two batches of 10 ms; the time after."""
    for _ in range(2):
        arrive(s, slots, now)
        batches = [dispatch(s, now) for _ in range(slots)]
        now += 10 * MS
        for batch in batches:
            start(s, batch)
            finish(s, batch, now)
    return now


@pytest.mark.parametrize("standing", [[900], [20_000, 5_000], [5_000, 20_000], [20_000, 2_000, 700]])
def test_who_stands_still_has_no_part_in_what_its_neighbours_do(standing: list[int]) -> None:
    slots = len(standing) + 1
    s = scheduler(slots=slots, max_tasks=256)
    begun = measured(s, slots, 0)
    now = begun + max(standing) * MS
    for ago in [*sorted(standing, reverse=True), 0]:
        arrive(s, 1, now - ago * MS)
        start(s, dispatch(s, now - ago * MS))
    arrive(s, 49, now)
    assert s.forecast(0, now) == (50 + 1) * 10 * MS


def test_who_stands_still_for_less_than_the_queue_will_take_has_its_part() -> None:
    s = scheduler(slots=2, max_tasks=256)
    now = measured(s, 2, 0)
    arrive(s, 1, now)
    start(s, dispatch(s, now))
    now += 900 * MS
    arrive(s, 1, now)
    start(s, dispatch(s, now))
    arrive(s, 199, now)
    assert s.forecast(0, now) == (200 * 10 + 10 + 900) * MS // 2


def test_without_a_slot_nothing_is_foretold() -> None:
    s = scheduler(max_tasks=64)
    now = run(s, 10 * MS, 0, times=2)
    arrive(s, 50, now)
    assert s.forecast(0, now) > 0
    s.slot_down(0)
    assert s.forecast(0, now) == 0


def test_large_numbers_do_not_overflow() -> None:
    s = scheduler(max_tasks=4096)
    now = run(s, 2**60, 0, times=2)
    arrive(s, 4000, now)
    assert s.forecast(0, now) == 2**53
