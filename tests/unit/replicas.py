"""Slots and a crew for rolling restarts without processes: they become ready, finish and die when a test says so."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mosec_cy._master.rolling import Rolling


class Slot:
    """A slot, as far as a rolling restart looks at it."""

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
    """Slots, and what becomes of their processes."""

    def __init__(self, stages: Sequence[int], surge: bool = True, serving: bool = True) -> None:
        self.pids = itertools.count(1)
        self.cannot_start = False
        self.begun: list[str] = []
        self.slots = [
            Slot(number, worker_id)
            for number, replicas in enumerate(stages, 1)
            for worker_id in [*range(1, replicas + 1), *([None] if surge else [])]
        ]
        self.rolling = Rolling(self.slots, surge, self.begin, self.retire)  # type: ignore[arg-type]
        for slot in self.slots:
            if slot.worker_id is not None:
                self.begin(slot)
                slot.state = "ready"
        self.begun.clear()
        if serving:
            self.rolling.on_serving()

    def begin(self, slot: Slot) -> None:
        assert slot.state == "free" and slot.worker_id is not None
        self.begun.append(slot.name)
        if self.cannot_start:
            slot.last_words = "no process"
            self.free(slot)
        else:
            slot.state, slot.pid = "starting", next(self.pids)

    def retire(self, slot: Slot) -> None:
        if slot.state == "free":
            self.free(slot)
        else:
            slot.state = "retiring"

    def free(self, slot: Slot) -> None:
        if not self.rolling.on_free(slot) and not self.cannot_start:
            self.begin(slot)

    # ---- what happens --------------------------------------------------------------------------------

    def get_ready(self, slot: Slot) -> None:
        assert slot.state == "starting"
        slot.state = "ready"
        self.rolling.on_ready(slot)

    def end(self, slot: Slot, words: str = "killed") -> None:
        assert slot.state != "free"
        slot.state, slot.pid, slot.last_words = "free", 0, words
        self.free(slot)

    def the(self, state: str) -> Slot:
        (slot,) = [slot for slot in self.slots if slot.state == state]
        return slot

    def replace(self) -> None:
        """The replacement that was begun becomes ready, and the old one ends, in the order of the mode."""
        if [slot for slot in self.slots if slot.state == "retiring"]:
            self.end(self.the("retiring"))
            self.get_ready(self.the("starting"))
        else:
            self.get_ready(self.the("starting"))
            self.end(self.the("retiring"))

    @property
    def places(self) -> list[int | None]:
        return [slot.worker_id for slot in self.slots]

    @property
    def busy(self) -> bool:
        return any(slot.state in ("starting", "retiring") for slot in self.slots)
