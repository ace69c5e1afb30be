"""The rules of the batcher for slots that die or drain: what was dispatched is reclaimed, or goes out again."""

from tests.drivers.batcher import Scheduler
from tests.unit.scheduling import (
    DISPATCHED,
    MS,
    NEW,
    QUEUED,
    US,
    arrive,
    dispatch,
    entries_of,
    finish,
    run,
    scheduler,
    start,
)


class TestTakeBack:
    def test_what_an_idle_slot_does_not_start_moves_to_another(self) -> None:
        s = scheduler(2, 0, slots=2)
        entries = arrive(s, 2, 5)
        dispatch(s, 5)
        assert s.deadline(5) == MS + 5
        assert s.reclaim(MS + 4) == 0
        assert s.reclaim(MS + 5) == 2
        assert dispatch(s, MS + 5) == (1, [(entry, 3) for entry in entries])

    def test_stale_descriptor_does_not_start_the_next_dispatch(self) -> None:
        s = scheduler(slots=2)
        arrive(s, 1)
        stale = dispatch(s, 0)
        s.reclaim(MS)
        fresh = dispatch(s, MS)
        assert not s.start(*stale[1][0])
        assert s.start(*fresh[1][0])
        assert not s.start(*fresh[1][0])
        assert s.complete(0, *stale[1][0], 2 * MS) is None
        assert s.complete(1, *fresh[1][0], 2 * MS) == MS

    def test_only_what_is_overdue(self) -> None:
        s = scheduler(slots=2)
        now = run(s, 10 * US, 0)
        arrive(s, 3, now)
        other, running = dispatch(s, now), dispatch(s, now)
        start(s, running)
        start(s, other)
        assert dispatch(s, now)[0] == 0, "ahead: slot 1 is not measured yet"
        (younger,) = arrive(s, 1, now + 500 * US)
        assert dispatch(s, now + 500 * US)[0] == 0
        finish(s, other, now + 900 * US)
        assert s.deadline(now + 900 * US) == now + MS
        assert s.reclaim(now + MS) == 1
        assert s.ring(0) == [*entries_of(running), younger]
        assert s.deadline(now + MS) == now + MS, "what came back goes to slot 1 at once"
        assert dispatch(s, now + MS)[0] == 1
        assert s.deadline(now + MS) == now + 1500 * US

    def test_slot_that_has_answered_all_needs_no_look(self) -> None:
        s = scheduler(slots=3)
        arrive(s, 1)
        start(s, dispatch(s, 0))
        assert s.reclaim(MS) == 0
        arrive(s, 1, MS)
        finish(s, dispatch(s, MS), MS + 5)
        assert s.deadline(MS + 5) is None

    def test_started_tasks_stay(self) -> None:
        s = scheduler(3, 0, slots=2)
        entries = arrive(s, 3)
        slot, tasks = dispatch(s, 0)
        assert s.start(*tasks[1])
        assert s.reclaim(MS) == 2
        assert s.queue(0) == [entries[0], entries[2]]
        assert s.ring(0) == [entries[1]]
        assert s.slot(0)["batches"] == 1
        assert s.complete(slot, *tasks[1], 2 * MS) == 2 * MS
        assert s.slot(0)["batches"] == 0

    def test_a_running_batch_is_looked_at_once(self) -> None:
        s = scheduler(2, 0, slots=2)
        arrive(s, 2)
        start(s, dispatch(s, 0))
        assert s.deadline(0) == MS
        assert s.reclaim(MS) == 0
        assert s.deadline(MS) is None

    def test_they_come_back_before_younger_ones_in_the_order_of_arrival(self) -> None:
        s = scheduler(slots=3)
        now = 0
        for _ in range(3):
            arrive(s, 1, now)
        batches = [dispatch(s, now) for _ in range(3)]
        now += 10 * US
        for batch in batches:
            finish(s, batch, now)
        entries = arrive(s, 9, now)
        for _ in range(9):
            slot, tasks = dispatch(s, now)
            if len(s.ring(slot)) == 1:
                s.start(*tasks[0])
        entries += arrive(s, 2, now + 1)
        one = s.ring(1)[0]
        assert s.complete(1, one, s.task(one)["sequence"], now + 2) == 2
        assert s.reclaim(now + MS + 2) == 4
        assert s.queue(0) == [entries[i] for i in (3, 5, 6, 8, 9, 10)], "of slots 0 and 2, woven together"
        assert s.ring(1) == [entries[4], entries[7]]

    def test_single_slot_keeps_its_work(self) -> None:
        s = scheduler(2, 0)
        arrive(s, 2)
        batch = dispatch(s, 0)
        assert s.deadline(0) is None
        assert s.reclaim(50 * MS) == 0
        assert s.deadline(50 * MS) is None
        start(s, batch)

    def test_nothing_is_reclaimed_while_no_other_slot_can_take_it(self) -> None:
        s = scheduler(slots=2)
        arrive(s, 2)
        start(s, dispatch(s, 0))
        dispatch(s, 0)
        assert s.deadline(0) is None
        assert s.reclaim(5 * MS) == 0
        assert s.complete(0, 0, 1, 5 * MS) == 5 * MS
        assert s.reclaim(5 * MS) == 1, "now there is one"
        assert dispatch(s, 5 * MS)[0] == 0

    def test_slot_that_was_late_is_the_last_resort(self) -> None:
        s = scheduler(slots=2)
        arrive(s, 1)
        dispatch(s, 0)
        assert s.reclaim(MS) == 1
        assert dispatch(s, MS)[0] == 1
        arrive(s, 2, MS)
        last = dispatch(s, MS)
        assert last[0] == 0, "no other choice"
        assert s.next_batch(0, MS) is None
        assert s.deadline(MS) is None
        assert s.reclaim(9 * MS) == 0, "nowhere better to go"

    def test_late_slot_that_answers_is_late_no_more(self) -> None:
        s = scheduler(slots=2)
        arrive(s, 1)
        dispatch(s, 0)
        s.reclaim(MS)
        finish(s, dispatch(s, MS), 9 * MS)
        arrive(s, 2, 9 * MS)
        better, last = dispatch(s, 9 * MS), dispatch(s, 9 * MS)
        assert (better[0], last[0]) == (1, 0)
        finish(s, better, 10 * MS)
        finish(s, last, 10 * MS)
        for slot in (1, 0):
            arrive(s, 1, 10 * MS)
            turn = dispatch(s, 10 * MS)
            assert turn[0] == slot
            finish(s, turn, 10 * MS)

    def test_late_slot_that_has_emptied_its_ring_is_alive(self) -> None:
        s = scheduler(slots=2, ring_capacity=8)
        arrive(s, 1)
        dispatch(s, 0)
        s.reclaim(MS)
        s.set_room(0, 7)
        finish(s, dispatch(s, MS), MS + 1)
        s.set_room(0, 8)
        arrive(s, 1, 2 * MS)
        assert dispatch(s, 2 * MS)[0] == 0

    def test_slot_that_may_have_emptied_its_ring_is_looked_at_again(self) -> None:
        s = scheduler(slots=2, ring_capacity=8)
        arrive(s, 1)
        dispatch(s, 0)
        s.reclaim(MS)
        s.set_room(0, 7)
        assert dispatch(s, MS)[0] == 1
        assert s.reclaim(2 * MS) == 0, "slot 0 has yet to pop what was reclaimed from it"
        assert s.deadline(2 * MS) == 3 * MS, "and says nothing when it does"
        s.set_room(0, 8)
        assert s.deadline(3 * MS) == 2 * MS
        assert s.reclaim(3 * MS) == 1
        assert dispatch(s, 3 * MS)[0] == 0
        assert s.deadline(3 * MS) == 4 * MS

    def test_slot_that_has_emptied_its_ring_and_started_nothing_is_late(self) -> None:
        s = scheduler(slots=2, ring_capacity=8)
        arrive(s, 1)
        dispatch(s, 0)
        s.set_room(0, 8)
        assert s.reclaim(MS) == 1
        assert dispatch(s, MS)[0] == 1

    def test_what_is_reclaimed_from_a_busy_slot_does_not_return_to_it(self) -> None:
        s = scheduler(slots=2)
        now = run(s, 10 * US, 0)
        entries = arrive(s, 2, now)
        other = dispatch(s, now)
        start(s, other)
        running = dispatch(s, now)
        start(s, running)
        entries += arrive(s, 1, now)
        assert dispatch(s, now)[0] == 0, "ahead: slot 1 is not measured yet"
        finish(s, other, now + 10 * US)
        assert s.reclaim(now + MS) == 1
        assert dispatch(s, now + MS)[0] == 1
        entries += arrive(s, 2, now + MS)
        assert dispatch(s, now + MS)[0] == 1
        assert s.slot(0)["outstanding"] == 1


