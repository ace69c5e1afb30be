"""The rules of the batcher: dispatch ahead, and the measurement that it rests on."""

import pytest

from tests.unit.scheduling import MS, US, arrive, dispatch, finish, run, run_batch, scheduler, start


class TestDispatchAhead:
    def test_nothing_ahead_before_the_first_measurement(self) -> None:
        s = scheduler()
        arrive(s, 2)
        dispatch(s, 0)
        assert s.next_batch(0, 0) is None
        assert s.deadline(0) is None

    @pytest.mark.parametrize(
        ("took", "ahead"),
        [
            (4 * US, 25),  # 25 * 4 us is just the measured work that may wait
            (10 * US, 10),
            (60 * US, 1),
            (900 * US, 1),  # one may always wait
            (1 * MS, 1),
            (1 * MS + 1, 0),
            (20 * MS, 0),
        ],
    )
    def test_measured_work_that_waits_in_a_busy_ring_is_bounded(self, took: int, ahead: int) -> None:
        s = scheduler()
        now = run(s, took, 0, times=3)
        arrive(s, 64, now)
        dispatched = 0
        while s.next_batch(0, now):
            dispatched += 1
        assert dispatched == 1 + ahead

    def test_ahead_follows_the_closing_rule(self) -> None:
        s = scheduler(4, 50 * US)
        now = run_batch(s, 4, 10 * US, 0)
        arrive(s, 7, now)
        assert len(dispatch(s, now)[1]) == 4
        assert s.next_batch(0, now + 49 * US) is None
        assert s.deadline(now + 49 * US) == now + 50 * US
        assert len(dispatch(s, now + 50 * US)[1]) == 3

    def test_idle_slot_is_preferred_then_fewest_batches(self) -> None:
        s = scheduler(slots=2)
        now = run(s, 10 * US, 0)
        arrive(s, 2, now)
        one, other = dispatch(s, now), dispatch(s, now)
        now += 10 * US
        finish(s, one, now)
        finish(s, other, now)
        arrive(s, 6, now)
        assert [dispatch(s, now)[0] for _ in range(6)] == [1, 0, 1, 0, 1, 0]

    def test_slot_whose_running_batch_has_become_slow_gets_nothing_ahead(self) -> None:
        s = scheduler()
        now = run(s, 10 * US, 0, times=3)
        arrive(s, 1, now)
        dispatch(s, now)
        arrive(s, 1, now)
        assert s.next_batch(0, now + MS + 1) is None
        assert s.deadline(now + MS + 1) is None
        assert s.next_batch(0, now + MS) is not None

    def test_time_in_which_the_slot_was_idle_does_not_count_as_running(self) -> None:
        s = scheduler()
        now = run(s, 10 * US, 0) + 60 * MS
        arrive(s, 2, now)
        dispatch(s, now)
        assert s.next_batch(0, now) is not None

    def test_ring_bounds_what_is_dispatched_ahead(self) -> None:
        s = scheduler(ring_capacity=4)
        now = run(s, 10 * US, 0)
        s.set_room(0, 4)
        arrive(s, 8, now)
        assert [s.next_batch(0, now) is not None for _ in range(5)] == [True] * 4 + [False]
        s.set_room(0, 1)
        assert s.next_batch(0, now) is not None
        assert s.next_batch(0, now) is None

    def test_batch_that_does_not_fit_is_not_split(self) -> None:
        s = scheduler(4, 0, ring_capacity=4)
        arrive(s, 4)
        s.set_room(0, 3)
        assert s.next_batch(0, 0) is None
        assert s.deadline(0) == MS, "nobody tells when an idle slot pops stale descriptors: look again"
        s.set_room(0, 4)
        assert len(dispatch(s, 0)[1]) == 4


class TestMeasurement:
    def test_batch_ends_with_its_last_task_in_any_order(self) -> None:
        s = scheduler(3, 0)
        arrive(s, 3, 0)
        slot, tasks = batch = dispatch(s, 0)
        start(s, batch)
        order = [tasks[1], tasks[0], tasks[2]]
        assert [s.complete(slot, *task, 7 + i) for i, task in enumerate(order)] == [0, 0, 9]
        assert s.slot(0)["batches"] == 0
        assert s.slot(0)["batch_ns"] == 9

    def test_a_batch_behind_another_is_measured_from_where_that_one_ended(self) -> None:
        s = scheduler()
        now = run(s, 10 * US, 0)
        arrive(s, 2, now)
        first, second = dispatch(s, now), dispatch(s, now)
        assert finish(s, first, now + 12 * US) == 12 * US
        assert finish(s, second, now + 20 * US) == 8 * US

    def test_completions_seen_together_are_measured_together(self) -> None:
        s = scheduler()
        now = run(s, 10 * US, 0)
        for _ in range(20):
            s.set_room(0, 64)
            arrive(s, 10, now)
            batches = [dispatch(s, now) for _ in range(10)]
            now += 100 * US
            for batch in batches:
                finish(s, batch, now)
                assert 9 * US <= s.slot(0)["batch_ns"] <= 20 * US
        assert s.slot(0)["batch_ns"] == 10 * US

    def test_one_pause_does_not_end_dispatch_ahead(self) -> None:
        s = scheduler()
        now = run(s, 10 * US, 0, times=10)
        now = run(s, 500 * MS, now)
        assert s.slot(0)["batch_ns"] == 20 * US
        run(s, 10 * US, now, times=20)
        assert s.slot(0)["batch_ns"] < 11 * US

    def test_slow_regime_is_followed_within_tens_of_batches(self) -> None:
        s = scheduler()
        now = run(s, 4 * US, 0, times=10)
        run(s, 10 * MS, now, times=10)
        assert s.slot(0)["batch_ns"] > MS

    def test_fast_regime_is_followed_within_tens_of_batches(self) -> None:
        s = scheduler()
        now = run(s, 10 * MS, 0, times=10)
        run(s, 4 * US, now, times=50)
        assert s.slot(0)["batch_ns"] < 25 * US

    def test_new_process_of_a_slot_is_measured_anew(self) -> None:
        s = scheduler()
        run(s, 10 * US, 0)
        s.slot_down(0)
        s.slot_up(0)
        assert s.slot(0)["batch_ns"] == 0
