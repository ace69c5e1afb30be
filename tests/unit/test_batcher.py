"""The rules of the batcher for tasks: entries, closing of batches, answers, withdrawal, and which slot is next."""

import struct

import pytest

from tests.drivers.batcher import Scheduler
from tests.unit.scheduling import (
    DISPATCHED,
    MS,
    NEW,
    US,
    Batch,
    arrive,
    dispatch,
    entries_of,
    finish,
    scheduler,
    start,
)


class TestTasks:
    def test_a_freed_slot_is_the_next_to_be_used(self) -> None:
        s = scheduler()
        entries = [s.new() for _ in range(4)]
        assert entries == [0, 1, 2, 3]
        for entry in (1, 3, 0):
            s.free(entry)
        assert [s.new() for _ in range(4)] == [0, 3, 1, 4]

    def test_no_slot_is_left(self) -> None:
        s = scheduler(max_tasks=3)
        assert [s.new() for _ in range(4)] == [0, 1, 2, None]
        s.free(1)
        assert [s.new(), s.new()] == [1, None]

    def test_an_id_dies_with_its_task(self) -> None:
        s = scheduler()
        old = s.id(s.new())
        assert s.find(old) == 0
        s.free(0)
        assert s.find(old) is None
        new = s.id(s.new())
        assert new & 0xFFFFFFFF == old & 0xFFFFFFFF
        assert new != old
        assert s.find(old) is None
        assert s.find(new) == 0

    def test_ids_of_no_task_are_not_found(self) -> None:
        s = scheduler(max_tasks=4)
        s.free(s.new())
        next_id = 0 | 2 << 32
        assert [s.find(guess) for guess in (0, 1, next_id, 4 | 1 << 32, 2**64 - 1)] == [None] * 5
        assert s.id(s.new()) == next_id

    def test_sequence_outlives_the_task(self) -> None:
        s = scheduler()
        for turn in range(1, 4):
            arrive(s, 1)
            batch = dispatch(s, 0)
            assert batch == (0, [(0, turn)])
            finish(s, batch, 1)

    def test_wrong_states_are_refused(self) -> None:
        s = scheduler(max_tasks=2)
        (entry,) = arrive(s, 1)
        for call in (
            lambda: s.free(entry),
            lambda: s.enqueue(entry, 0, 0),
            lambda: s.free(1),
            lambda: s.id(2),
            lambda: s.enqueue(s.new(), 1, 0),
            lambda: s.slot_up(1),
            lambda: s.next_batch(1, 0),
        ):
            with pytest.raises(ValueError):
                call()
        assert s.queue(0) == [entry]


