"""A rolling restart: each replica gets a new process, one after the other, while the service goes on.

Only the order of things is decided here; `workers` starts and ends processes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mosec_cy._master.slot import WorkerSlot
from mosec_cy.log import get_logger

_log = get_logger()


@dataclass
class _Turn:
    """The replacement of one replica."""

    old: WorkerSlot
    new: WorkerSlot  # the same slot, where the old process ends first
    old_pid: int
    began: float
    retired: bool = False  # the old process was told to end
    ended: bool = False  # and has


class Rolling:
    """The rolling restarts of a service, one at a time.

    Args:
        slots: all slots of the users' stages, in their order; spare ones too.
        surge: there is a spare slot in each stage: a replacement starts there, and the old process ends once that is
            ready. Else the old one ends first.
        begin: starts a process in a slot that is free.
        retire: has a slot become free: its process, if there is one, finishes what it has and ends.
        clock: seconds.

    `begin` and `retire` may call `on_ready` and `on_free` at once.
    """

    def __init__(
        self,
        slots: Sequence[WorkerSlot],
        surge: bool,
        begin: Callable[[WorkerSlot], None],
        retire: Callable[[WorkerSlot], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._surge = surge
        self._begin_process = begin
        self._retire = retire
        self._clock = clock
        self._turn: _Turn | None = None
        self._waiting: deque[WorkerSlot] = deque()
        self._serving = False
        self._again = False
        self._cancelled = False
        self._began = 0.0
        self._count = 0

    @property
    def described(self) -> str:
        """The rolling restart that is under way, in words; "": none is."""
        if self._turn is None:
            return ""
        return f"in a rolling restart ({self._count - len(self._waiting) - 1} of {self._count} replaced)"

    def ask(self) -> None:
        """Replace all workers: now, or once the service is ready, or once more when that which is under way is over."""
        if self._cancelled:
            _log.info("no rolling restart: the service is shutting down")
        elif not self._serving:
            self._again = True
            _log.info("the service is still starting: a rolling restart follows")
        elif self._turn is not None:
            self._again = True
            _log.info("a rolling restart is under way: one more follows it")
        else:
            self._begin()

    def on_serving(self) -> None:
        """Each stage has a worker that is ready."""
        self._serving = True
        self._end()

    def cancel(self) -> None:
        """The service ends: from now on no slot is of interest here."""
        if self._turn is not None:
            _log.info("rolling restart given up: the service is shutting down")
        self._cancelled = True
        self._turn = None

    def is_trial(self, slot: WorkerSlot) -> bool:
        """The slot has a replacement that has not been ready yet."""
        turn = self._turn
        return turn is not None and slot is turn.new and (not turn.retired if self._surge else turn.ended)

    def on_ready(self, slot: WorkerSlot) -> None:
        """The slot's process serves."""
        turn = self._turn
        if turn is None or slot is not turn.new:
            return
        if not turn.retired:
            turn.retired = True
            self._retire(turn.old)
        else:
            self._finish_turn(turn)

    def on_free(self, slot: WorkerSlot) -> bool:
        """The slot's process has ended and core has given it up. False: it starts again as usual."""
        turn = self._turn
        if turn is None:
            return False
        if slot is turn.old and turn.retired and not turn.ended:
            turn.ended = True
            self._after_old(turn)
            return True
        if self.is_trial(slot):
            self._stop(turn)
            return self._surge or slot.pid != 0  # the next rolling restart may have begun with it
        return False

    # ---- one replica ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        replicas = [slot for slot in self._slots if slot.worker_id is not None]
        self._waiting = deque(sorted(replicas, key=lambda slot: (slot.stage_number, slot.worker_id)))
        self._again = False
        self._began = self._clock()
        self._count = len(self._waiting)
        _log.info("rolling restart of %d workers begins", self._count)
        self._next()

    def _next(self) -> None:
        if not self._waiting:
            _log.info("rolling restart done: %d workers in %.1f s", self._count, self._clock() - self._began)
            self._end()
            return
        old = self._waiting.popleft()
        new = self._spare(old) if self._surge else old
        self._turn = _Turn(old, new, old.pid, self._clock(), retired=not self._surge)
        if self._surge:
            self._start(new, old.worker_id)
        else:
            self._retire(old)

    def _after_old(self, turn: _Turn) -> None:
        if self._surge:
            turn.old.assign(None)
            self._finish_turn(turn)
        else:
            self._start(turn.new, turn.old.worker_id)

    def _start(self, slot: WorkerSlot, worker_id: int | None) -> None:
        slot.assign(worker_id)
        self._begin_process(slot)

    def _finish_turn(self, turn: _Turn) -> None:
        # A new process that has ended meanwhile starts again as any does; until it is ready, no other one is replaced.
        if not turn.ended or not turn.new.is_ready:
            return
        seconds = self._clock() - turn.began
        _log.info("%s replaced: process %d by %d in %.1f s", turn.new.name, turn.old_pid, turn.new.pid, seconds)
        self._next()

    def _stop(self, turn: _Turn) -> None:
        new = turn.new
        done = self._count - len(self._waiting) - 1
        failed = (new.name, done, self._count, new.last_words)
        if self._surge:
            _log.error(
                "rolling restart stopped, new %s did not get ready: the old goes on (%d of %d done)\n%s", *failed
            )
            new.assign(None)
        else:
            _log.error("rolling restart stopped, new %s did not get ready: tried again (%d of %d done)\n%s", *failed)
        self._end()

    def _end(self) -> None:
        self._turn = None
        if self._again:
            self._begin()

    def _spare(self, old: WorkerSlot) -> WorkerSlot:
        return next(slot for slot in self._slots if slot.stage_number == old.stage_number and slot.worker_id is None)
