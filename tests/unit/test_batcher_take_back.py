"""The rules of the batcher for rows that die or drain: what was handed out is taken back, or goes out again."""

from tests.drivers.batcher import Scheduler
from tests.unit.scheduling import HANDED, MS, NEW, QUEUED, US, arrive, finish, hand, run, scheduler, slots_of, start


class TestTakeBack:
    def test_what_an_idle_row_does_not_start_moves_to_another(self) -> None:
        s = scheduler(2, 0, rows=2)
        slots = arrive(s, 2, 5)
        hand(s, 5)
        assert s.deadline(5) == MS + 5
        assert s.take_back(MS + 4) == 0
        assert s.take_back(MS + 5) == 2
        assert hand(s, MS + 5) == (1, [(slot, 3) for slot in slots])

    def test_stale_descriptor_does_not_start_the_next_hand_out(self) -> None:
        s = scheduler(rows=2)
        arrive(s, 1)
        stale = hand(s, 0)
        s.take_back(MS)
        fresh = hand(s, MS)
        assert not s.start(*stale[1][0])
        assert s.start(*fresh[1][0])
        assert not s.start(*fresh[1][0])
        assert s.complete(0, *stale[1][0], 2 * MS) is None
        assert s.complete(1, *fresh[1][0], 2 * MS) == MS

    def test_only_what_is_overdue(self) -> None:
        s = scheduler(rows=2)
        now = run(s, 10 * US, 0)
        arrive(s, 3, now)
        other, running = hand(s, now), hand(s, now)
        start(s, running)
        start(s, other)
        assert hand(s, now)[0] == 0, "ahead: row 1 is not measured yet"
        (younger,) = arrive(s, 1, now + 500 * US)
        assert hand(s, now + 500 * US)[0] == 0
        finish(s, other, now + 900 * US)
        assert s.deadline(now + 900 * US) == now + MS
        assert s.take_back(now + MS) == 1
        assert s.ring(0) == [*slots_of(running), younger]
        assert s.deadline(now + MS) == now + MS, "what came back goes to row 1 at once"
        assert hand(s, now + MS)[0] == 1
        assert s.deadline(now + MS) == now + 1500 * US

    def test_row_that_has_answered_all_needs_no_look(self) -> None:
        s = scheduler(rows=3)
        arrive(s, 1)
        start(s, hand(s, 0))
        assert s.take_back(MS) == 0
        arrive(s, 1, MS)
        finish(s, hand(s, MS), MS + 5)
        assert s.deadline(MS + 5) is None

    def test_started_tasks_stay(self) -> None:
        s = scheduler(3, 0, rows=2)
        slots = arrive(s, 3)
        row, tasks = hand(s, 0)
        assert s.start(*tasks[1])
        assert s.take_back(MS) == 2
        assert s.queue(0) == [slots[0], slots[2]]
        assert s.ring(0) == [slots[1]]
        assert s.row(0)["batches"] == 1
        assert s.complete(row, *tasks[1], 2 * MS) == 2 * MS
        assert s.row(0)["batches"] == 0

    def test_a_running_batch_is_looked_at_once(self) -> None:
        s = scheduler(2, 0, rows=2)
        arrive(s, 2)
        start(s, hand(s, 0))
        assert s.deadline(0) == MS
        assert s.take_back(MS) == 0
        assert s.deadline(MS) is None

    def test_they_come_back_before_younger_ones_in_the_order_of_arrival(self) -> None:
        s = scheduler(rows=3)
        now = 0
        for _ in range(3):
            arrive(s, 1, now)
        batches = [hand(s, now) for _ in range(3)]
        now += 10 * US
        for batch in batches:
            finish(s, batch, now)
        slots = arrive(s, 9, now)
        for _ in range(9):
            row, tasks = hand(s, now)
            if len(s.ring(row)) == 1:
                s.start(*tasks[0])
        slots += arrive(s, 2, now + 1)
        one = s.ring(1)[0]
        assert s.complete(1, one, s.task(one)["sequence"], now + 2) == 2
        assert s.take_back(now + MS + 2) == 4
        assert s.queue(0) == [slots[i] for i in (3, 5, 6, 8, 9, 10)], "of rows 0 and 2, woven together"
        assert s.ring(1) == [slots[4], slots[7]]

    def test_single_row_keeps_its_work(self) -> None:
        s = scheduler(2, 0)
        arrive(s, 2)
        batch = hand(s, 0)
        assert s.deadline(0) is None
        assert s.take_back(50 * MS) == 0
        assert s.deadline(50 * MS) is None
        start(s, batch)

    def test_nothing_is_taken_back_while_no_other_row_can_take_it(self) -> None:
        s = scheduler(rows=2)
        arrive(s, 2)
        start(s, hand(s, 0))
        hand(s, 0)
        assert s.deadline(0) is None
        assert s.take_back(5 * MS) == 0
        assert s.complete(0, 0, 1, 5 * MS) == 5 * MS
        assert s.take_back(5 * MS) == 1, "now there is one"
        assert hand(s, 5 * MS)[0] == 0

    def test_row_that_was_late_is_the_last_resort(self) -> None:
        s = scheduler(rows=2)
        arrive(s, 1)
        hand(s, 0)
        assert s.take_back(MS) == 1
        assert hand(s, MS)[0] == 1
        arrive(s, 2, MS)
        last = hand(s, MS)
        assert last[0] == 0, "no other choice"
        assert s.next_batch(0, MS) is None
        assert s.deadline(MS) is None
        assert s.take_back(9 * MS) == 0, "nowhere better to go"

    def test_late_row_that_answers_is_late_no_more(self) -> None:
        s = scheduler(rows=2)
        arrive(s, 1)
        hand(s, 0)
        s.take_back(MS)
        finish(s, hand(s, MS), 9 * MS)
        arrive(s, 2, 9 * MS)
        better, last = hand(s, 9 * MS), hand(s, 9 * MS)
        assert (better[0], last[0]) == (1, 0)
        finish(s, better, 10 * MS)
        finish(s, last, 10 * MS)
        for row in (1, 0):
            arrive(s, 1, 10 * MS)
            turn = hand(s, 10 * MS)
            assert turn[0] == row
            finish(s, turn, 10 * MS)

    def test_late_row_that_has_emptied_its_ring_is_alive(self) -> None:
        s = scheduler(rows=2, ring_capacity=8)
        arrive(s, 1)
        hand(s, 0)
        s.take_back(MS)
        s.set_room(0, 7)
        finish(s, hand(s, MS), MS + 1)
        s.set_room(0, 8)
        arrive(s, 1, 2 * MS)
        assert hand(s, 2 * MS)[0] == 0

    def test_row_that_may_have_emptied_its_ring_is_looked_at_again(self) -> None:
        s = scheduler(rows=2, ring_capacity=8)
        arrive(s, 1)
        hand(s, 0)
        s.take_back(MS)
        s.set_room(0, 7)
        assert hand(s, MS)[0] == 1
        assert s.take_back(2 * MS) == 0, "row 0 has yet to pop what was taken back from it"
        assert s.deadline(2 * MS) == 3 * MS, "and says nothing when it does"
        s.set_room(0, 8)
        assert s.deadline(3 * MS) == 2 * MS
        assert s.take_back(3 * MS) == 1
        assert hand(s, 3 * MS)[0] == 0
        assert s.deadline(3 * MS) == 4 * MS

    def test_row_that_has_emptied_its_ring_and_started_nothing_is_late(self) -> None:
        s = scheduler(rows=2, ring_capacity=8)
        arrive(s, 1)
        hand(s, 0)
        s.set_room(0, 8)
        assert s.take_back(MS) == 1
        assert hand(s, MS)[0] == 1

    def test_taken_back_from_a_busy_row_does_not_return_to_it(self) -> None:
        s = scheduler(rows=2)
        now = run(s, 10 * US, 0)
        slots = arrive(s, 2, now)
        other = hand(s, now)
        start(s, other)
        running = hand(s, now)
        start(s, running)
        slots += arrive(s, 1, now)
        assert hand(s, now)[0] == 0, "ahead: row 1 is not measured yet"
        finish(s, other, now + 10 * US)
        assert s.take_back(now + MS) == 1
        assert hand(s, now + MS)[0] == 1
        slots += arrive(s, 2, now + MS)
        assert hand(s, now + MS)[0] == 1
        assert s.row(0)["outstanding"] == 1


