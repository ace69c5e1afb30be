"""What is said of stages: which lacks a worker, and which does not get on with its work. Times are given by hand."""

from tests.drivers.service import HealthWatch

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
PATIENCE = 10 * SECOND
Slot = tuple[bool, int | None, int, int, int]
DOWN: Slot = (False, None, 0, 0, 0)
IDLE: Slot = (True, None, 1, 5, 5)


def busy(since: int, taken: int = 6, answered: int = 5, up: bool = True, incarnation: int = 1) -> Slot:
    return (up, since, incarnation, taken, answered)


def one_stage(slots: int = 1) -> HealthWatch:
    return HealthWatch([PATIENCE], [0] * slots)


def test_a_stage_lacks_a_worker_until_one_is_up() -> None:
    watch = HealthWatch([PATIENCE, PATIENCE], [0, 1, 1])
    assert watch.look(0, [DOWN, DOWN, DOWN]) == (0, None)
    assert watch.look(0, [IDLE, DOWN, DOWN]) == (1, None)
    assert watch.look(0, [IDLE, DOWN, IDLE]) == (None, None)
    assert watch.look(0, [busy(0), DOWN, IDLE]) == (None, None)


def test_a_stage_without_workers_is_not_stalled_however_long_it_takes() -> None:
    watch = one_stage()
    for minute in range(60):
        assert watch.look(minute * MINUTE, [DOWN]) == (0, None)


def test_idle_is_not_stalled() -> None:
    watch = one_stage()
    for minute in range(60):
        assert watch.look(minute * MINUTE, [IDLE]) == (None, None)


def test_work_without_progress_stalls_after_the_stages_limit() -> None:
    watch = HealthWatch([PATIENCE, 2 * PATIENCE], [0, 1])
    slots = [IDLE, busy(since=SECOND)]
    assert watch.look(SECOND + 2 * PATIENCE, slots) == (None, None)
    assert watch.look(SECOND + 2 * PATIENCE + 1, slots) == (None, 1)


def test_the_first_look_believes_what_the_caller_knows() -> None:
    assert one_stage().look(MINUTE, [busy(since=0)]) == (None, 0)


def test_progress_starts_the_clock_anew() -> None:
    watch = one_stage()
    for second in range(60):  # overload: never idle, always something taken or answered
        assert watch.look(second * SECOND, [busy(second * SECOND, taken=second)]) == (None, None)
    for second in range(60, 120):
        assert watch.look(second * SECOND, [busy(second * SECOND, answered=second)]) == (None, None)


def test_progress_within_one_batch_counts() -> None:
    # Answers go out one by one; the caller knows only since when the slot has had the batch.
    watch = one_stage()
    assert {watch.look(second * SECOND, [busy(since=0, answered=second)]) for second in range(60)} == {(None, None)}
    seen = [watch.look(second * SECOND, [busy(since=0, answered=59)])[1] for second in range(60, 72)]
    assert seen == [None] * 9 + [0] * 3  # it was seen to get on between the looks at 58 and 59 s


def test_work_that_is_withdrawn_and_dispatched_anew_does_not_hide_a_stall() -> None:
    # Clients give up sooner than the patience lasts: the caller knows only since when the latest task is there.
    watch = one_stage()
    seen = [watch.look(second * SECOND, [busy(since=second * SECOND - 1)])[1] for second in range(1, 15)]
    assert seen == [None] * 10 + [0] * 4


def test_an_idle_look_in_between_ends_the_progress_watch() -> None:
    watch = one_stage()
    assert watch.look(SECOND, [busy(since=SECOND)]) == (None, None)
    assert watch.look(2 * SECOND, [(True, None, 1, 6, 5)]) == (None, None)
    assert watch.look(MINUTE, [busy(since=MINUTE)]) == (None, None)


def test_another_process_in_the_slot_is_progress() -> None:
    watch = one_stage()
    assert watch.look(MINUTE, [busy(since=0)]) == (None, 0)
    assert watch.look(MINUTE, [busy(since=MINUTE, incarnation=2)]) == (None, None)


def test_one_worker_that_gets_on_is_enough() -> None:
    watch = one_stage(slots=2)
    assert watch.look(MINUTE, [busy(since=0), IDLE]) == (None, None)
    assert watch.look(2 * MINUTE, [busy(since=0), busy(since=2 * MINUTE)]) == (None, None)
    assert watch.look(3 * MINUTE, [busy(since=0), DOWN]) == (None, 0)


def test_a_slot_that_was_given_up_and_does_not_die_is_watched_on() -> None:
    watch = one_stage()
    assert watch.look(MINUTE, [busy(since=0, up=False)]) == (0, 0)
    assert watch.look(2 * MINUTE, [DOWN]) == (0, None)


def test_a_clock_that_seems_to_go_back_stalls_nothing() -> None:
    assert one_stage().look(0, [busy(since=SECOND)]) == (None, None)