class TestSlots:
    def test_death_spares_what_was_not_started(self) -> None:
        s = scheduler(2, 0, slots=2)
        entries = arrive(s, 4, 5)
        slot, tasks = dispatch(s, 5)
        dispatch(s, 5)
        assert s.start(*tasks[1])
        entries += arrive(s, 1, 6)
        assert s.slot_down(slot) == [entries[1]]
        assert s.queue(0) == [entries[0], entries[4]]
        assert (s.task(entries[1])["state"], s.task(entries[1])["tries"], s.task(entries[0])["tries"]) == (NEW, 1, 0)
        down = s.slot(slot)
        assert (down["outstanding"], down["batches"], s.stage(0)["running"]) == (0, 0, 2)
        assert s.complete(slot, *tasks[1], 9) is None

    def test_tries_are_of_the_task_and_not_of_the_slot(self) -> None:
        s = scheduler(retry=2)
        (entry,) = arrive(s, 1)
        for tries in (1, 2):
            start(s, dispatch(s, 0))
            assert s.slot_down(0) == [entry]
            assert s.task(entry)["tries"] == tries
            s.slot_up(0)
            assert s.retry(entry)
        s.withdraw(entry)
        s.free(entry)
        assert arrive(s, 1) == [entry]
        assert s.task(entry)["tries"] == 0

    def test_only_slot_that_died_leaves_a_queue_for_the_next(self) -> None:
        s = scheduler()
        (entry,) = arrive(s, 1)
        dispatch(s, 0)
        assert s.slot_down(0) == []
        assert s.queue(0) == [entry]
        assert s.next_batch(0, MS) is None
        assert s.deadline(MS) is None
        s.slot_up(0)
        assert dispatch(s, 2 * MS) == (0, [(entry, 3)])

    def test_drained_slot_finishes_what_it_started(self) -> None:
        s = scheduler(2, 0, slots=2)
        entries = arrive(s, 2)
        slot, tasks = dispatch(s, 0)
        assert s.start(*tasks[0])
        s.slot_drain(slot)
        assert s.queue(0) == [entries[1]]
        assert s.ring(slot) == [entries[0]]
        assert dispatch(s, 0)[0] == 1
        assert s.complete(slot, *tasks[0], 9) == 9
        arrive(s, 1)
        assert s.next_batch(0, 9) is None, "slot 0 is drained, slot 1 is busy"


