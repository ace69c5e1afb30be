"""Automatic batching: what the former learns and decides, over the engine's own batcher with made-up times."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.batcher import Scheduler
from tests.simulator import Load, Outcome, Profile, simulate
from tests.unit.scheduling import DISPATCHED, MS, QUEUED, US, Batch, arrive, dispatch, entries_of, finish, start

FULL, COST, TARGET, NO_GAIN, WAIT = range(5)
GPU = Profile(5, 0.1)
FLAT = Profile(2, 0)
CPU = Profile(0.2, 2)


def automatic(max_batch_size: int = 32, max_wait_ns: int | None = None, slots: int = 1) -> Scheduler:
    made = Scheduler([(max_batch_size, max_wait_ns, slots)], automatic=True)
    for slot in range(slots):
        made.slot_up(slot)
    return made


def late(outcome: Outcome) -> list[int]:
    """Sizes of the batches of the second half."""
    return outcome.batches[len(outcome.batches) // 2 :]


def next_batch(s: Scheduler, now: int) -> tuple[int, Batch]:
    """The next batch, and when it goes if nothing else happens."""
    while (batch := s.next_batch(0, now)) is None:
        deadline = s.deadline(now)
        assert deadline is not None
        assert deadline > now
        now = deadline
    return now, batch


def rounds(s: Scheduler, clients: int, took: int, count: int, now: int = 0) -> int:
    """Closed loops by hand: all clients ask, one batch answers them `took` later, and they ask again 20 µs apart."""
    for _ in range(count):
        waiting = 0
        for _ in range(clients):
            arrive(s, 1, now)
            now += 20 * US
        while waiting < clients:
            now, batch = next_batch(s, now)
            start(s, batch)
            waiting += len(batch[1])
            now += took
            finish(s, batch, now)
            s.set_room(batch[0], 64)
    return now


def test_what_nothing_is_known_of_goes_at_once() -> None:
    s = automatic()
    arrive(s, 3)
    assert len(dispatch(s, 0)[1]) == 3
    assert s.stage(0)["closed_by"] == NO_GAIN


def test_a_full_batch_goes_at_once() -> None:
    s = automatic(max_batch_size=4)
    arrive(s, 6)
    assert len(dispatch(s, 0)[1]) == 4
    assert s.stage(0)["closed_by"] == FULL


def test_clients_that_were_answered_are_waited_for() -> None:
    s = automatic()
    now = rounds(s, clients=8, took=2 * MS, count=30)
    arrive(s, 1, now + 20 * US)  # the first of eight that come back
    assert s.next_batch(0, now + 20 * US) is None
    assert s.deadline(now + 20 * US) > now + 40 * US  # so long that the next one makes it
    arrive(s, 6, now + 40 * US)
    assert s.next_batch(0, now + 40 * US) is None
    arrive(s, 1, now + 60 * US)  # nobody else is expected
    assert len(dispatch(s, now + 60 * US)[1]) == 8


def test_who_does_not_come_back_is_not_waited_for_long() -> None:
    s = automatic()
    now = rounds(s, clients=8, took=2 * MS, count=30)
    [entry] = arrive(s, 1, now + 20 * US)
    goes, batch = next_batch(s, now + 20 * US)
    assert now + 20 * US < goes < now + 2 * MS  # less than a batch takes
    assert entries_of(batch) == [entry]
    assert s.stage(0)["closed_by"] == NO_GAIN


def test_max_wait_time_is_a_bound_from_entry() -> None:
    s = automatic(max_wait_ns=50 * US)
    now = rounds(s, clients=8, took=2 * MS, count=30)
    arrive(s, 1, now + 20 * US)
    arrive(s, 1, now + 45 * US)
    goes, batch = next_batch(s, now + 45 * US)
    assert goes <= now + 70 * US
    assert len(batch[1]) == 2


def test_it_learns_how_long_batches_take() -> None:
    s = automatic(max_batch_size=64)
    now = 0
    for size in [1, 8, 30, 3, 16] * 40:
        arrive(s, size, now)
        while s.stage(0)["waiting"]:
            now, batch = next_batch(s, now)
            start(s, batch)
            now += 5 * MS + len(batch[1]) * 100 * US
            finish(s, batch, now)
            s.set_room(0, 64)
    time = s.stage(0)["former"]["time"]
    assert time["fixed"] == pytest.approx(5 * MS, rel=0.02)
    assert time["slope"] == pytest.approx(100 * US, rel=0.02)


def test_the_first_batch_of_a_process_teaches_nothing() -> None:
    s = automatic()
    arrive(s, 1)
    batch = dispatch(s, 0)
    start(s, batch)
    finish(s, batch, 60_000 * MS)
    assert s.stage(0)["former"]["time"]["weight"] == 0


@pytest.mark.parametrize("clients", [1, 4, 8, 16])
@pytest.mark.parametrize("profile", [FLAT, GPU])
def test_closed_loops_go_round_in_one_batch(profile: Profile, clients: int) -> None:
    outcome = simulate(profile, Load(clients=clients, until=400 * profile.time(clients)))
    sizes = late(outcome)
    assert sum(sizes) / len(sizes) > 0.9 * clients


def test_where_size_costs_time_batches_are_small() -> None:
    """Half of what full batches bear: a large batch would only delay those in it."""
    times = [i * 4.0 for i in range(2000)]
    assert set(late(simulate(CPU, Load(arrivals=times)))) == {1}


@pytest.mark.parametrize("profile", [FLAT, GPU, CPU])
def test_it_keeps_up_with_all_that_full_batches_bear(profile: Profile) -> None:
    apart = profile.time(32) / 32 * 1.05
    outcome = simulate(profile, Load(arrivals=[i * apart for i in range(6000)]))
    took = [outcome.took[task] for task in range(5000, 6000)]
    assert max(took) < 4 * profile.time(32)  # no queue that grows


def test_work_waits_in_a_busy_slots_ring_only_if_it_would_not_wait_for_more() -> None:
    s = automatic(max_batch_size=4)
    now = rounds(s, clients=4, took=200 * US, count=30)
    arrive(s, 4, now)
    start(s, dispatch(s, now))
    arrive(s, 3, now)
    assert s.next_batch(0, now) is None
    arrive(s, 1, now)
    assert len(dispatch(s, now)[1]) == 4


class Rings:
    """The slots' rings: what is taken out of them makes room, and a slot takes stale descriptors when it next looks."""

    def __init__(self, s: Scheduler, slots: int, capacity: int) -> None:
        self.scheduler = s
        self.capacity = capacity
        self.held = [0] * slots

    def pushed(self, batch: Batch) -> None:
        self.held[batch[0]] += len(batch[1])
        assert self.held[batch[0]] <= self.capacity
        self.tell(batch[0])

    def emptied(self, slot: int) -> None:
        self.held[slot] = 0
        self.tell(slot)

    def tell(self, slot: int) -> None:
        self.scheduler.set_room(slot, self.capacity - self.held[slot])


