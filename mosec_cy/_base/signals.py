"""Which process gets which signal: SIGTERM, SIGINT and SIGHUP are the master's, what its workers start gets them as
usual, and threads of the service's own take none.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SHUTDOWN_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
MASTER_SIGNALS = SHUTDOWN_SIGNALS | {signal.SIGHUP}  # its children leave them to it: a terminal sends them to all
_forking = threading.local()


def start_thread(name: str, target: Callable[..., None], *arguments: Any) -> None:
    """Start a daemon thread that takes no signals: they are to interrupt what the main thread sleeps in.

    Raises RuntimeError if the system starts no thread.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        threading.Thread(target=target, args=arguments, name=name, daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def leave_signals_to_master() -> None:
    """In a worker; set this up before user code runs. Unblocks the signals, which were blocked since the start."""
    signal.set_wakeup_fd(-1)  # a forked worker has the master's
    # A handler, where ignoring would do: programs that user code starts get the default action back. But under
    # nohup SIGHUP is to be ignored by those too.
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