# ---- tasks whose slot has died under them ---------------------------------------------------------


def batch_that_died(s: Scheduler, size: int) -> list[int]:
    """Tasks that slot 0 had started; it is up again."""
    arrive(s, size)
    batch = dispatch(s, 0)
    assert batch[0] == 0
    start(s, batch)
    died = s.slot_down(0)
    assert died == entries_of(batch)
    s.slot_up(0)
    return died


def test_each_goes_out_alone_and_before_what_came_later() -> None:
    s = scheduler(4, 0, retry=1)
    entries = batch_that_died(s, 4)
    later = arrive(s, 2, 1)
    assert all(s.retry(entry) for entry in reversed(entries))
    assert s.queue(0) == entries + later
    for entry in entries:
        batch = dispatch(s, 1)
        assert entries_of(batch) == [entry]
        assert s.next_batch(0, 1) is None, "its slot takes nothing else meanwhile"
        start(s, batch)
        finish(s, batch, 20 * MS)
    assert entries_of(dispatch(s, 1)) == later


def test_several_slots_run_them_at_once() -> None:
    s = scheduler(4, 0, slots=3, retry=1)
    entries = batch_that_died(s, 2)
    assert all(s.retry(entry) for entry in entries)
    later = arrive(s, 4)
    assert [entries_of(dispatch(s, 0)) for _ in range(3)] == [[entries[0]], [entries[1]], later]


