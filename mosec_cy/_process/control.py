"""The thread of a worker that hears the master, while the main thread serves or user code runs."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from mosec_cy._base import messages
from mosec_cy._base.signals import start_thread
from mosec_cy._process.snapshot import Recorder

if TYPE_CHECKING:
    from mosec_cy._engine.segment import Segment
    from mosec_cy._engine.worker import Channel

_HOLD_TIMEOUT = 1.0  # s


class ControlThread:
    """Waits in the kernel for what the master says, without the GIL: it costs nothing while the master says nothing.

    It is started after `__init__` and warm-up of the user's class: until then the process has one thread, so that
    user code may fork in them as it likes. A child that it forks later has no copy of this thread, nor of a lock that
    this thread held.
    """

    def __init__(self, control: socket.socket, recorder: Recorder) -> None:
        self._control = control
        self._recorder = recorder
        self._reading = threading.RLock()
        self._writing = threading.Lock()

    def start(self, channel: Channel) -> None:
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._let_go)
        start_thread("mosec_cy-control", self._listen, channel)

    def send(self, message: dict[str, object]) -> None:
        """Tell the master something, whatever the thread is telling."""
        with self._writing:
            messages.send(self._control, message)

    def send_metrics(self) -> None:
        """Tell the master what has been recorded until now; nothing while a collector of user code blocks."""
        if not self._hold():
            return
        try:
            body = self._recorder.encoded()
        finally:
            self._let_go()
        self.send({"metrics": body})

    def _hold(self) -> bool:
        # Not for ever: a collector may wait for what the thread that forks or ends holds.
        return self._reading.acquire(timeout=_HOLD_TIMEOUT)

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was not had in time
            self._reading.release()

    def _listen(self, channel: Channel) -> None:
        inbox = messages.DescriptorInbox(self._control)
        waiting = select.poll()
        waiting.register(self._control, select.POLLIN)
        try:
            while not inbox.closed:
                waiting.poll()
                for message in inbox.take():
                    if message.get("collect"):
                        self.send_metrics()
                    elif "attach" in message:
                        self._attach(channel, message["attach"], *inbox.claim(2))
        except (OSError, ValueError):  # closed, or corrupt by user code; the master notices by itself
            return

    def _attach(self, channel: Channel, number: int, segment_fd: int, core_bell_fd: int) -> None:
        """Have the main thread serve the core of that number."""
        from mosec_cy._engine.segment import Segment

        offer = Segment.attach(segment_fd), core_bell_fd
        replaced = channel.offer(*offer, functools.partial(self._attached, number))
        if replaced is not None:
            _close(*replaced)

    def _attached(self, number: int, segment: Segment, core_bell_fd: int) -> None:
        # In the main thread; the descriptors are those of the core before.
        _close(segment, core_bell_fd)
        self.send({"attached": number})


def _close(segment: Segment, core_bell_fd: int) -> None:
    """Close descriptors; what is mapped stays for the objects that look into it."""
    segment.close()
    os.close(core_bell_fd)
