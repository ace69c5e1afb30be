"""The rules of the batcher, one by one, with time given by hand (ns)."""

import pytest

from mosec_cy._scheduler import Scheduler

US = 1_000
MS = 1_000_000
FREE, NEW, QUEUED, HANDED = range(4)
Batch = tuple[int, list[tuple[int, int]]]


def scheduler(max_batch_size: int = 1, max_wait_ns: int = 0, rows: int = 1, **options: int) -> Scheduler:
    """One stage whose rows are up."""
    made = Scheduler([(max_batch_size, max_wait_ns, rows)], **options)
    for row in range(rows):
        made.row_up(row)
    return made


def arrive(s: Scheduler, count: int, now: int = 0, stage: int = 0) -> list[int]:
    slots = []
    for _ in range(count):
        slot = s.new()
        assert slot is not None
        s.enqueue(slot, stage, now)
        slots.append(slot)
    return slots


def hand(s: Scheduler, now: int, stage: int = 0) -> Batch:
    batch = s.next_batch(stage, now)
    assert batch is not None
    return batch


def slots_of(batch: Batch) -> list[int]:
    return [slot for slot, _ in batch[1]]


def start(s: Scheduler, batch: Batch) -> None:
    for slot, sequence in batch[1]:
        assert s.start(slot, sequence)


def finish(s: Scheduler, batch: Batch, now: int) -> int:
    """The row answers all tasks of a batch; the duration that the last one reports."""
    row, tasks = batch
    reported = [s.complete(row, slot, sequence, now) for slot, sequence in tasks]
    assert reported[:-1] == [0] * (len(tasks) - 1)
    for slot, _ in tasks:
        s.free(slot)
    return reported[-1]


def run(s: Scheduler, took: int, now: int, times: int = 1) -> int:
    """`times` batches of one task, each handed to an idle row 0 and answered `took` later; the time after."""
    for _ in range(times):
        arrive(s, 1, now)
        batch = hand(s, now)
        assert batch[0] == 0
        start(s, batch)
        now += took
        assert finish(s, batch, now) == took
    return now


class TestTasks:
    def test_a_freed_slot_is_the_next_to_be_used(self):
        s = scheduler()
        slots = [s.new() for _ in range(4)]
        assert slots == [0, 1, 2, 3]
        for slot in (1, 3, 0):
            s.free(slot)
        assert [s.new() for _ in range(4)] == [0, 3, 1, 4]

    def test_no_slot_is_left(self):
        s = scheduler(slots=3)
        assert [s.new() for _ in range(4)] == [0, 1, 2, None]
        s.free(1)
        assert [s.new(), s.new()] == [1, None]

    def test_an_id_dies_with_its_task(self):
        s = scheduler()
        old = s.id(s.new())
        assert s.find(old) == 0
        s.free(0)
        assert s.find(old) is None
        new = s.id(s.new())
        assert new & 0xFFFFFFFF == old & 0xFFFFFFFF and new != old
        assert s.find(old) is None and s.find(new) == 0

    def test_ids_of_no_task_are_not_found(self):
        s = scheduler(slots=4)
        s.free(s.new())
        next_id = 0 | 2 << 32
        assert [s.find(guess) for guess in (0, 1, next_id, 4 | 1 << 32, 2**64 - 1)] == [None] * 5
        assert s.id(s.new()) == next_id

    def test_sequence_outlives_the_task(self):
        s = scheduler()
        for turn in range(1, 4):
            arrive(s, 1)
            batch = hand(s, 0)
            assert batch == (0, [(0, turn)])
            finish(s, batch, 1)

    def test_wrong_states_are_refused(self):
        s = scheduler(slots=2)
        (slot,) = arrive(s, 1)
        for call in (lambda: s.free(slot), lambda: s.enqueue(slot, 0, 0), lambda: s.free(1), lambda: s.id(2),
                     lambda: s.enqueue(s.new(), 1, 0), lambda: s.row_up(1), lambda: s.next_batch(1, 0)):
            with pytest.raises(ValueError):
                call()
        assert s.queue(0) == [slot]


