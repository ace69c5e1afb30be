"""SIGTERM, SIGINT and SIGHUP in a worker: the master acts on them, it does not, its own children do as usual."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

SHUTDOWN_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
MASTER_SIGNALS = SHUTDOWN_SIGNALS | {signal.SIGHUP}  # its children leave them to it: a terminal sends them to all
_forking = threading.local()


def leave_signals_to_master() -> None:
    """Set this up before user code runs; unblocks the signals, which were blocked since the start."""
    signal.set_wakeup_fd(-1)  # a forked worker has the master's
    # A handler, where ignoring would do: programs that user code starts get the default action back. But who runs
    # this under nohup wants SIGHUP ignored by those too.
    for number in MASTER_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ignore)
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_become_usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _hold() -> None:
    """A signal that comes right after the fork waits until the child is ready to die of it."""
    _forking.previous = signal.pthread_sigmask(signal.SIG_BLOCK, MASTER_SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.previous)


def _become_usual() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is _ignore:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _release()