class TestClosing:
    def test_batch_of_one_goes_at_once(self) -> None:
        s = scheduler(1, 10 * MS)
        (entry,) = arrive(s, 1, 5)
        assert dispatch(s, 5) == (0, [(entry, 1)])

    def test_full_batch_goes_at_once_in_order_of_arrival(self) -> None:
        s = scheduler(4, 10 * MS)
        entries = arrive(s, 3, 5)
        assert s.next_batch(0, 6) is None
        entries += arrive(s, 2, 7)
        assert entries_of(dispatch(s, 7)) == entries[:4]
        assert s.queue(0) == entries[4:]

    def test_partial_batch_goes_when_its_oldest_has_waited(self) -> None:
        s = scheduler(4, 10 * MS)
        entries = arrive(s, 1, 5) + arrive(s, 1, 3 * MS)
        assert s.deadline(3 * MS) == 10 * MS + 5
        assert s.next_batch(0, 10 * MS + 4) is None
        assert entries_of(dispatch(s, 10 * MS + 5)) == entries

    def test_without_wait_whatever_is_there_goes(self) -> None:
        s = scheduler(4, 0)
        entries = arrive(s, 2, 5)
        assert entries_of(dispatch(s, 5)) == entries

    def test_endless_wait_is_no_deadline(self) -> None:
        s = scheduler(2, 2**64 - 1)
        arrive(s, 1, 5)
        assert s.next_batch(0, 2**62) is None
        assert s.deadline(2**62) is None
        arrive(s, 1, 2**62)
        assert s.next_batch(0, 2**62) is not None

    def test_burst_of_one_batch_is_not_split_between_idle_slots(self) -> None:
        s = scheduler(8, 10 * MS, slots=4)
        entries = []
        for i in range(8):
            entries += arrive(s, 1, i * US)
            batch = s.next_batch(0, i * US)
            assert (batch is None) == (i < 7)
        assert batch is not None
        assert entries_of(batch) == entries
        assert [s.slot(slot)["outstanding"] for slot in range(4)] == [8, 0, 0, 0]

    def test_large_burst_goes_as_whole_batches_to_one_slot_each(self) -> None:
        s = scheduler(8, 10 * MS, slots=4)
        arrive(s, 27, 0)
        batches = [dispatch(s, 0) for _ in range(3)]
        assert [(slot, len(tasks)) for slot, tasks in batches] == [(0, 8), (1, 8), (2, 8)]
        assert s.next_batch(0, 0) is None
        assert dispatch(s, 10 * MS)[0] == 3

    def test_stages_do_not_mix(self) -> None:
        s = Scheduler([(1, 0, 1), (2, 0, 1)])
        s.slot_up(0)
        s.slot_up(1)
        first = arrive(s, 1, 0, stage=0)
        second = arrive(s, 2, 0, stage=1)
        assert dispatch(s, 0, stage=1) == (1, [(entry, 1) for entry in second])
        assert dispatch(s, 0, stage=0) == (0, [(entry, 1) for entry in first])

    def test_task_goes_through_stages_in_one_slot(self) -> None:
        s = Scheduler([(1, 0, 1), (1, 0, 1)])
        s.slot_up(0)
        s.slot_up(1)
        (entry,) = arrive(s, 1)
        slot, ((_, sequence),) = dispatch(s, 0, stage=0)
        assert s.start(entry, sequence)
        assert s.complete(slot, entry, sequence, 9) == 9
        s.enqueue(entry, 1, 9)
        assert dispatch(s, 9, stage=1) == (1, [(entry, 2)])

    def test_slots_that_are_down_get_nothing(self) -> None:
        s = Scheduler([(1, 0, 2)])
        arrive(s, 1, 0)
        assert s.next_batch(0, 0) is None
        assert s.deadline(0) is None
        s.slot_up(1)
        assert dispatch(s, 0)[0] == 1


class TestAnswers:
    def test_only_the_slot_that_has_the_task_answers_it_and_once(self) -> None:
        s = scheduler(slots=2)
        (entry,) = arrive(s, 1)
        assert dispatch(s, 0) == (0, [(entry, 1)])
        wrong = [(1, entry, 1), (0, entry, 0), (0, entry, 2), (0, entry + 1, 1), (0, 2**32 - 1, 1), (7, entry, 1)]
        for answer in wrong:
            assert not s.holds(*answer)
            assert s.complete(*answer, 5) is None
        assert s.holds(0, entry, 1)
        assert s.complete(0, entry, 1, 5) == 5
        assert s.complete(0, entry, 1, 6) is None
        assert s.task(entry)["state"] == NEW

    def test_stale_answer_does_not_reach_the_next_task_of_the_slot(self) -> None:
        s = scheduler()
        (entry,) = arrive(s, 1)
        finish(s, dispatch(s, 0), 5)
        assert arrive(s, 1) == [entry]
        dispatch(s, 5)
        assert s.complete(0, entry, 1, 6) is None
        assert s.complete(0, entry, 2, 6) == 1


class TestWord:
    def test_word_through_the_life_of_its_task(self) -> None:
        words = bytearray(8)
        s = Scheduler([(1, 0, 1)], max_tasks=1, words=words)
        s.slot_up(0)

        def word() -> tuple[int, int]:
            flags, sequence = struct.unpack("=II", words)
            return sequence, flags

        (entry,) = arrive(s, 1)
        assert word() == (0, 0)
        dispatch(s, 0)
        assert word() == (1, 1), "dispatched"
        s.slot_drain(0)
        assert word() == (2, 0), "reclaimed"
        s.slot_up(0)
        batch = dispatch(s, 0)
        assert word() == (3, 1)
        start(s, batch)
        assert word() == (3, 2), "started"
        assert not s.withdraw(entry)
        assert word() == (3, 6), "cancelled"


