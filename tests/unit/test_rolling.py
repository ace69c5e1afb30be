"""The order of a rolling restart: who is replaced when, and what deaths in between change."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.replicas import Service


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("mosec_cy")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "mosec_cy")
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_replicas_move_one_by_one_to_the_spare_slot() -> None:
    service = Service([2, 1])
    service.rolling.ask()
    seen = []
    while service.busy:
        service.replace()
        seen.append(service.places)
    assert service.begun == ["<1|1>", "<1|2>", "<2|1>"]
    assert seen == [[2, 2, 1, 1, None], [2, None, 1, 1, 1], [2, None, 1, None, 1]]
    assert all(slot.pid > 3 for slot in service.slots if slot.worker_id)


def test_surge_ends_nobody_before_the_replacement_is_ready() -> None:
    service = Service([1])
    service.rolling.ask()
    assert [slot.state for slot in service.slots] == ["ready", "starting"]
    service.get_ready(service.slots[1])
    assert [slot.state for slot in service.slots] == ["retiring", "ready"]
    service.end(service.slots[0])
    assert [slot.state for slot in service.slots] == ["free", "ready"]
    assert not service.busy


def test_without_spare_slots_the_old_one_ends_first() -> None:
    service = Service([2, 1], surge=False)
    service.rolling.ask()
    assert [slot.state for slot in service.slots] == ["retiring", "ready", "ready"]
    service.end(service.slots[0])
    assert [slot.state for slot in service.slots] == ["starting", "ready", "ready"]
    service.get_ready(service.slots[0])
    assert [slot.state for slot in service.slots] == ["ready", "retiring", "ready"]
    service.replace()
    service.replace()
    assert service.begun == ["<1|1>", "<1|2>", "<2|1>"]
    assert service.places == [1, 2, 1] and not service.busy


def test_log_of_a_restart(log: pytest.LogCaptureFixture) -> None:
    service = Service([2])
    service.rolling.ask()
    service.replace()
    service.replace()
    assert [record.getMessage().partition(" in ")[0] for record in log.records] == [
        "rolling restart of 2 workers begins",
        "<1|1> replaced: process 1 by 3",
        "<1|2> replaced: process 2 by 4",
        "rolling restart done: 2 workers",
    ]


def test_a_replacement_that_fails_leaves_the_old_one(log: pytest.LogCaptureFixture) -> None:
    service = Service([2])
    service.rolling.ask()
    service.replace()
    service.end(service.the("starting"), "Traceback ...\nValueError: new")
    assert [(slot.worker_id, slot.pid) for slot in service.slots] == [(None, 0), (2, 2), (1, 3)]
    assert not service.busy
    assert log.records[-1].levelname == "ERROR"
    assert log.records[-1].getMessage() == (
        "rolling restart stopped, new <1|2> did not get ready: the old goes on (1 of 2 done)\n"
        "Traceback ...\nValueError: new"
    )
    service.rolling.ask()  # better this time
    service.replace()
    service.replace()
    assert not service.busy and all(slot.pid > 3 for slot in service.slots if slot.worker_id)


def test_a_replacement_that_fails_where_the_old_one_has_gone(log: pytest.LogCaptureFixture) -> None:
    service = Service([2], surge=False)
    service.rolling.ask()
    service.end(service.the("retiring"))
    service.end(service.the("starting"), "ValueError: new")
    assert log.records[-1].getMessage() == (
        "rolling restart stopped, new <1|1> did not get ready: tried again (0 of 2 done)\nValueError: new"
    )
    assert [slot.state for slot in service.slots] == ["starting", "ready"]  # as after any death
    service.get_ready(service.slots[0])
    assert [slot.state for slot in service.slots] == ["ready", "ready"]


@pytest.mark.parametrize("surge", [True, False])
def test_no_process_can_be_started(log: pytest.LogCaptureFixture, surge: bool) -> None:
    service = Service([1], surge)
    service.cannot_start = True
    service.rolling.ask()
    if not surge:
        service.end(service.the("retiring"))
    assert log.records[-1].getMessage().endswith("\nno process")
    assert service.begun == ["<1|1>"]


@pytest.mark.parametrize("surge", [True, False])
def test_requests_during_a_restart_make_one_more(log: pytest.LogCaptureFixture, surge: bool) -> None:
    service = Service([2], surge)
    for _ in range(3):
        service.rolling.ask()
    for _ in range(4):
        assert service.busy
        service.replace()
    assert not service.busy
    assert service.begun == ["<1|1>", "<1|2>"] * 2
    assert sum("begins" in record.getMessage() for record in log.records) == 2


@pytest.mark.parametrize("surge", [True, False])
def test_one_more_follows_one_that_failed(surge: bool) -> None:
    service = Service([2], surge)
    service.rolling.ask()
    service.rolling.ask()
    if not surge:
        service.end(service.the("retiring"))
    service.end(service.the("starting"))
    while service.busy:
        if not surge and not [slot for slot in service.slots if slot.state == "retiring"]:
            service.get_ready(service.the("starting"))  # its old process had gone already
        else:
            service.replace()
    assert service.begun == ["<1|1>", "<1|1>", "<1|2>"]
    assert all(slot.pid > 3 for slot in service.slots if slot.worker_id)


def test_a_request_before_the_service_is_ready(log: pytest.LogCaptureFixture) -> None:
    service = Service([1], serving=False)
    service.rolling.ask()
    assert not service.busy
    service.rolling.on_serving()
    service.replace()
    assert service.begun == ["<1|1>"] and not service.busy


def test_the_old_one_dies_before_the_new_one_is_ready() -> None:
    """It starts again as usual; the new one takes its place all the same."""
    service = Service([1])
    service.rolling.ask()
    service.end(service.slots[0])
    assert [slot.state for slot in service.slots] == ["starting", "starting"]
    service.get_ready(service.slots[0])
    service.get_ready(service.slots[1])
    service.end(service.slots[0])
    assert [(slot.state, slot.worker_id) for slot in service.slots] == [("free", None), ("ready", 1)]


def test_the_new_one_dies_when_it_was_ready() -> None:
    """It starts again, and nobody else is replaced before it is ready."""
    service = Service([2])
    service.rolling.ask()
    service.get_ready(service.slots[2])
    service.end(service.slots[2])
    service.end(service.slots[0])
    assert [(slot.state, slot.worker_id) for slot in service.slots] == [("free", None), ("ready", 2), ("starting", 1)]
    service.end(service.slots[2])
    service.get_ready(service.slots[2])
    assert [(slot.state, slot.worker_id) for slot in service.slots] == [("starting", 2), ("ready", 2), ("ready", 1)]


def test_others_that_die_start_again() -> None:
    service = Service([1, 1])
    service.rolling.ask()
    service.end(service.slots[2])
    assert service.begun == ["<1|1>", "<2|1>"]
    service.get_ready(service.slots[2])
    service.get_ready(service.slots[1])
    service.end(service.slots[0])
    service.replace()
    assert service.places == [None, 1, None, 1] and not service.busy


@pytest.mark.parametrize("surge", [True, False])
def test_the_end_of_the_service(log: pytest.LogCaptureFixture, surge: bool) -> None:
    service = Service([2], surge)
    service.rolling.ask()
    service.rolling.ask()
    service.rolling.cancel()
    before = list(service.places)
    for slot in service.slots:
        assert not service.rolling.on_free(slot)
        service.rolling.on_ready(slot)
    service.rolling.ask()
    assert service.places == before and len(service.begun) <= 1
    assert [record.getMessage() for record in log.records][-2:] == [
        "rolling restart given up: the service is shutting down",
        "no rolling restart: the service is shutting down",
    ]


@pytest.mark.usefixtures("quiet")
@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.booleans(), st.randoms(use_true_random=False))
def test_whatever_happens(stages: list[int], surge: bool, chance: random.Random) -> None:
    """Each replica has one slot, at most one more while it is replaced, and in the end all are served anew."""
    service = Service(stages, surge)

    def one_event(deaths: bool) -> bool:
        moves = [slot for slot in service.slots if slot.state in ("starting", "retiring")]
        if deaths and chance.random() < 0.3:
            moves = [slot for slot in service.slots if slot.state != "free"]
        if not moves:
            return False
        slot = chance.choice(moves)
        if slot.state == "starting" and not (deaths and chance.random() < 0.3):
            service.get_ready(slot)
        else:
            service.end(slot)
        for number, replicas in enumerate(stages, 1):
            ids = [slot.worker_id for slot in service.slots if slot.stage_number == number and slot.worker_id]
            assert set(ids) == set(range(1, replicas + 1)) and len(ids) <= replicas + surge
        return True

    for _ in range(chance.randrange(60)):
        if chance.random() < 0.1:
            service.rolling.ask()
        one_event(deaths=True)
    while one_event(deaths=False):
        pass
    newest = next(service.pids)
    service.rolling.ask()
    while one_event(deaths=False):
        pass
    serving = [slot for slot in service.slots if slot.worker_id is not None]
    assert len(serving) == sum(stages)
    assert all(slot.is_ready and slot.pid > newest for slot in serving)
