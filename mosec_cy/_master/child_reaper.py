"""As process 1 of a container the master inherits processes whose parents have ended, and has to reap them.

A process that the program has an object for (`subprocess`, `multiprocessing`, the engine's own) is left to that object:
a reaper that takes its exit status away makes its owner believe that it ended with 0.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import popen_fork
from pathlib import Path

from mosec_cy._master.child import Child
from mosec_cy._master.reactor import Reactor, Timer

PERIOD = 1.0  # s; a zombie that is there at two looks has no owner: an owner that waits takes it at once


def collect(reactor: Reactor) -> None:
    """From now on reap ended children, if this is process 1 and the program does nothing about them itself."""
    if os.getpid() == 1 and signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL:
        reaper = ChildReaper(reactor)
        reactor.take_signals([signal.SIGCHLD], reaper.on_signal)
        reaper.look_later()  # at those that are there already


class ChildReaper:
    """Looks at ended children a moment after one has ended, and reaps those that have no owner."""

    def __init__(self, reactor: Reactor, period: float = PERIOD) -> None:
        self._reactor = reactor
        self._period = period
        self._timer: Timer | None = None
        self._seen: set[int] = set()

    def on_signal(self, number: signal.Signals) -> None:
        self.look_later()

    def look_later(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.call_later(self._period, self.look)

    def look(self) -> None:
        """Reap the zombies without an owner that were there at the last look too."""
        self._timer = None
        zombies = {pid for pid in _children() if _has_ended(pid)}
        if zombies:
            zombies -= set(_owned())
        for pid in zombies & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = zombies - self._seen
        if self._seen:
            self.look_later()


def _children() -> Iterator[int]:
    """Those of all threads, zombies among them (proc(5), /proc/PID/task/TID/children)."""
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, thread.read_text().split())


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # reaped meanwhile, or /proc is that of another namespace
        return False


def _owned() -> Iterator[int]:
    """Processes that some object of the program still waits for. The standard library keeps no list of them."""
    for thing in gc.get_objects():
        kind = type(thing)  # not isinstance, which asks a proxy for its __class__
        if issubclass(kind, Child):
            if not thing.reaped:
                yield thing.pid
        elif issubclass(kind, subprocess.Popen | popen_fork.Popen) and getattr(thing, "returncode", 0) is None:
            yield thing.pid
