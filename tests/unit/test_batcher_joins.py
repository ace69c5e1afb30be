"""A stage that joins: tasks go out one by one, at once, while their slot has a place for them."""

import random

import pytest

from tests.drivers.batcher import Scheduler
from tests.unit.scheduling import MS, NEW, arrive, dispatch, entries_of, finish, start

RECLAIM_NS = MS


def joining(max_batch_size: int = 4, slots: int = 1, **options: int) -> Scheduler:
    """One such stage whose slots are up; a wait would not count."""
    made = Scheduler([(max_batch_size, 10 * MS, slots)], joins=True, **options)
    for slot in range(slots):
        made.slot_up(slot)
    return made


def join_all(s: Scheduler, now: int = 0) -> list[int]:
    """The slots of all dispatches that there are; each task is started."""
    slots = []
    while batch := s.next_batch(0, now):
        assert len(batch[1]) == 1
        start(s, batch)
        slots.append(batch[0])
    return slots


def test_a_task_joins_at_once_and_as_long_as_there_is_a_place() -> None:
    s = joining(max_batch_size=2)
    arrive(s, 3)
    first, second = dispatch(s, 0), dispatch(s, 0)
    start(s, first)
    start(s, second)
    assert s.next_batch(0, 1_000 * MS) is None
    assert s.deadline(0) is None  # an answer will tell
    assert finish(s, second, 5) == 5
    third = dispatch(s, 5)
    assert entries_of(third) == [2]
    assert s.next_batch(0, 5) is None


def test_the_slot_with_the_fewest_is_next() -> None:
    s = joining(slots=3)
    arrive(s, 12)
    assert join_all(s) == [0, 1, 2] * 4
    answers = [(slot, entry) for slot in (1, 1, 2) for entry in s.ring(slot)[:1]]
    for slot, _ in answers:
        entry = s.ring(slot)[0]
        assert s.complete(slot, entry, s.task(entry)["sequence"], MS) is not None
        s.free(entry)
    arrive(s, 3)
    assert join_all(s, MS) == [1, 2, 1]  # of two that are alike, the one whose last task is the longest ago


def test_a_full_ring_is_full() -> None:
    s = joining(max_batch_size=4, ring_capacity=4)
    arrive(s, 2)
    s.set_room(0, 1)
    assert join_all(s) == [0]
    assert s.deadline(0) == RECLAIM_NS  # a slot that pops stale descriptors tells nobody
    s.set_room(0, 4)
    assert join_all(s) == [0]


def test_one_under_which_a_slot_has_died_is_alone() -> None:
    s = joining(retry=1)
    arrive(s, 2)
    join_all(s)
    for entry in s.slot_down(0):
        assert s.retry(entry)
    s.slot_up(0)
    arrive(s, 1)
    for entry in range(3):
        batch = dispatch(s, 0)
        assert entries_of(batch) == [entry]
        start(s, batch)
        assert s.next_batch(0, 0) is None or entry == 2
        finish(s, batch, 10)


def test_what_waits_for_the_end_of_a_step_is_reclaimed_for_an_idle_slot_only() -> None:
    s = joining(slots=2)
    arrive(s, 3)
    assert join_all(s) == [0, 1, 0]
    arrive(s, 1)
    late = dispatch(s, 0)  # its slot is in a step
    assert late[0] == 1
    assert s.reclaim(10 * MS) == 0
    assert s.deadline(10 * MS) is None
    for entry in s.ring(0):
        s.complete(0, entry, s.task(entry)["sequence"], 10 * MS)
        s.free(entry)
    assert s.reclaim(10 * MS) == 1
    assert dispatch(s, 10 * MS)[0] == 0
    assert s.slot(1)["late"]
    arrive(s, 2)
    assert join_all(s, 10 * MS) == [0, 0]  # not the late one, before it has popped what is stale
    s.set_room(1, 64)
    arrive(s, 1)
    assert join_all(s, 10 * MS) == [1]


