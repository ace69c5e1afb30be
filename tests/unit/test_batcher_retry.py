"""Tasks whose row has died under them: they go out again, each in a batch of its own."""

from tests.drivers.batcher import Scheduler
from tests.unit.scheduling import HANDED, MS, NEW, QUEUED, arrive, finish, hand, scheduler, slots_of, start


def batch_that_died(s: Scheduler, size: int) -> list[int]:
    """Tasks that row 0 had started; it is up again."""
    arrive(s, size)
    batch = hand(s, 0)
    assert batch[0] == 0
    start(s, batch)
    died = s.row_down(0)
    assert died == slots_of(batch)
    s.row_up(0)
    return died


def test_each_goes_out_alone_and_before_what_came_later() -> None:
    s = scheduler(4, 0, retry=1)
    slots = batch_that_died(s, 4)
    later = arrive(s, 2, 1)
    assert all(s.retry(slot) for slot in reversed(slots))
    assert s.queue(0) == slots + later
    for slot in slots:
        batch = hand(s, 1)
        assert slots_of(batch) == [slot]
        assert s.next_batch(0, 1) is None, "its row takes nothing else meanwhile"
        start(s, batch)
        finish(s, batch, 20 * MS)
    assert slots_of(hand(s, 1)) == later


def test_several_rows_run_them_at_once() -> None:
    s = scheduler(4, 0, rows=3, retry=1)
    slots = batch_that_died(s, 2)
    assert all(s.retry(slot) for slot in slots)
    later = arrive(s, 4)
    assert [slots_of(hand(s, 0)) for _ in range(3)] == [[slots[0]], [slots[1]], later]


def test_they_do_not_wait_for_company() -> None:
    s = scheduler(4, 50 * MS, retry=1)
    arrive(s, 4)
    start(s, hand(s, 0))
    slots = s.row_down(0)
    s.row_up(0)
    assert s.retry(slots[0])
    arrive(s, 1, MS)
    assert s.deadline(MS) == MS
    assert slots_of(hand(s, MS)) == slots[:1]


def test_a_batch_ends_before_one_that_goes_alone() -> None:
    """What is older and came back unstarted is not kept waiting for others, which may not join it past that one."""
    s = scheduler(3, 50 * MS, retry=1)
    slots = arrive(s, 3)
    _, tasks = hand(s, 0)
    assert s.start(*tasks[1])
    assert s.row_down(0) == [slots[1]]
    s.row_up(0)
    assert s.retry(slots[1])
    assert s.queue(0) == slots
    for slot in slots[:2]:
        batch = hand(s, 0)
        assert slots_of(batch) == [slot]
        start(s, batch)
        finish(s, batch, 5 * MS)
    assert s.next_batch(0, 5 * MS) is None, "the last one is an ordinary batch, which waits to be filled"
    assert slots_of(hand(s, 50 * MS)) == slots[2:]


def test_only_so_often() -> None:
    s = scheduler(2, 0, retry=1)
    slots = batch_that_died(s, 2)
    assert s.retry(slots[0])
    start(s, hand(s, 0))
    assert s.row_down(0) == slots[:1]
    assert not s.retry(slots[0])
    assert s.task(slots[0])["state"] == NEW
    assert s.queue(0) == []


def test_a_stage_without_retry_has_none() -> None:
    s = scheduler(2, 0)
    assert [s.retry(slot) for slot in batch_that_died(s, 2)] == [False, False]


def test_its_tries_count_in_one_stage() -> None:
    s = Scheduler([(4, 0, 1), (4, 0, 1)], retry=1)
    s.row_up(0)
    s.row_up(1)
    for slot in batch_that_died(s, 2):
        assert s.retry(slot)
        batch = hand(s, 0)
        start(s, batch)
        assert s.complete(0, *batch[1][0], MS) is not None
        s.enqueue(slot, 1, MS)
        assert s.task(slot)["tries"] == 0
    assert len(slots_of(hand(s, MS, stage=1))) == 2


def test_it_can_leave_the_queue_and_the_ring_as_others() -> None:
    s = scheduler(2, 0, retry=1)
    slots = batch_that_died(s, 2)
    assert all(s.retry(slot) for slot in slots)
    assert s.withdraw(slots[0])
    assert s.stage(0)["lone"] == 1
    hand(s, 0)
    assert (s.task(slots[1])["state"], s.stage(0)["lone"]) == (HANDED, 0)
    s.row_drain(0)
    assert (s.task(slots[1])["state"], s.stage(0)["lone"]) == (QUEUED, 1), "it goes alone still"
