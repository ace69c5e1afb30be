"""What workers have started, helpers, ends with them: while the service goes on, and when the master has been killed.

The former is the master's work; for the latter there is the guard process, which also ends daemons.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mosec_cy._master import child
from mosec_cy._master.child import Daemon
from mosec_cy._master.reactor import Reactor, Timer
from mosec_cy._process import helpers
from mosec_cy.log import get_logger

_DELAY = 1.0  # s, before another guard is started
_SEND_TIMEOUT = 5.0  # s, for a guard that does not read

_log = get_logger()


class Guard:
    """One guard process; another one is started if it ends.

    Args:
        origin: by which the service's helpers are known.
        grace: s; that they have to end by themselves.
        daemons: by pidfd, while they run.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, origin: helpers.Origin, grace: float, daemons: Mapping[int, Daemon]) -> None:
        self._origin = origin
        self._grace = grace
        self._daemons = daemons
        self._workers: set[int] = set()
        self._start()

    def watch(self, reactor: Reactor) -> None:
        """From now on replace it if it ends."""
        reactor.watch(self._process.pidfd, lambda: self._on_exit(reactor))

    def began(self, pid: int) -> None:
        """A worker has been started."""
        self._workers.add(pid)
        self._tell(pid)

    def gone(self, pid: int) -> None:
        """That worker has ended, and its helpers have."""
        self._workers.discard(pid)
        self._tell(-pid)

    def close(self) -> None:
        """The service has ended, in order: the guard has nothing to do."""
        self._process.kill()
        self._process.reap(block=True)
        self.close_in_child()

    def close_in_child(self) -> None:
        """Close the descriptors."""
        self._socket.close()
        self._process.close()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_SEND_TIMEOUT)
        master = os.pidfd_open(os.getpid())
        try:
            origin = self._origin
            daemons = [number for pidfd, daemon in self._daemons.items() for number in (daemon.pid, pidfd)]
            arguments: list[int | str] = [
                master,
                theirs.fileno(),
                origin.mark,
                origin.since,
                origin.session,
                int(self._grace * 1000),
            ]
            keep = [master, theirs.fileno(), *self._daemons]
            self._process = child.execute_small("mosec_cy._process.helpers", [*arguments, *daemons], keep)
        except BaseException:
            self._socket.close()
            raise
        finally:
            os.close(master)
            theirs.close()
        if self._workers:
            self._tell(*self._workers)

    def _tell(self, *numbers: int) -> None:
        try:
            self._socket.send(struct.pack(f"={len(numbers)}i", *numbers), socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, which its pidfd tells
        except TimeoutError:
            self._process.kill()

    def _on_exit(self, reactor: Reactor) -> None:
        status = self._process.reap(block=True)
        assert status is not None
        _log.warning("the guard ended with %s: another one is started", child.describe(status))
        reactor.unwatch(self._process.pidfd)
        self._process.close()
        reactor.call_later(_DELAY, lambda: self._restart(reactor))

    def _restart(self, reactor: Reactor) -> None:
        self._socket.close()
        try:
            self._start()
        except OSError:
            _log.exception("another guard cannot be started now")
            reactor.call_later(_DELAY, lambda: self._restart(reactor))
            return
        self.watch(reactor)


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
