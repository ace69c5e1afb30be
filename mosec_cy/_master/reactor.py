"""The master's loop: one selector, timers, and signals that arrive as events. Idle, it never wakes."""

from __future__ import annotations

import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

Callback = Callable[[], None]

_LONGEST_SLEEP = 1_000_000.0  # s; epoll counts milliseconds in 31 bits


class Timer:
    """A call that is due at `deadline` (s, monotonic clock), unless it is cancelled."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callback) -> None:
        self.deadline = deadline
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Reactor:
    """Calls back for readable descriptors, due timers and signals, on the thread that runs it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = False
        self._signals: _Signals | None = None

    def watch(self, fd: int, callback: Callback) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.deadline, next(self._order), timer))
        return timer

    def take_signals(self, signals: Iterable[signal.Signals], callback: Callable[[signal.Signals], None]) -> None:
        """Have signals delivered to `callback` until `close`; only in the main thread."""
        if self._signals is None:
            self._signals = _Signals()
            self.watch(self._signals.fd, self._signals.deliver)
        for number in signals:
            self._signals.take(number, callback)

    def run(self) -> None:
        """Run callbacks until one calls `stop`; what they raise ends the run."""
        self._running = True
        while self._running:
            for key, _ in self._selector.select(self._until_next_timer()):
                # An earlier callback of this round may have closed this descriptor, or even reused its number.
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.data is key.data:
                    key.data()
            self._run_due_timers()

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        if self._signals is not None:
            self._signals.close()
        self._selector.close()

    def _until_next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return min(max(self._timers[0][0] - time.monotonic(), 0), _LONGEST_SLEEP) if self._timers else None

    def _run_due_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()


class _Signals:
    """Turns signals into bytes on a socket pair, by the interpreter's wake-up descriptor."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[signal.Signals], None]] = {}
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._old_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def take(self, number: signal.Signals, callback: Callable[[signal.Signals], None]) -> None:
        self._callbacks[number] = callback
        self._old_handlers[number] = signal.signal(number, _handled_by_loop)

    @property
    def fd(self) -> int:
        return self._reader.fileno()

    def deliver(self) -> None:
        for number in self._reader.recv(64):
            if number in self._callbacks:
                self._callbacks[number](signal.Signals(number))

    def close(self) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._old_wakeup)
        self._reader.close()
        self._writer.close()


def _handled_by_loop(number: int, frame: FrameType | None) -> None:
    """Only here because Python writes to the wake-up descriptor for signals that have a handler."""
