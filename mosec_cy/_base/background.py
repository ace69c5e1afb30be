"""Threads of the service's own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


def start_thread(name: str, target: Callable[..., None], *arguments: Any) -> None:
    """Start a daemon thread that takes no signals: they are to interrupt what the main thread sleeps in.

    Raises RuntimeError if the system starts no thread.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        threading.Thread(target=target, args=arguments, name=name, daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
