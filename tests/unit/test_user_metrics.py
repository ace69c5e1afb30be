"""How the master asks its workers: together, once at a time, and without waiting for those that are late."""

from collections.abc import Iterator

import msgspec
import pytest

from mosec_cy._master.reactor import Reactor
from mosec_cy._master.user_metrics import UserMetrics
from mosec_cy._process.snapshot import Family, Sample


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


def snapshot(count: float) -> bytes:
    return msgspec.msgpack.encode([Family("c", "counter", "", [Sample("_total", {}, count)])])


class Page:
    """A page that waits for its metrics; they end the reactor's run."""

    def __init__(self, reactor: Reactor) -> None:
        self.metrics: list[Family] | None = None
        self._reactor = reactor

    def __call__(self, metrics: list[Family]) -> None:
        self.metrics = metrics
        self._reactor.stop()

    @property
    def count(self) -> float:
        assert self.metrics is not None
        return sum(sample.value for family in self.metrics for sample in family.samples if sample.suffix == "_total")


def test_without_workers_it_is_done_at_once(reactor: Reactor) -> None:
    page = Page(reactor)
    UserMetrics(reactor, []).collect(page)
    assert page.count == 0


def test_pages_at_the_same_time_share_the_answers(reactor: Reactor) -> None:
    metrics, asked = UserMetrics(reactor, []), []
    for slot in (1, 2):
        metrics.joined(slot, lambda slot=slot: asked.append(slot))
    first, second = Page(reactor), Page(reactor)
    metrics.collect(first)
    metrics.answered(1, snapshot(3))
    metrics.collect(second)
    assert asked == [1, 2]
    assert first.metrics is None
    metrics.answered(2, snapshot(4))
    assert (first.count, second.count) == (7, 7)
    metrics.collect(third := Page(reactor))
    assert asked == [1, 2, 1, 2]
    assert third.metrics is None


def test_who_is_late_is_represented_and_not_waited_for_again(reactor: Reactor) -> None:
    metrics, asked = UserMetrics(reactor, []), []
    for slot in (1, 2):
        metrics.joined(slot, lambda slot=slot: asked.append(slot))
    metrics.collect(Page(reactor))
    metrics.answered(1, snapshot(1))
    metrics.answered(2, snapshot(10))

    metrics.collect(late := Page(reactor))
    metrics.answered(1, snapshot(2))
    assert late.metrics is None
    reactor.run()  # until its time is over
    assert late.count == 12

    metrics.collect(again := Page(reactor))
    assert asked == [1, 2, 1, 2, 1]
    metrics.answered(1, snapshot(3))
    assert again.count == 13

    metrics.answered(2, snapshot(20))  # at last
    metrics.collect(Page(reactor))
    assert asked == [1, 2, 1, 2, 1, 1, 2]


def test_who_ends_is_not_waited_for_and_its_counts_stay(reactor: Reactor) -> None:
    metrics = UserMetrics(reactor, [])
    metrics.joined(1, lambda: None)
    metrics.collect(page := Page(reactor))
    metrics.answered(1, snapshot(5))
    assert page.count == 5
    metrics.collect(page := Page(reactor))
    metrics.left(1)
    assert page.count == 5
    metrics.joined(1, lambda: None)
    metrics.collect(page := Page(reactor))
    metrics.answered(1, snapshot(1))
    assert page.count == 6


def test_a_slot_that_has_not_joined_may_leave_or_speak(reactor: Reactor) -> None:
    metrics = UserMetrics(reactor, [])
    metrics.left(1)
    metrics.answered(1, snapshot(5))
    metrics.collect(page := Page(reactor))
    assert page.count == 0