class TestClosing:
    def test_batch_of_one_goes_at_once(self):
        s = scheduler(1, 10 * MS)
        (slot,) = arrive(s, 1, 5)
        assert hand(s, 5) == (0, [(slot, 1)])

    def test_full_batch_goes_at_once_in_order_of_arrival(self):
        s = scheduler(4, 10 * MS)
        slots = arrive(s, 3, 5)
        assert s.next_batch(0, 6) is None
        slots += arrive(s, 2, 7)
        assert slots_of(hand(s, 7)) == slots[:4]
        assert s.queue(0) == slots[4:]

    def test_partial_batch_goes_when_its_oldest_has_waited(self):
        s = scheduler(4, 10 * MS)
        slots = arrive(s, 1, 5) + arrive(s, 1, 3 * MS)
        assert s.deadline(3 * MS) == 10 * MS + 5
        assert s.next_batch(0, 10 * MS + 4) is None
        assert slots_of(hand(s, 10 * MS + 5)) == slots

    def test_without_wait_whatever_is_there_goes(self):
        s = scheduler(4, 0)
        slots = arrive(s, 2, 5)
        assert slots_of(hand(s, 5)) == slots

    def test_endless_wait_is_no_deadline(self):
        s = scheduler(2, 2**64 - 1)
        arrive(s, 1, 5)
        assert s.next_batch(0, 2**62) is None and s.deadline(2**62) is None
        arrive(s, 1, 2**62)
        assert s.next_batch(0, 2**62) is not None

    def test_burst_of_one_batch_is_not_split_between_idle_rows(self):
        s = scheduler(8, 10 * MS, rows=4)
        slots = []
        for i in range(8):
            slots += arrive(s, 1, i * US)
            batch = s.next_batch(0, i * US)
            assert (batch is None) == (i < 7)
        assert batch is not None and slots_of(batch) == slots
        assert [s.row(row)["outstanding"] for row in range(4)] == [8, 0, 0, 0]

    def test_large_burst_goes_as_whole_batches_to_one_row_each(self):
        s = scheduler(8, 10 * MS, rows=4)
        arrive(s, 27, 0)
        batches = [hand(s, 0) for _ in range(3)]
        assert [(row, len(tasks)) for row, tasks in batches] == [(0, 8), (1, 8), (2, 8)]
        assert s.next_batch(0, 0) is None
        assert hand(s, 10 * MS)[0] == 3

    def test_stages_do_not_mix(self):
        s = Scheduler([(1, 0, 1), (2, 0, 1)])
        s.row_up(0)
        s.row_up(1)
        first = arrive(s, 1, 0, stage=0)
        second = arrive(s, 2, 0, stage=1)
        assert hand(s, 0, stage=1) == (1, [(slot, 1) for slot in second])
        assert hand(s, 0, stage=0) == (0, [(slot, 1) for slot in first])

    def test_task_goes_through_stages_in_one_slot(self):
        s = Scheduler([(1, 0, 1), (1, 0, 1)])
        s.row_up(0)
        s.row_up(1)
        (slot,) = arrive(s, 1)
        row, ((_, sequence),) = hand(s, 0, stage=0)
        assert s.start(slot, sequence) and s.complete(row, slot, sequence, 9) == 9
        s.enqueue(slot, 1, 9)
        assert hand(s, 9, stage=1) == (1, [(slot, 2)])

    def test_rows_that_are_down_get_nothing(self):
        s = Scheduler([(1, 0, 2)])
        arrive(s, 1, 0)
        assert s.next_batch(0, 0) is None and s.deadline(0) is None
        s.row_up(1)
        assert hand(s, 0)[0] == 1


