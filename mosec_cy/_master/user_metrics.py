"""What user code records in the worker processes, gathered by the master for `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from mosec_cy._master.reactor import Reactor, Timer
from mosec_cy._process.snapshot import Family, Recorder, decode
from mosec_cy._web.merge import Merger

COLLECT_TIMEOUT = 0.25  # s; how long a page waits for the workers
Ask = Callable[[], None]
Done = Callable[[list[Family]], None]


class _Process:
    """A worker that is ready: how to ask it, since when it owes an answer, and its last one."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.asked_at: float | None = None
        self.families: Sequence[Family] = ()

    def late(self) -> bool:
        return self.asked_at is not None and time.monotonic() - self.asked_at >= COLLECT_TIMEOUT


class UserMetrics:
    """One collection at a time: asks all workers, and is done when they have answered or `COLLECT_TIMEOUT` is over.

    A worker that is late (its GIL is held, or it is stopped) is represented by what it said last, and is not asked
    again, nor waited for, before it has answered.

    Args:
        reactor: the master's loop.
        taken: names of the service's own metrics.
    """

    def __init__(self, reactor: Reactor, taken: Iterable[str]) -> None:
        self._reactor = reactor
        self._merger = Merger(taken)
        self._recorder = Recorder()
        self._processes: dict[int, _Process] = {}
        self._awaited: set[int] = set()
        self._waiting: list[Done] = []
        self._deadline: Timer | None = None

    def joined(self, slot: int, ask: Ask) -> None:
        """The slot has a process that can be asked; `ask` does so and does not block."""
        self._processes[slot] = _Process(ask)

    def answered(self, slot: int, body: object) -> None:
        """The slot's process has told what it recorded. Raises ValueError if `body` is nothing of the kind."""
        families = decode(body)
        process = self._processes.get(slot)
        if process is None:  # it says so before it was ready
            return
        process.families = families
        process.asked_at = None
        self._settle(slot)

    def left(self, slot: int) -> None:
        """The slot's process has ended; its counts are kept."""
        process = self._processes.pop(slot, None)
        if process is not None:
            self._merger.fold_exited(process.families)
        self._settle(slot)

    def collect(self, done: Done) -> None:
        """Call `done` with the merged metrics of all processes; a collection that is under way serves this one too."""
        self._waiting.append(done)
        if self._deadline is not None:
            return
        self._deadline = self._reactor.call_later(COLLECT_TIMEOUT, self._finish)
        for slot, process in self._processes.items():
            if process.late():
                continue
            if process.asked_at is None:
                process.asked_at = time.monotonic()
                process.ask()
            self._awaited.add(slot)
        if not self._awaited:
            self._finish()

    def _settle(self, slot: int) -> None:
        if slot in self._awaited:
            self._awaited.discard(slot)
            if not self._awaited:
                self._finish()

    def _finish(self) -> None:
        assert self._deadline is not None
        self._deadline.cancel()
        self._deadline = None
        self._awaited.clear()
        waiting, self._waiting = self._waiting, []
        living = [self._processes[slot].families for slot in sorted(self._processes)]
        metrics = self._merger.merged([self._recorder.families(), *living])
        for done in waiting:
            done(metrics)
