"""Helpers of workers that have ended are ended too, while the service goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mosec_cy import helpers
from mosec_cy.guard import Guard
from mosec_cy.log import get_logger
from mosec_cy.reactor import Reactor, Timer

_log = get_logger()


@dataclass(eq=False)
class _End:
    name: str
    pid: int
    family: helpers.Family
    then: Callable[[], None]


class HelperEnds:
    """All families that are ending; one look at the processes of the machine serves all of them.

    Args:
        origin: by which they are known.
        guard: told of each worker, and of the end of its helpers.
        grace: s; that they have to end by themselves after SIGTERM.
    """

    def __init__(self, reactor: Reactor, origin: helpers.Origin, guard: Guard, grace: float) -> None:
        self._reactor = reactor
        self._origin = origin
        self._guard = guard
        self._grace = grace
        self._ends: list[_End] = []
        self._timer: Timer | None = None

    @property
    def done(self) -> bool:
        """None is ending."""
        return not self._ends

    def worker_started(self, pid: int) -> None:
        self._guard.began(pid)

    def begin(self, name: str, pid: int, mark: str, then: Callable[[], None]) -> None:
        """End the helpers of the worker of that name and pid, which has ended; then call `then`."""
        self._ends.append(_End(name, pid, self._origin.family(mark, {pid}, self._grace), then))
        self._look_in(0)

    def hurry(self) -> None:
        """From now on kill at once."""
        self._grace = 0
        for end in self._ends:
            end.family.hurry()
        self._look_in(0)

    def end_all(self, workers: set[int]) -> None:
        """Kill all that are left, also those of `workers` (pids), which have ended; wait for their end."""
        self._origin.end_all(workers | {end.pid for end in self._ends})

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.call_later(seconds, self._look) if self._ends else None

    def _look(self) -> None:
        among = helpers.processes(self._origin.since)
        waits = {end: end.family.look(among) for end in self._ends}
        self._ends = [end for end, wait in waits.items() if wait]
        self._look_in(min((wait for wait in waits.values() if wait), default=0))
        for end, wait in waits.items():
            if not wait:
                self._tell(end.name, end.family)
                self._guard.gone(end.pid)
                end.then()

    def _tell(self, name: str, family: helpers.Family) -> None:
        if family.killed and self._grace:
            _log.warning(
                "%s left %d processes that did not end within %g s: killed", name, len(family.killed), self._grace
            )
        elif family.told or family.killed:
            _log.info("%s left %d processes: ended", name, len(family.told | family.killed))
