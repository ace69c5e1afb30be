"""The record of a slot's progress, for the end of what hangs and for the liveness probe. Times are given by hand."""

import pytest

from tests.drivers.dispatch import ProgressWatch

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
LIMIT = 10 * SECOND


def test_no_work_is_no_lack_of_progress() -> None:
    watch = ProgressWatch()
    assert not watch.lacks(LIMIT, 0)
    for minute in range(60):
        watch.look(minute * MINUTE, since=None)
        assert not watch.lacks(LIMIT, minute * MINUTE)


def test_work_without_progress_counts_from_the_first_look_that_found_it() -> None:
    watch = ProgressWatch()
    watch.look(SECOND, since=SECOND)
    for second in (2, 5, 10, 11):
        watch.look(second * SECOND, since=second * SECOND)
        assert watch.lacks(LIMIT, second * SECOND) == (second == 11)


def test_a_start_that_the_slot_tells_counts() -> None:
    watch = ProgressWatch()
    watch.look(MINUTE, since=0)
    assert watch.lacks(LIMIT, MINUTE)


@pytest.mark.parametrize("field", ["batch", "phase", "began", "taken", "answered"])
def test_a_change_of_any_field_is_progress(field: str) -> None:
    watch = ProgressWatch()
    for second in range(60):  # never idle, always something that moves
        watch.look(second * SECOND, since=second * SECOND, **{field: second})
        assert not watch.lacks(SECOND, second * SECOND)
    watch.look(MINUTE, since=MINUTE, **{field: 59})
    assert watch.lacks(SECOND, MINUTE)


def test_a_slot_that_had_no_work_starts_anew() -> None:
    watch = ProgressWatch()
    watch.look(SECOND, since=SECOND)
    watch.look(2 * SECOND, since=None)
    watch.look(MINUTE, since=MINUTE)
    assert not watch.lacks(LIMIT, MINUTE)


def test_a_start_in_the_future_is_now() -> None:
    """It is a word of the slot's, which may write what it likes there."""
    watch = ProgressWatch()
    watch.look(SECOND, since=2**64 - 2)
    assert watch.lacks(LIMIT, SECOND + LIMIT)


def test_a_clock_that_seems_to_go_back_lacks_nothing() -> None:
    watch = ProgressWatch()
    watch.look(SECOND, since=SECOND)
    assert not watch.lacks(0, 0)
