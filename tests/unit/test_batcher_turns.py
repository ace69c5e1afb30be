"""Which idle row gets the next batch: the one that was handed one the longest ago, so that all stay warm."""

import pytest

from tests.unit.scheduling import MS, US, Batch, Scheduler, arrive, finish, hand, scheduler, start


def one_after_another(s: Scheduler, count: int, now: int = 0, step: int = US) -> list[int]:
    """The rows of so many batches of one task, each answered before the next one comes."""
    rows = []
    for _ in range(count):
        arrive(s, 1, now)
        batch = hand(s, now)
        rows.append(batch[0])
        start(s, batch)
        now += step
        finish(s, batch, now)
    return rows


def begin(s: Scheduler, now: int = 0) -> Batch:
    arrive(s, 1, now)
    batch = hand(s, now)
    start(s, batch)
    return batch


@pytest.mark.parametrize("step", [0, US, 20 * MS])
def test_they_go_round(step: int) -> None:
    """Whatever the clock says, also nothing."""
    assert one_after_another(scheduler(rows=4), 9, step=step) == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_one_row_has_every_turn() -> None:
    assert one_after_another(scheduler(), 3) == [0, 0, 0]


def test_batches_go_round_as_tasks_do() -> None:
    s = scheduler(4, 0, rows=2)
    rows = []
    for now in range(4):
        arrive(s, 4, now)
        batch = hand(s, now)
        rows.append((batch[0], len(batch[1])))
        finish(s, batch, now)
    assert rows == [(0, 4), (1, 4), (0, 4), (1, 4)]


def test_who_was_busy_for_long_is_not_passed_over() -> None:
    s = scheduler(rows=3)
    long = begin(s)
    assert one_after_another(s, 3) == [1, 2, 1]
    finish(s, long, 5 * MS)
    assert one_after_another(s, 4, 5 * MS) == [0, 2, 1, 0]


def test_what_counts_is_the_hand_out_not_the_answer() -> None:
    s = scheduler(rows=3)
    batches = [begin(s) for _ in range(3)]
    for row in (2, 0, 1):
        finish(s, batches[row], US)
    assert one_after_another(s, 3, US) == [0, 1, 2]


def test_stages_go_round_apart() -> None:
    s = Scheduler([(1, 0, 2), (1, 0, 2)])
    for row in range(4):
        s.row_up(row)
    rows = []
    for now in range(3):
        for stage in (0, 1):
            arrive(s, 1, now, stage)
            batch = hand(s, now, stage)
            rows.append(batch[0])
            finish(s, batch, now)
    assert rows == [0, 2, 1, 3, 0, 2]


def test_a_new_process_comes_after_the_others() -> None:
    """Its predecessor's last turn is not its own."""
    s = scheduler(rows=3)
    assert one_after_another(s, 5) == [0, 1, 2, 0, 1]
    s.row_down(1)
    assert one_after_another(s, 3) == [2, 0, 2], "a dead one has no turn"
    s.row_up(1)
    assert one_after_another(s, 4) == [0, 2, 1, 0]


def test_a_roll_goes_on_with_those_that_are_up() -> None:
    """Rows are replaced one by one by spare ones, as in a rolling restart."""
    s = Scheduler([(1, 0, 4)])
    s.row_up(0)
    s.row_up(1)
    assert one_after_another(s, 3) == [0, 1, 0]
    s.row_up(2)
    s.row_drain(0)
    assert one_after_another(s, 4) == [1, 2, 1, 2]
    s.row_up(3)
    s.row_drain(1)
    assert one_after_another(s, 4) == [2, 3, 2, 3]


def test_one_that_is_late_waits_until_the_others_have_none_idle() -> None:
    s = scheduler(rows=2)
    arrive(s, 1)
    assert hand(s, 0)[0] == 0
    s.take_back(MS)
    assert one_after_another(s, 3, MS) == [1, 1, 1]