class TestRows:
    def test_death_spares_what_was_not_started(self) -> None:
        s = scheduler(2, 0, rows=2)
        slots = arrive(s, 4, 5)
        row, tasks = hand(s, 5)
        hand(s, 5)
        assert s.start(*tasks[1])
        slots += arrive(s, 1, 6)
        assert s.row_down(row) == [slots[1]]
        assert s.queue(0) == [slots[0], slots[4]]
        assert (s.task(slots[1])["state"], s.task(slots[1])["tries"], s.task(slots[0])["tries"]) == (NEW, 1, 0)
        down = s.row(row)
        assert (down["outstanding"], down["batches"], s.stage(0)["running"]) == (0, 0, 2)
        assert s.complete(row, *tasks[1], 9) is None

    def test_tries_are_of_the_task_and_not_of_the_slot(self) -> None:
        s = scheduler(retry=2)
        (slot,) = arrive(s, 1)
        for tries in (1, 2):
            start(s, hand(s, 0))
            assert s.row_down(0) == [slot]
            assert s.task(slot)["tries"] == tries
            s.row_up(0)
            assert s.retry(slot)
        s.withdraw(slot)
        s.free(slot)
        assert arrive(s, 1) == [slot]
        assert s.task(slot)["tries"] == 0

    def test_only_row_that_died_leaves_a_queue_for_the_next(self) -> None:
        s = scheduler()
        (slot,) = arrive(s, 1)
        hand(s, 0)
        assert s.row_down(0) == []
        assert s.queue(0) == [slot]
        assert s.next_batch(0, MS) is None
        assert s.deadline(MS) is None
        s.row_up(0)
        assert hand(s, 2 * MS) == (0, [(slot, 3)])

    def test_drained_row_finishes_what_it_started(self) -> None:
        s = scheduler(2, 0, rows=2)
        slots = arrive(s, 2)
        row, tasks = hand(s, 0)
        assert s.start(*tasks[0])
        s.row_drain(row)
        assert s.queue(0) == [slots[1]]
        assert s.ring(row) == [slots[0]]
        assert hand(s, 0)[0] == 1
        assert s.complete(row, *tasks[0], 9) == 9
        arrive(s, 1)
        assert s.next_batch(0, 9) is None, "row 0 is drained, row 1 is busy"


# ---- tasks whose row has died under them ---------------------------------------------------------


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
