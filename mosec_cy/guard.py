"""The master's side of the guard process, which ends what the kernel does not end with a killed master."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping

from mosec_cy import child
from mosec_cy.daemon import Daemon
from mosec_cy.helpers import Origin
from mosec_cy.log import get_logger
from mosec_cy.reactor import Reactor

_DELAY = 1.0  # s, before another guard is started
_PATIENCE = 5.0  # s, for a guard that does not read

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

    def __init__(self, origin: Origin, grace: float, daemons: Mapping[int, Daemon]) -> None:
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
        self._socket.settimeout(_PATIENCE)
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
            self._process = child.execute_small("mosec_cy.guard_process", [*arguments, *daemons], keep)
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