def test_they_do_not_wait_for_company() -> None:
    s = scheduler(4, 50 * MS, retry=1)
    arrive(s, 4)
    start(s, dispatch(s, 0))
    entries = s.slot_down(0)
    s.slot_up(0)
    assert s.retry(entries[0])
    arrive(s, 1, MS)
    assert s.deadline(MS) == MS
    assert entries_of(dispatch(s, MS)) == entries[:1]


def test_a_batch_ends_before_one_that_goes_alone() -> None:
    """What is older and came back unstarted is not kept waiting for others, which may not join it past that one."""
    s = scheduler(3, 50 * MS, retry=1)
    entries = arrive(s, 3)
    _, tasks = dispatch(s, 0)
    assert s.start(*tasks[1])
    assert s.slot_down(0) == [entries[1]]
    s.slot_up(0)
    assert s.retry(entries[1])
    assert s.queue(0) == entries
    for entry in entries[:2]:
        batch = dispatch(s, 0)
        assert entries_of(batch) == [entry]
        start(s, batch)
        finish(s, batch, 5 * MS)
    assert s.next_batch(0, 5 * MS) is None, "the last one is an ordinary batch, which waits to be filled"
    assert entries_of(dispatch(s, 50 * MS)) == entries[2:]


def test_only_so_often() -> None:
    s = scheduler(2, 0, retry=1)
    entries = batch_that_died(s, 2)
    assert s.retry(entries[0])
    start(s, dispatch(s, 0))
    assert s.slot_down(0) == entries[:1]
    assert not s.retry(entries[0])
    assert s.task(entries[0])["state"] == NEW
    assert s.queue(0) == []


def test_a_stage_without_retry_has_none() -> None:
    s = scheduler(2, 0)
    assert [s.retry(entry) for entry in batch_that_died(s, 2)] == [False, False]


def test_its_tries_count_in_one_stage() -> None:
    s = Scheduler([(4, 0, 1), (4, 0, 1)], retry=1)
    s.slot_up(0)
    s.slot_up(1)
    for entry in batch_that_died(s, 2):
        assert s.retry(entry)
        batch = dispatch(s, 0)
        start(s, batch)
        assert s.complete(0, *batch[1][0], MS) is not None
        s.enqueue(entry, 1, MS)
        assert s.task(entry)["tries"] == 0
    assert len(entries_of(dispatch(s, MS, stage=1))) == 2


def test_it_can_leave_the_queue_and_the_ring_as_others() -> None:
    s = scheduler(2, 0, retry=1)
    entries = batch_that_died(s, 2)
    assert all(s.retry(entry) for entry in entries)
    assert s.withdraw(entries[0])
    assert s.stage(0)["lone"] == 1
    dispatch(s, 0)
    assert (s.task(entries[1])["state"], s.stage(0)["lone"]) == (DISPATCHED, 0)
    s.slot_drain(0)
    assert (s.task(entries[1])["state"], s.stage(0)["lone"]) == (QUEUED, 1), "it goes alone still"