@pytest.mark.parametrize("wait", [None, MS])
@pytest.mark.parametrize("costed", [False, True])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_whatever_happens_each_task_goes_when_asked_again(wait: int | None, costed: bool, data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 9))
    slots = data.draw(st.integers(1, 3))
    capacity = data.draw(st.integers(size, 2 * size))
    s = Scheduler([(size, wait, slots)], ring_capacity=capacity, automatic=True, costed=costed, max_batch_cost=20)
    for slot in range(slots):
        s.slot_up(slot)
    rings = Rings(s, slots, capacity)
    now = 0
    waiting: list[Batch] = []  # in rings, not started
    running: list[Batch] = []

    def go(now: int) -> None:
        s.reclaim(now)
        while (batch := s.next_batch(0, now)) is not None:
            assert 0 < len(batch[1]) <= size
            rings.pushed(batch)
            waiting.append(batch)

    def take() -> None:
        """The slots empty their rings, and start what is theirs still."""
        for slot, tasks in waiting:
            started = [task for task in tasks if s.start(*task)]
            if started:
                running.append((slot, started))
        waiting.clear()
        for slot in range(slots):
            rings.emptied(slot)

    steps = ["arrive", "take", "finish", "pass", "withdraw"]
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=60)):
        now += data.draw(st.integers(0, 3 * MS))
        if step == "arrive":
            for cost in data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=12)):
                entry = s.new()
                assert entry is not None
                s.enqueue(entry, 0, now, cost)
        elif step == "take":
            take()
        elif step == "finish" and running:
            finish_part(s, running.pop(0), now)
        elif step == "withdraw" and (inside := [*s.queue(0), *(e for _, tasks in waiting for e, _ in tasks)]):
            entry = data.draw(st.sampled_from(inside))
            if s.task(entry)["state"] in (QUEUED, DISPATCHED) and s.withdraw(entry):
                s.free(entry)
        go(now)
        deadline = s.deadline(now)
        assert deadline is None or deadline > now, "core would spin"
    settle(s, now, running, waiting, take, go)


