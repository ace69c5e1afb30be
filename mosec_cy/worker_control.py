"""The thread of a worker that answers the master, while the main thread serves or user code runs."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading

from mosec_cy import messages
from mosec_cy.metric_snapshot import Recorder

_PATIENCE = 1.0  # s


class ControlThread:
    """Waits in the kernel for a question of the master's, without the GIL: it costs nothing while nobody asks.

    It is started after `__init__` and warm-up of the user's class: until then the process has one thread, so that
    user code may fork in them as it likes. A child that it forks later has no copy of this thread, nor of a lock that
    this thread held.
    """

    def __init__(self, control: socket.socket, recorder: Recorder) -> None:
        self._control = control
        self._recorder = recorder
        self._reading = threading.RLock()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._answer, name="mosec_cy-control", daemon=True)

    def start(self) -> None:
        """Signals stay with the main thread, whose sleep they are to interrupt."""
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._let_go)
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def send_metrics(self) -> None:
        """Tell the master what has been recorded until now; nothing while a collector of user code blocks."""
        if not self._hold():
            return
        try:
            body = self._recorder.encoded()
        finally:
            self._let_go()
        with self._writing:
            messages.send(self._control, {"metrics": body})

    def _hold(self) -> bool:
        # Not for ever: a collector may wait for what the thread that forks or ends holds.
        return self._reading.acquire(timeout=_PATIENCE)

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was not had in time
            self._reading.release()

    def _answer(self) -> None:
        inbox = messages.Inbox(self._control)
        waiting = select.poll()
        waiting.register(self._control, select.POLLIN)
        try:
            while not inbox.closed:
                waiting.poll()
                for message in inbox.take():
                    if message.get("collect"):
                        self.send_metrics()
        except (OSError, ValueError):  # closed, or spoilt by user code; the master notices by itself
            return
