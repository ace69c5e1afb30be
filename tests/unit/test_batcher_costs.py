"""Batches by cost: which tasks go together, and how much of them. Times are given by hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.batcher import Scheduler
from tests.simulator import Load, Profile, simulate
from tests.unit.scheduling import MS, Batch, dispatch, entries_of, finish, start

COST, FULL = 1, 0


def costed(max_batch_size: int = 32, **options: object) -> Scheduler:
    made = Scheduler([(max_batch_size, 0, 1)], costed=True, **options)
    made.slot_up(0)
    return made


def arrive(s: Scheduler, *costs: int, now: int = 0) -> list[int]:
    entries = []
    for cost in costs:
        entry = s.new()
        assert entry is not None
        s.enqueue(entry, 0, now, cost)
        entries.append(entry)
    return entries


def costs_of(s: Scheduler, batch: Batch) -> list[int]:
    return [s.task(entry)["cost"] for entry in entries_of(batch)]


def served(s: Scheduler, now: int = 0) -> list[list[int]]:
    """The costs of all batches, one after the other."""
    batches = []
    while s.queue(0):
        now = max(now, s.deadline(now) or now)
        batch = dispatch(s, now)
        batches.append(costs_of(s, batch))
        start(s, batch)
        now += MS
        finish(s, batch, now)
        s.set_room(0, 64)
    return batches


def test_the_sum_is_bounded() -> None:
    s = costed(max_batch_cost=100)
    arrive(s, 30, 30, 30, 30, 30)
    assert served(s) == [[30, 30, 30], [30, 30]]


def test_what_costs_more_than_the_bound_goes_alone() -> None:
    s = costed(max_batch_cost=100)
    arrive(s, 500, 10, 10, 101)
    assert served(s) == [[500], [10, 10], [101]]


def test_padded_batches_cost_their_number_times_the_largest() -> None:
    s = costed(max_batch_cost=100, padded=True)
    arrive(s, 20, 20, 20, 20, 20, 20)
    assert served(s) == [[20, 20, 20, 20, 20], [20]]


def test_nothing_waits_once_the_bound_is_reached() -> None:
    s = Scheduler([(32, 1000 * MS, 1)], costed=True, max_batch_cost=100)
    s.slot_up(0)
    arrive(s, 50)
    assert s.next_batch(0, 0) is None
    arrive(s, 60)
    assert costs_of(s, dispatch(s, 0)) == [50]
    assert s.stage(0)["closed_by"] == COST


def test_the_oldest_goes_first_and_the_like_go_with_it() -> None:
    s = costed(max_batch_size=3)
    arrive(s, 100, 5, 90, 6, 110, 5)
    assert served(s) == [[100, 110, 90], [5, 5, 6]]


def test_the_like_are_of_any_age_but_in_order() -> None:
    s = costed(max_batch_size=2)
    first, *_, last = arrive(s, 16, 64, 16, 64, 16)
    assert entries_of(dispatch(s, 0))[0] == first
    s = costed(max_batch_size=3)
    entries = arrive(s, 16, 17, 16, 18)
    assert entries_of(dispatch(s, 0)) == entries[:3]
    assert last is not None


def test_where_inputs_are_padded_unlike_ones_do_not_mix_for_nothing() -> None:
    """Nothing is known of the time yet, so no batch is saved that would be worth the padding."""
    s = costed(padded=True)
    arrive(s, 100, 4, 4, 100)
    assert served(s) == [[100, 100], [4, 4]]


def test_a_cost_of_0_is_1_and_the_largest_has_a_place() -> None:
    s = costed()
    arrive(s, 0, 2**32 - 1)
    assert sorted(served(s)[0]) == [1, 2**32 - 1]


def test_a_task_that_runs_again_goes_alone() -> None:
    s = Scheduler([(4, 0, 1)], costed=True, retry=1)
    s.slot_up(0)
    arrive(s, 10)
    start(s, dispatch(s, 0))
    arrive(s, 10, 10)
    [entry] = s.slot_down(0)
    assert s.retry(entry)
    s.slot_up(0)
    assert served(s) == [[10], [10, 10]]


def test_withdrawn_tasks_leave_their_class() -> None:
    s = costed()
    first, second, third = arrive(s, 10, 10, 1000)
    assert s.withdraw(first)
    assert s.withdraw(third)
    assert s.stage(0)["waiting_cost"] == 10
    assert entries_of(dispatch(s, 0)) == [second]
    assert s.stage(0)["used_classes"] == s.stage(0)["waiting_cost"] == 0


def test_reclaimed_tasks_find_their_place_in_their_class() -> None:
    s = Scheduler([(2, 0, 2)], costed=True)
    s.slot_up(0)
    entries = arrive(s, 10, 10)
    dispatch(s, 0)
    arrive(s, 10)
    s.slot_up(1)
    assert s.reclaim(2 * MS) == 2
    assert entries_of(dispatch(s, 2 * MS)) == entries


@settings(max_examples=100, deadline=None)
@given(
    costs=st.lists(st.integers(0, 2**32 - 1) | st.integers(1, 200), min_size=1, max_size=40),
    bound=st.integers(1, 2**34) | st.integers(1, 1000),
    size=st.integers(1, 9),
    padded=st.booleans(),
    automatic=st.booleans(),
)
def test_each_goes_once_within_the_bounds_and_the_oldest_never_waits(
    costs: list[int], bound: int, size: int, padded: bool, automatic: bool
) -> None:
    s = costed(size, max_batch_cost=bound, padded=padded, automatic=automatic)
    entries = arrive(s, *costs)
    now = 0
    seen: list[int] = []
    while queue := s.queue(0):
        batch = s.next_batch(0, now)
        if batch is None:
            now = s.deadline(now)
            continue
        seen += entries_of(batch)
        assert queue[0] in entries_of(batch)
        of = costs_of(s, batch)
        assert len(of) <= size
        assert len(of) == 1 or (len(of) * max(of) if padded else sum(of)) <= bound
        start(s, batch)
        now += MS
        finish(s, batch, now)
        s.set_room(0, 64)
    assert sorted(seen) == sorted(entries)
    assert s.stage(0)["waiting_cost"] == s.stage(0)["used_classes"] == 0


def test_padding_is_learnt_and_avoided() -> None:
    """Of a model that pads, texts of very different lengths: twice what batches in order of arrival serve."""
    model = Profile(12.8, 0.193, padded=True, median=24, sigma=0.8)
    load = Load(clients=64, until=60_000)
    assert simulate(model, load, costed=True).throughput > 1.8 * simulate(model, load).throughput