class TestWithdraw:
    def test_from_the_middle_of_the_queue(self) -> None:
        s = scheduler(2, 10 * MS)
        entries = arrive(s, 1, 1) + arrive(s, 1, 2)
        s.slot_drain(0)
        entries += arrive(s, 1, 3)
        assert s.withdraw(entries[1])
        assert s.queue(0) == [entries[0], entries[2]]
        assert s.task(entries[1])["state"] == NEW
        s.slot_up(0)
        assert entries_of(dispatch(s, 3)) == [entries[0], entries[2]]

    def test_of_the_oldest_moves_the_deadline(self) -> None:
        s = scheduler(4, 10 * MS)
        entries = arrive(s, 1, 1) + arrive(s, 1, 2)
        assert s.withdraw(entries[0])
        assert s.deadline(2) == 10 * MS + 2
        assert s.withdraw(entries[1])
        assert s.deadline(2) is None

    def test_dispatched_but_not_started(self) -> None:
        s = scheduler(2, 0)
        entries = arrive(s, 2)
        _, ((_, sequence), (_, other)) = dispatch(s, 0)
        assert s.withdraw(entries[0])
        assert not s.start(entries[0], sequence), "the slot skips it"
        assert s.start(entries[1], other)
        assert s.complete(0, entries[0], sequence, 5) is None
        assert s.complete(0, entries[1], other, 5) == 5, "the batch ends without it"

    def test_last_of_its_batch(self) -> None:
        s = scheduler()
        (entry,) = arrive(s, 1)
        dispatch(s, 0)
        assert s.withdraw(entry)
        slot = s.slot(0)
        assert (slot["batches"], slot["outstanding"], slot["batch_ns"]) == (0, 0, 0)
        assert s.stage(0)["running"] == 0

    def test_started_one_is_told(self) -> None:
        s = scheduler()
        (entry,) = arrive(s, 1)
        batch = dispatch(s, 0)
        start(s, batch)
        assert not s.cancelled(entry, 1)
        assert not s.withdraw(entry)
        assert s.cancelled(entry, 1)
        assert not s.cancelled(entry, 2)
        assert s.task(entry)["state"] == DISPATCHED
        assert s.holds(0, entry, 1)
        assert finish(s, batch, 5) == 5

    def test_new_one_is_out_already(self) -> None:
        s = scheduler()
        entry = s.new()
        assert s.withdraw(entry)
        assert s.task(entry)["state"] == NEW


class TestSlotsThatAreUp:
    def test_only_they_are_looked_at(self) -> None:
        """A stage of one worker pays nothing for its spare slot."""
        s = Scheduler([(1, 0, 2), (1, 0, 3)])
        assert (s.up(0), s.up(1)) == ([], [])
        for slot in (0, 3, 1, 4, 4):
            s.slot_up(slot)
        assert (s.up(0), s.up(1)) == ([0, 1], [3, 4])
        s.slot_drain(0)
        s.slot_up(2)
        s.slot_down(3)
        s.slot_down(3)
        assert (s.up(0), s.up(1)) == ([1], [4, 2])
        assert [s.stage(stage)["slots"] for stage in (0, 1)] == [1, 2]

    def test_the_slot_that_was_given_a_batch_the_longest_ago_is_first(self) -> None:
        s = scheduler(slots=3)
        order = s.up(0)
        for slot in order * 2:
            arrive(s, 1)
            finish(s, dispatch(s, 0), 0)
            assert s.up(0)[-1] == slot

    def test_a_stage_moves_to_another_slot(self) -> None:
        s = Scheduler([(1, 0, 2)])
        s.slot_up(0)
        arrive(s, 3)
        before = dispatch(s, 0)
        start(s, before)
        s.slot_up(1)
        s.slot_drain(0)
        after = dispatch(s, 0)
        assert (before[0], after[0]) == (0, 1)
        finish(s, before, US)
        assert s.next_batch(0, US) is None  # the slot that is idle now is not up
        start(s, after)
        finish(s, after, US)
        assert dispatch(s, US)[0] == 1