def settle(
    s: Scheduler,
    now: int,
    running: list[Batch],
    waiting: list[Batch],
    take: Callable[[], None],
    go: Callable[[int], None],
) -> None:
    """Whatever is inside gets through."""
    for _ in range(400):
        if not (s.queue(0) or running or waiting):
            break
        take()
        if running:
            finish_part(s, running.pop(0), now)
        elif s.queue(0):
            deadline = s.deadline(now)
            assert deadline is not None
            assert deadline - now < 10_000 * MS
            now = max(now, deadline)
        go(now)
    assert s.stage(0)["waiting"] == s.stage(0)["running"] == s.stage(0)["waiting_cost"] == 0


def finish_part(s: Scheduler, batch: Batch, now: int) -> None:
    """The slot answers what it has started of a batch."""
    slot, tasks = batch
    for entry, sequence in tasks:
        assert s.complete(slot, entry, sequence, now) is not None
        s.free(entry)


def test_one_pause_teaches_little() -> None:
    s = automatic()
    now = rounds(s, clients=8, took=5 * MS, count=40)
    now = rounds(s, clients=8, took=3000 * MS, count=1, now=now)
    now = rounds(s, clients=8, took=5 * MS, count=20, now=now)
    arrive(s, 60, now)
    assert s.forecast(0, now) < 50 * MS


def test_what_has_become_slow_is_followed() -> None:
    s = automatic()
    now = rounds(s, clients=8, took=5 * MS, count=40)
    now = rounds(s, clients=8, took=500 * MS, count=150, now=now)
    time = s.stage(0)["former"]["time"]
    assert time["fixed"] + 8 * time["slope"] == pytest.approx(500 * MS, rel=0.5)


def test_batches_that_complete_at_one_look_teach_their_mean() -> None:
    s = automatic(max_batch_size=4)
    now = 0
    for _ in range(200):
        arrive(s, 4, now)
        first = dispatch(s, now)
        start(s, first)
        arrive(s, 4, now)
        ahead = s.next_batch(0, now)
        now += 200 * US if ahead else 100 * US
        finish(s, first, now)
        if ahead:
            start(s, ahead)
            finish(s, ahead, now)
        while s.queue(0):
            now, batch = next_batch(s, now)
            start(s, batch)
            now += 100 * US
            finish(s, batch, now)
        s.set_room(0, 64)
        now += MS
    time = s.stage(0)["former"]["time"]
    assert time["fixed"] + 4 * time["slope"] == pytest.approx(100 * US, rel=0.05)


def test_the_forecast_knows_that_batches_grow_with_the_queue() -> None:
    """Light load has batches of one, in little time each; a full batch of a long queue takes by its size."""
    s = automatic(max_batch_size=8)
    now = 0
    for size in [1, 2, 1, 3] * 30:
        arrive(s, size, now)
        while s.stage(0)["waiting"]:
            now, batch = next_batch(s, now)
            start(s, batch)
            now += 10 * MS + len(batch[1]) * MS
            finish(s, batch, now)
            s.set_room(0, 64)
    arrive(s, 80, now)
    assert s.forecast(0, now) == pytest.approx((80 / 8 + 2) * 18 * MS, rel=0.05)


def test_the_forecast_knows_that_a_bound_of_cost_makes_batches_small() -> None:
    s = Scheduler([(64, None, 1)], automatic=True, costed=True, max_batch_cost=40)
    s.slot_up(0)
    now = 0

    def enqueue(count: int) -> None:
        for _ in range(count):
            entry = s.new()
            assert entry is not None
            s.enqueue(entry, 0, now, 10)

    for size in [1, 2, 4, 3] * 30:
        enqueue(size)
        while s.stage(0)["waiting"]:
            now, batch = next_batch(s, now)
            start(s, batch)
            now += 10 * MS + len(batch[1]) * MS
            finish(s, batch, now)
            s.set_room(0, 64)
    enqueue(60)
    assert s.forecast(0, now) == pytest.approx((60 / 4 + 2) * 14 * MS, rel=0.05)
