"""The order of a rolling restart: who is replaced when, and what deaths in between change."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosec_cy.rolling import Rolling


class Row:
    """A row, as far as a rolling restart looks at it."""

    def __init__(self, stage: int, worker_id: int | None) -> None:
        self.stage_number = stage
        self.worker_id = worker_id
        self.state = "free"
        self.pid = 0
        self.last_words = ""

    @property
    def name(self) -> str:
        return f"<{self.stage_number}|{self.worker_id}>"

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    def assign(self, worker_id: int | None) -> None:
        assert self.state == "free"
        self.worker_id = worker_id


class Service:
    """Rows whose processes become ready, finish and die when the test says so."""

    def __init__(self, stages: Sequence[int], surge: bool = True, serving: bool = True) -> None:
        self.pids = itertools.count(1)
        self.cannot_start = False
        self.begun: list[str] = []
        self.rows = [
            Row(number, worker_id)
            for number, replicas in enumerate(stages, 1)
            for worker_id in [*range(1, replicas + 1), *([None] if surge else [])]
        ]
        self.rolling: Rolling[Row] = Rolling(self.rows, surge, self)
        for row in self.rows:
            if row.worker_id is not None:
                self.begin(row)
                row.state = "ready"
        self.begun.clear()
        if serving:
            self.rolling.on_serving()

    def begin(self, row: Row) -> None:
        assert row.state == "free" and row.worker_id is not None
        self.begun.append(row.name)
        if self.cannot_start:
            row.last_words = "no process"
            self.free(row)
        else:
            row.state, row.pid = "starting", next(self.pids)

    def retire(self, row: Row) -> None:
        if row.state == "free":
            self.free(row)
        else:
            row.state = "retiring"

    def free(self, row: Row) -> None:
        if not self.rolling.on_free(row) and not self.cannot_start:
            self.begin(row)

    # ---- what happens --------------------------------------------------------------------------------

    def get_ready(self, row: Row) -> None:
        assert row.state == "starting"
        row.state = "ready"
        self.rolling.on_ready(row)

    def end(self, row: Row, words: str = "killed") -> None:
        assert row.state != "free"
        row.state, row.pid, row.last_words = "free", 0, words
        self.free(row)

    def the(self, state: str) -> Row:
        (row,) = [row for row in self.rows if row.state == state]
        return row

    def replace(self) -> None:
        """The replacement that was begun becomes ready, and the old one ends, in the order of the mode."""
        if [row for row in self.rows if row.state == "retiring"]:
            self.end(self.the("retiring"))
            self.get_ready(self.the("starting"))
        else:
            self.get_ready(self.the("starting"))
            self.end(self.the("retiring"))

    @property
    def places(self) -> list[int | None]:
        return [row.worker_id for row in self.rows]

    @property
    def busy(self) -> bool:
        return any(row.state in ("starting", "retiring") for row in self.rows)


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


def test_replicas_move_one_by_one_to_the_spare_row() -> None:
    service = Service([2, 1])
    service.rolling.ask()
    seen = []
    while service.busy:
        service.replace()
        seen.append(service.places)
    assert service.begun == ["<1|1>", "<1|2>", "<2|1>"]
    assert seen == [[2, 2, 1, 1, None], [2, None, 1, 1, 1], [2, None, 1, None, 1]]
    assert all(row.pid > 3 for row in service.rows if row.worker_id)


def test_surge_ends_nobody_before_the_replacement_is_ready() -> None:
    service = Service([1])
    service.rolling.ask()
    assert [row.state for row in service.rows] == ["ready", "starting"]
    service.get_ready(service.rows[1])
    assert [row.state for row in service.rows] == ["retiring", "ready"]
    service.end(service.rows[0])
    assert [row.state for row in service.rows] == ["free", "ready"]
    assert not service.busy


def test_without_spare_rows_the_old_one_ends_first() -> None:
    service = Service([2, 1], surge=False)
    service.rolling.ask()
    assert [row.state for row in service.rows] == ["retiring", "ready", "ready"]
    service.end(service.rows[0])
    assert [row.state for row in service.rows] == ["starting", "ready", "ready"]
    service.get_ready(service.rows[0])
    assert [row.state for row in service.rows] == ["ready", "retiring", "ready"]
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
    assert [(row.worker_id, row.pid) for row in service.rows] == [(None, 0), (2, 2), (1, 3)]
    assert not service.busy
    assert log.records[-1].levelname == "ERROR"
    assert log.records[-1].getMessage() == (
        "rolling restart stopped, new <1|2> did not get ready: the old goes on (1 of 2 done)\n"
        "Traceback ...\nValueError: new"
    )
    service.rolling.ask()  # better this time
    service.replace()
    service.replace()
    assert not service.busy and all(row.pid > 3 for row in service.rows if row.worker_id)


def test_a_replacement_that_fails_where_the_old_one_has_gone(log: pytest.LogCaptureFixture) -> None:
    service = Service([2], surge=False)
    service.rolling.ask()
    service.end(service.the("retiring"))
    service.end(service.the("starting"), "ValueError: new")
    assert log.records[-1].getMessage() == (
        "rolling restart stopped, new <1|1> did not get ready: tried again (0 of 2 done)\nValueError: new"
    )
    assert [row.state for row in service.rows] == ["starting", "ready"]  # as after any death
    service.get_ready(service.rows[0])
    assert [row.state for row in service.rows] == ["ready", "ready"]


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
        if not surge and not [row for row in service.rows if row.state == "retiring"]:
            service.get_ready(service.the("starting"))  # its old process had gone already
        else:
            service.replace()
    assert service.begun == ["<1|1>", "<1|1>", "<1|2>"]
    assert all(row.pid > 3 for row in service.rows if row.worker_id)


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
    service.end(service.rows[0])
    assert [row.state for row in service.rows] == ["starting", "starting"]
    service.get_ready(service.rows[0])
    service.get_ready(service.rows[1])
    service.end(service.rows[0])
    assert [(row.state, row.worker_id) for row in service.rows] == [("free", None), ("ready", 1)]


def test_the_new_one_dies_when_it_was_ready() -> None:
    """It starts again, and nobody else is replaced before it is ready."""
    service = Service([2])
    service.rolling.ask()
    service.get_ready(service.rows[2])
    service.end(service.rows[2])
    service.end(service.rows[0])
    assert [(row.state, row.worker_id) for row in service.rows] == [("free", None), ("ready", 2), ("starting", 1)]
    service.end(service.rows[2])
    service.get_ready(service.rows[2])
    assert [(row.state, row.worker_id) for row in service.rows] == [("starting", 2), ("ready", 2), ("ready", 1)]


def test_others_that_die_start_again() -> None:
    service = Service([1, 1])
    service.rolling.ask()
    service.end(service.rows[2])
    assert service.begun == ["<1|1>", "<2|1>"]
    service.get_ready(service.rows[2])
    service.get_ready(service.rows[1])
    service.end(service.rows[0])
    service.replace()
    assert service.places == [None, 1, None, 1] and not service.busy


@pytest.mark.parametrize("surge", [True, False])
def test_the_end_of_the_service(log: pytest.LogCaptureFixture, surge: bool) -> None:
    service = Service([2], surge)
    service.rolling.ask()
    service.rolling.ask()
    service.rolling.cancel()
    before = list(service.places)
    for row in service.rows:
        assert not service.rolling.on_free(row)
        service.rolling.on_ready(row)
    service.rolling.ask()
    assert service.places == before and len(service.begun) <= 1
    assert [record.getMessage() for record in log.records][-2:] == [
        "rolling restart given up: the service is shutting down",
        "no rolling restart: the service is shutting down",
    ]


@pytest.mark.usefixtures("quiet")
@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.booleans(), st.randoms(use_true_random=False))
def test_whatever_happens(stages: list[int], surge: bool, chance: random.Random) -> None:
    """Each replica has one row, at most one more while it is replaced, and in the end all are served anew."""
    service = Service(stages, surge)

    def one_event(deaths: bool) -> bool:
        moves = [row for row in service.rows if row.state in ("starting", "retiring")]
        if deaths and chance.random() < 0.3:
            moves = [row for row in service.rows if row.state != "free"]
        if not moves:
            return False
        row = chance.choice(moves)
        if row.state == "starting" and not (deaths and chance.random() < 0.3):
            service.get_ready(row)
        else:
            service.end(row)
        for number, replicas in enumerate(stages, 1):
            ids = [row.worker_id for row in service.rows if row.stage_number == number and row.worker_id]
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
    serving = [row for row in service.rows if row.worker_id is not None]
    assert len(serving) == sum(stages)
    assert all(row.is_ready and row.pid > newest for row in serving)