def test_a_slot_that_is_drained_keeps_what_it_has_started() -> None:
    s = joining()
    arrive(s, 2)
    started = dispatch(s, 0)
    start(s, started)
    waiting = dispatch(s, 0)
    s.slot_drain(0)
    assert s.queue(0) == entries_of(waiting)
    assert s.next_batch(0, MS) is None
    assert finish(s, started, MS) == MS


def test_a_withdrawn_task_leaves_its_place() -> None:
    s = joining(max_batch_size=1)
    arrive(s, 2)
    first = dispatch(s, 0)
    [entry] = entries_of(first)
    assert s.withdraw(entry)
    assert s.task(entry)["state"] == NEW
    assert entries_of(dispatch(s, 0)) == [1]


def test_the_forecast_knows_how_long_a_task_stays() -> None:
    """Of each slot four at a time, each for 10 ms, at whatever moment it has joined."""
    s = joining(max_batch_size=4)
    now = 0
    for _ in range(40):
        arrive(s, 1, now)
        join_all(s, now)
        if len(s.ring(0)) == 4:
            entry = s.ring(0)[0]
            s.complete(0, entry, s.task(entry)["sequence"], now)
            s.free(entry)
        now += 10 * MS // 3  # so that the first has been there for 10 ms
    assert s.slot(0)["batch_ns"] == pytest.approx(10 * MS, rel=0.01)
    arrive(s, 20, now)
    join_all(s, now)
    waiting = s.stage(0)["waiting"]
    done = s.forecast(0, now)
    assert waiting / 4 * 10 * MS <= done <= (waiting / 4 + 3) * 10 * MS


@pytest.mark.parametrize("seed", range(40))
def test_never_more_than_max_batch_size_are_outstanding(seed: int) -> None:
    """Whatever arrives, leaves, is reclaimed, answered or retried; and while there is a place, nobody waits."""
    chance = random.Random(seed)
    most, slots = chance.randint(1, 5), chance.randint(1, 3)
    s = joining(most, slots, max_tasks=64, ring_capacity=8, retry=1)
    now, running = 0, [list[tuple[int, int]]() for _ in range(slots)]
    rings = [list[tuple[int, int]]() for _ in range(slots)]
    for _ in range(400):
        now += chance.choice((1, 1000, MS, 5 * MS))
        arrive(s, min(chance.randint(0, 3), 64 - sum(s.task(i)["state"] != 0 for i in range(64))), now)
        inside = s.queue(0) + [entry for index in range(slots) for entry in s.ring(index)]
        if inside and chance.random() < 0.2 and s.withdraw(entry := chance.choice(inside)):
            s.free(entry)
        slot = chance.randrange(slots)
        if chance.random() < 0.5:
            running[slot] += [task for task in rings[slot] if s.start(*task)]
            rings[slot].clear()
        if running[slot] and chance.random() < 0.7:
            entry, sequence = running[slot].pop(chance.randrange(len(running[slot])))
            assert s.complete(slot, entry, sequence, now) is not None
            s.free(entry)
        if chance.random() < 0.03:
            for entry in s.slot_down(slot):
                if not s.retry(entry):
                    s.free(entry)
            running[slot], rings[slot] = [], []
            s.slot_up(slot)
        for index in range(slots):
            s.set_room(index, 8 - len(rings[index]))
        s.reclaim(now)
        while batch := s.next_batch(0, now):
            rings[batch[0]] += batch[1]
        alone = [any(s.task(entry)["tries"] for entry in s.ring(index)) for index in range(slots)]
        for index in range(slots):
            outstanding = len(s.ring(index))
            assert outstanding <= (1 if alone[index] else most)
            assert outstanding == s.slot(index)["outstanding"] == s.slot(index)["batches"]
            if (queue := s.queue(0)) and not s.slot(index)["late"] and len(rings[index]) < 8:
                closed = s.task(queue[0])["tries"] > 0 or alone[index]
                assert outstanding == most or (closed and outstanding > 0)
        deadline = s.deadline(now)
        assert deadline is None or deadline > now
