"""Rows and a crew for rolling restarts without processes: they become ready, finish and die when a test says so."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mosec_cy._master.rolling import Rolling


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
    """Rows, and what becomes of their processes."""

    def __init__(self, stages: Sequence[int], surge: bool = True, serving: bool = True) -> None:
        self.pids = itertools.count(1)
        self.cannot_start = False
        self.begun: list[str] = []
        self.rows = [
            Row(number, worker_id)
            for number, replicas in enumerate(stages, 1)
            for worker_id in [*range(1, replicas + 1), *([None] if surge else [])]
        ]
        self.rolling = Rolling(self.rows, surge, self.begin, self.retire)  # type: ignore[arg-type]
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