class TestHandAhead:
    def test_nothing_ahead_before_the_first_measurement(self):
        s = scheduler()
        arrive(s, 2)
        hand(s, 0)
        assert s.next_batch(0, 0) is None and s.deadline(0) is None

    @pytest.mark.parametrize(("took", "ahead"), [
        (4 * US, 25),  # 25 * 4 us is just the measured work that may wait
        (10 * US, 10),
        (60 * US, 1),
        (900 * US, 1),  # one may always wait
        (1 * MS, 1),
        (1 * MS + 1, 0),
        (20 * MS, 0),
    ])
    def test_measured_work_that_waits_in_a_busy_ring_is_bounded(self, took: int, ahead: int):
        s = scheduler()
        now = run(s, took, 0, times=3)
        arrive(s, 64, now)
        handed = 0
        while s.next_batch(0, now):
            handed += 1
        assert handed == 1 + ahead

    def test_ahead_follows_the_closing_rule(self):
        s = scheduler(4, 50 * US)
        now = run_batch(s, 4, 10 * US, 0)
        arrive(s, 7, now)
        assert len(hand(s, now)[1]) == 4
        assert s.next_batch(0, now + 49 * US) is None
        assert s.deadline(now + 49 * US) == now + 50 * US
        assert len(hand(s, now + 50 * US)[1]) == 3

    def test_idle_row_is_preferred_then_fewest_batches(self):
        s = scheduler(rows=2)
        now = run(s, 10 * US, 0)
        arrive(s, 2, now)
        one, other = hand(s, now), hand(s, now)
        now += 10 * US
        finish(s, one, now)
        finish(s, other, now)
        arrive(s, 6, now)
        assert [hand(s, now)[0] for _ in range(6)] == [0, 1, 0, 1, 0, 1]

    def test_row_whose_running_batch_has_become_slow_gets_nothing_ahead(self):
        s = scheduler()
        now = run(s, 10 * US, 0, times=3)
        arrive(s, 1, now)
        hand(s, now)
        arrive(s, 1, now)
        assert s.next_batch(0, now + MS + 1) is None and s.deadline(now + MS + 1) is None
        assert s.next_batch(0, now + MS) is not None

    def test_ring_bounds_what_is_handed_ahead(self):
        s = scheduler(ring_capacity=4)
        now = run(s, 10 * US, 0)
        s.set_room(0, 4)
        arrive(s, 8, now)
        assert [s.next_batch(0, now) is not None for _ in range(5)] == [True] * 4 + [False]
        s.set_room(0, 1)
        assert s.next_batch(0, now) is not None and s.next_batch(0, now) is None

    def test_batch_that_does_not_fit_is_not_split(self):
        s = scheduler(4, 0, ring_capacity=4)
        arrive(s, 4)
        s.set_room(0, 3)
        assert s.next_batch(0, 0) is None
        assert s.deadline(0) == MS, "nobody tells when an idle row pops stale descriptors: look again"
        s.set_room(0, 4)
        assert len(hand(s, 0)[1]) == 4


def run_batch(s: Scheduler, size: int, took: int, now: int) -> int:
    arrive(s, size, now)
    batch = hand(s, now)
    assert len(batch[1]) == size
    start(s, batch)
    assert finish(s, batch, now + took) == took
    return now + took


class TestMeasurement:
    def test_batch_ends_with_its_last_task_in_any_order(self):
        s = scheduler(3, 0)
        arrive(s, 3, 0)
        row, tasks = batch = hand(s, 0)
        start(s, batch)
        order = [tasks[1], tasks[0], tasks[2]]
        assert [s.complete(row, *task, 7 + i) for i, task in enumerate(order)] == [0, 0, 9]
        assert s.row(0)["batches"] == 0 and s.row(0)["batch_ns"] == 9

    def test_a_batch_behind_another_is_measured_from_where_that_one_ended(self):
        s = scheduler()
        now = run(s, 10 * US, 0)
        arrive(s, 2, now)
        first, second = hand(s, now), hand(s, now)
        assert finish(s, first, now + 12 * US) == 12 * US
        assert finish(s, second, now + 20 * US) == 8 * US

    def test_completions_seen_together_are_measured_together(self):
        s = scheduler()
        now = run(s, 10 * US, 0)
        for _ in range(20):
            s.set_room(0, 64)
            arrive(s, 10, now)
            batches = [hand(s, now) for _ in range(10)]
            now += 100 * US
            for batch in batches:
                finish(s, batch, now)
                assert 9 * US <= s.row(0)["batch_ns"] <= 20 * US
        assert s.row(0)["batch_ns"] == 10 * US

    def test_one_pause_does_not_end_hand_ahead(self):
        s = scheduler()
        now = run(s, 10 * US, 0, times=10)
        now = run(s, 500 * MS, now)
        assert s.row(0)["batch_ns"] == 20 * US
        run(s, 10 * US, now, times=20)
        assert s.row(0)["batch_ns"] < 11 * US

    def test_slow_regime_is_followed_within_tens_of_batches(self):
        s = scheduler()
        now = run(s, 4 * US, 0, times=10)
        run(s, 10 * MS, now, times=10)
        assert s.row(0)["batch_ns"] > MS

    def test_fast_regime_is_followed_within_tens_of_batches(self):
        s = scheduler()
        now = run(s, 10 * MS, 0, times=10)
        run(s, 4 * US, now, times=50)
        assert s.row(0)["batch_ns"] < 25 * US

    def test_new_process_of_a_row_is_measured_anew(self):
        s = scheduler()
        run(s, 10 * US, 0)
        s.row_down(0)
        s.row_up(0)
        assert s.row(0)["batch_ns"] == 0


