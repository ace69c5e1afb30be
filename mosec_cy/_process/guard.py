"""The guard: a process that ends, when the master has been killed, what the kernel does not end with it.

These are daemons, which the user has started, and helpers, which the workers have. Imports next to nothing, as it stays
for as long as the service.
"""

from __future__ import annotations

import os
import select
import signal

from mosec_cy._engine.process import set_title
from mosec_cy._process import helpers

_LARGEST = 1 << 20  # bytes of a message


def main(master: int, control: int, mark: str, since: int, session: int, grace_ms: int, *daemons: int) -> None:
    """Wait until `master` has been killed; at the end of a service in order the guard is killed.

    Args:
        master: its pidfd.
        control: the socket to it; messages are numbers of 32 bits: the pid of a worker that has been started, or, below
            0, of one that has ended and whose helpers have.
        mark: what the marks of all helpers of the service begin with.
        since: when the master has started, in clock ticks.
        session: of the workers.
        daemons: pid and pidfd of each.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # also those that a terminal sends to all
    os.setsid()  # apart from the master's terminal and group, which may be killed as a whole
    set_title(b"mosec_cy: guard")
    os.set_blocking(control, False)
    waiting = select.poll()
    waiting.register(master, select.POLLIN)
    waiting.register(control, select.POLLIN)
    workers: set[int] = set()
    while True:
        ended = master in {descriptor for descriptor, _ in waiting.poll()}
        _hear(control, workers)
        if ended:
            break
    _kill_daemons(dict(zip(daemons[::2], daemons[1::2], strict=True)), since)
    helpers.end(helpers.Family(mark, workers, session, grace_ms / 1000), since)
    os._exit(0)


def _hear(control: int, workers: set[int]) -> None:
    """Read what the master has said."""
    while True:
        try:
            message = os.read(control, _LARGEST)
        except (BlockingIOError, ConnectionResetError):
            return
        if not message:  # the master has ended, which its pidfd tells
            return
        for pid in memoryview(message).cast("i"):
            if pid > 0:
                workers.add(pid)
            else:
                workers.discard(-pid)


def _kill_daemons(daemons: dict[int, int], since: int) -> None:
    alive = {pid: pidfd for pid, pidfd in daemons.items() if not select.select([pidfd], [], [], 0)[0]}
    below = helpers.descendants(alive, helpers.processes(since) or [])
    for pidfd in alive.values():
        try:  # noqa: SIM105 (no contextlib in here)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for process in below:
        process.send(signal.SIGKILL)