# ---- which idle slot gets the next batch ----------------------------------------------------------


def one_after_another(s: Scheduler, count: int, now: int = 0, step: int = US) -> list[int]:
    """The slots of so many batches of one task, each answered before the next one comes."""
    slots = []
    for _ in range(count):
        arrive(s, 1, now)
        batch = dispatch(s, now)
        slots.append(batch[0])
        start(s, batch)
        now += step
        finish(s, batch, now)
    return slots


def begin(s: Scheduler, now: int = 0) -> Batch:
    arrive(s, 1, now)
    batch = dispatch(s, now)
    start(s, batch)
    return batch


@pytest.mark.parametrize("step", [0, US, 20 * MS])
def test_they_go_round(step: int) -> None:
    """Whatever the clock says, also nothing."""
    assert one_after_another(scheduler(slots=4), 9, step=step) == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_one_slot_has_every_turn() -> None:
    assert one_after_another(scheduler(), 3) == [0, 0, 0]


def test_batches_go_round_as_tasks_do() -> None:
    s = scheduler(4, 0, slots=2)
    slots = []
    for now in range(4):
        arrive(s, 4, now)
        batch = dispatch(s, now)
        slots.append((batch[0], len(batch[1])))
        finish(s, batch, now)
    assert slots == [(0, 4), (1, 4), (0, 4), (1, 4)]


def test_who_was_busy_for_long_is_not_passed_over() -> None:
    s = scheduler(slots=3)
    long = begin(s)
    assert one_after_another(s, 3) == [1, 2, 1]
    finish(s, long, 5 * MS)
    assert one_after_another(s, 4, 5 * MS) == [0, 2, 1, 0]


def test_what_counts_is_the_dispatch_not_the_answer() -> None:
    s = scheduler(slots=3)
    batches = [begin(s) for _ in range(3)]
    for slot in (2, 0, 1):
        finish(s, batches[slot], US)
    assert one_after_another(s, 3, US) == [0, 1, 2]


def test_stages_go_round_apart() -> None:
    s = Scheduler([(1, 0, 2), (1, 0, 2)])
    for slot in range(4):
        s.slot_up(slot)
    slots = []
    for now in range(3):
        for stage in (0, 1):
            arrive(s, 1, now, stage)
            batch = dispatch(s, now, stage)
            slots.append(batch[0])
            finish(s, batch, now)
    assert slots == [0, 2, 1, 3, 0, 2]


def test_a_new_process_comes_after_the_others() -> None:
    """Its predecessor's last turn is not its own."""
    s = scheduler(slots=3)
    assert one_after_another(s, 5) == [0, 1, 2, 0, 1]
    s.slot_down(1)
    assert one_after_another(s, 3) == [2, 0, 2], "a dead one has no turn"
    s.slot_up(1)
    assert one_after_another(s, 4) == [0, 2, 1, 0]


def test_a_roll_goes_on_with_those_that_are_up() -> None:
    """Slots are replaced one by one by spare ones, as in a rolling restart."""
    s = Scheduler([(1, 0, 4)])
    s.slot_up(0)
    s.slot_up(1)
    assert one_after_another(s, 3) == [0, 1, 0]
    s.slot_up(2)
    s.slot_drain(0)
    assert one_after_another(s, 4) == [1, 2, 1, 2]
    s.slot_up(3)
    s.slot_drain(1)
    assert one_after_another(s, 4) == [2, 3, 2, 3]


def test_one_that_is_late_waits_until_the_others_have_none_idle() -> None:
    s = scheduler(slots=2)
    arrive(s, 1)
    assert dispatch(s, 0)[0] == 0
    s.reclaim(MS)
    assert one_after_another(s, 3, MS) == [1, 1, 1]