class TestAnswers:
    def test_only_the_row_that_has_the_task_answers_it_and_once(self):
        s = scheduler(rows=2)
        (slot,) = arrive(s, 1)
        assert hand(s, 0) == (0, [(slot, 1)])
        wrong = [(1, slot, 1), (0, slot, 0), (0, slot, 2), (0, slot + 1, 1), (0, 2**32 - 1, 1), (7, slot, 1)]
        for answer in wrong:
            assert not s.holds(*answer) and s.complete(*answer, 5) is None
        assert s.holds(0, slot, 1) and s.complete(0, slot, 1, 5) == 5
        assert s.complete(0, slot, 1, 6) is None
        assert s.task(slot)["state"] == NEW

    def test_stale_answer_does_not_reach_the_next_task_of_the_slot(self):
        s = scheduler()
        (slot,) = arrive(s, 1)
        finish(s, hand(s, 0), 5)
        assert arrive(s, 1) == [slot]
        hand(s, 5)
        assert s.complete(0, slot, 1, 6) is None and s.complete(0, slot, 2, 6) == 1


class TestWithdraw:
    def test_from_the_middle_of_the_queue(self):
        s = scheduler(2, 10 * MS)
        slots = arrive(s, 1, 1) + arrive(s, 1, 2)
        s.row_drain(0)
        slots += arrive(s, 1, 3)
        assert s.withdraw(slots[1])
        assert s.queue(0) == [slots[0], slots[2]] and s.task(slots[1])["state"] == NEW
        s.row_up(0)
        assert slots_of(hand(s, 3)) == [slots[0], slots[2]]

    def test_of_the_oldest_moves_the_deadline(self):
        s = scheduler(4, 10 * MS)
        slots = arrive(s, 1, 1) + arrive(s, 1, 2)
        assert s.withdraw(slots[0]) and s.deadline(2) == 10 * MS + 2
        assert s.withdraw(slots[1]) and s.deadline(2) is None

    def test_handed_but_not_started(self):
        s = scheduler(2, 0)
        slots = arrive(s, 2)
        _, ((_, sequence), (_, other)) = hand(s, 0)
        assert s.withdraw(slots[0])
        assert not s.start(slots[0], sequence), "the row skips it"
        assert s.start(slots[1], other)
        assert s.complete(0, slots[0], sequence, 5) is None
        assert s.complete(0, slots[1], other, 5) == 5, "the batch ends without it"

    def test_last_of_its_batch(self):
        s = scheduler()
        (slot,) = arrive(s, 1)
        hand(s, 0)
        assert s.withdraw(slot)
        row = s.row(0)
        assert (row["batches"], row["outstanding"], row["batch_ns"]) == (0, 0, 0)
        assert s.stage(0)["running"] == 0

    def test_started_one_is_told(self):
        s = scheduler()
        (slot,) = arrive(s, 1)
        batch = hand(s, 0)
        start(s, batch)
        assert not s.cancelled(slot, 1)
        assert not s.withdraw(slot)
        assert s.cancelled(slot, 1) and not s.cancelled(slot, 2)
        assert s.task(slot)["state"] == HANDED and s.holds(0, slot, 1)
        assert finish(s, batch, 5) == 5

    def test_new_one_is_out_already(self):
        s = scheduler()
        slot = s.new()
        assert s.withdraw(slot) and s.task(slot)["state"] == NEW


