from collections.abc import Sequence
from typing import Any

STATUS_CODES: tuple[int, ...]
CONTROL_FORMAT: str
ORDER_SLOT_STARTED: int
ORDER_SLOT_READY: int
ORDER_SLOT_DRAIN: int
ORDER_LISTEN: int
ORDER_SHUTDOWN: int
REPORT_SLOT_DEAD: int
REPORT_SLOT_OVERDUE: int
REPORT_SLOT_KILLED: int
REPORT_STOPPED: int
REPORT_RUNNING: int
REPORT_SLOT_IDLE: int

class Segment:
    fd: int
    slots: int
    max_tasks: int
    routes: int
    budget: int

    @staticmethod
    def create(slots: Sequence[tuple[int, int]], max_tasks: int, budget: int, routes: int) -> Segment: ...
    @staticmethod
    def attach(fd: int) -> Segment: ...
    def close(self) -> None: ...
    def unmap(self) -> None: ...
    def begin_slot(self, slot: int, incarnation: int) -> None: ...
    def stop_slot(self, slot: int) -> None: ...
    def slots_in_forward(self) -> set[int]: ...
    def continue_counts(self, old: Segment) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def layout(self) -> dict[str, Any]: ...
    def blocks(self) -> tuple[int, int]: ...