class TestTakeBack:
    def test_what_an_idle_row_does_not_start_moves_to_another(self):
        s = scheduler(2, 0, rows=2)
        slots = arrive(s, 2, 5)
        hand(s, 5)
        assert s.deadline(5) == MS + 5
        assert s.take_back(MS + 4) == 0 and s.take_back(MS + 5) == 2
        assert hand(s, MS + 5) == (1, [(slot, 3) for slot in slots])

    def test_stale_descriptor_does_not_start_the_next_hand_out(self):
        s = scheduler(rows=2)
        (slot,) = arrive(s, 1)
        stale = hand(s, 0)
        s.take_back(MS)
        fresh = hand(s, MS)
        assert not s.start(*stale[1][0])
        assert s.start(*fresh[1][0]) and not s.start(*fresh[1][0])
        assert s.complete(0, *stale[1][0], 2 * MS) is None
        assert s.complete(1, *fresh[1][0], 2 * MS) == MS

    def test_started_tasks_stay(self):
        s = scheduler(3, 0, rows=2)
        slots = arrive(s, 3)
        row, tasks = hand(s, 0)
        assert s.start(*tasks[1])
        assert s.take_back(MS) == 2
        assert s.queue(0) == [slots[0], slots[2]] and s.ring(0) == [slots[1]]
        assert s.row(0)["batches"] == 1
        assert s.complete(row, *tasks[1], 2 * MS) == 2 * MS
        assert s.row(0)["batches"] == 0

    def test_a_running_batch_is_looked_at_once(self):
        s = scheduler(2, 0, rows=2)
        arrive(s, 2)
        start(s, hand(s, 0))
        assert s.deadline(0) == MS
        assert s.take_back(MS) == 0 and s.deadline(MS) is None

    def test_they_come_back_before_younger_ones_in_the_order_of_arrival(self):
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

    def test_single_row_keeps_its_work(self):
        s = scheduler(2, 0)
        arrive(s, 2)
        batch = hand(s, 0)
        assert s.deadline(0) is None
        assert s.take_back(50 * MS) == 0 and s.deadline(50 * MS) is None
        start(s, batch)

    def test_nothing_is_taken_back_while_no_other_row_can_take_it(self):
        s = scheduler(rows=2)
        arrive(s, 2)
        start(s, hand(s, 0))
        batch = hand(s, 0)
        assert s.deadline(0) is None and s.take_back(5 * MS) == 0
        row, tasks = batch
        assert s.complete(0, 0, 1, 5 * MS) == 5 * MS
        assert s.take_back(5 * MS) == 1, "now there is one"
        assert hand(s, 5 * MS)[0] == 0

    def test_row_that_was_late_is_the_last_resort(self):
        s = scheduler(rows=2)
        arrive(s, 1)
        hand(s, 0)
        assert s.take_back(MS) == 1
        assert hand(s, MS)[0] == 1
        arrive(s, 2, MS)
        last = hand(s, MS)
        assert last[0] == 0, "no other choice"
        assert s.next_batch(0, MS) is None
        assert s.deadline(MS) is None and s.take_back(9 * MS) == 0, "nowhere better to go"

    def test_late_row_that_answers_is_late_no_more(self):
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
        arrive(s, 1, 10 * MS)
        assert hand(s, 10 * MS)[0] == 0

    def test_late_row_that_has_emptied_its_ring_is_alive(self):
        s = scheduler(rows=2, ring_capacity=8)
        arrive(s, 1)
        hand(s, 0)
        s.take_back(MS)
        s.set_room(0, 7)
        finish(s, hand(s, MS), MS + 1)
        s.set_room(0, 8)
        arrive(s, 1, 2 * MS)
        assert hand(s, 2 * MS)[0] == 0

    def test_taken_back_from_a_busy_row_does_not_return_to_it(self):
        s = scheduler(rows=2)
        now = run(s, 10 * US, 0)
        slots = arrive(s, 2, now)
        running = hand(s, now)
        start(s, running)
        other = hand(s, now)
        start(s, other)
        slots += arrive(s, 1, now)
        assert hand(s, now)[0] == 0, "ahead: row 1 is not measured yet"
        finish(s, other, now + 10 * US)
        assert s.take_back(now + MS) == 1
        assert hand(s, now + MS)[0] == 1
        slots += arrive(s, 2, now + MS)
        assert hand(s, now + MS)[0] == 1 and s.row(0)["outstanding"] == 1


class TestRows:
    def test_death_spares_what_was_not_started(self):
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

    def test_tries_are_of_the_task_and_not_of_the_slot(self):
        s = scheduler()
        (slot,) = arrive(s, 1)
        for tries in (1, 2):
            start(s, hand(s, 0))
            assert s.row_down(0) == [slot] and s.task(slot)["tries"] == tries
            s.row_up(0)
            s.enqueue(slot, 0, 0)
        s.withdraw(slot)
        s.free(slot)
        assert s.task(s.new())["tries"] == 0

    def test_only_row_that_died_leaves_a_queue_for_the_next(self):
        s = scheduler()
        (slot,) = arrive(s, 1)
        hand(s, 0)
        assert s.row_down(0) == [] and s.queue(0) == [slot]
        assert s.next_batch(0, MS) is None and s.deadline(MS) is None
        s.row_up(0)
        assert hand(s, 2 * MS) == (0, [(slot, 3)])

    def test_drained_row_finishes_what_it_started(self):
        s = scheduler(2, 0, rows=2)
        slots = arrive(s, 2)
        row, tasks = hand(s, 0)
        assert s.start(*tasks[0])
        s.row_drain(row)
        assert s.queue(0) == [slots[1]] and s.ring(row) == [slots[0]]
        assert hand(s, 0)[0] == 1
        assert s.complete(row, *tasks[0], 9) == 9
        arrive(s, 1)
        assert s.next_batch(0, 9) is None, "row 0 is drained, row 1 is busy"
