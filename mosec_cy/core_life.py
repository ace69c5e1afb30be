"""Core is watched, and replaced when it dies: its memory is given up with it, the next one gets fresh memory."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from mosec_cy import child
from mosec_cy.core_link import FromCore, Message
from mosec_cy.engine import Engine
from mosec_cy.log import get_logger
from mosec_cy.reactor import Reactor, Timer

WINDOW = 30.0  # s
MOST_DEATHS = 5  # within the window
MOST_FAILED_STARTS = 3  # in a row
PATIENCE = 30.0  # s, from the start of core to its first word; and with a system that has nothing to start one with
TRY_AGAIN = 0.2  # s, meanwhile
FIRST_DELAY = 0.1  # s, before the second replacement within the window; the first one does not wait
LONGEST_DELAY = 2.0

_log = get_logger()


class Observer(Protocol):
    """Who is told of what core says and what becomes of it."""

    @property
    def wants_core(self) -> bool:
        """False once the shutdown has begun: then a core that ends is not replaced."""

    def on_core_message(self, message: Message) -> None: ...

    def on_core_replaced(self) -> None:
        """The engine has another core with other memory; it may hear orders, and knows none."""

    def on_core_gone(self, failure: str | None) -> None:
        """There is no core and there will be none; `failure`: why that is not in order."""


class CoreLife:
    """Which core runs, since when, and how often it has died.

    One that dies is replaced: at once, or after a moment if it has died shortly before. One that dies more than
    `MOST_DEATHS` times within `WINDOW`, or `MOST_FAILED_STARTS` times in a row before it ran, is given up. So is the
    system, when for `PATIENCE` it has no memory, process or descriptor for one: models took longer than that to load.
    """

    def __init__(self, engine: Engine, reactor: Reactor, observer: Observer) -> None:
        self._engine = engine
        self._reactor = reactor
        self._observer = observer
        self._deaths: deque[float] = deque()
        self._failed_starts = 0
        self._watched = False
        self._lacking_since: float | None = None  # what another core needs
        self._next: Timer | None = None  # a replacement that waits
        self._patience: Timer | None = None

    def begin(self) -> None:
        """Watch the core that the engine has started."""
        link = self._engine.link
        self._reactor.watch(link.fileno(), self._on_readable)
        self._reactor.watch(link.process.pidfd, self._on_exit)
        self._watched = True
        self._patience = self._reactor.call_later(PATIENCE, self._lose_patience)

    def stop(self) -> bool:
        """Replace core no more; False if none runs, so that none will be heard of."""
        if self._next is not None:
            self._next.cancel()
        return self._next is None

    def _on_readable(self) -> None:
        for message in self._engine.link.take():
            if message.kind == FromCore.RUNNING:
                self._on_running()
            else:
                self._observer.on_core_message(message)
        if self._engine.link.closed:
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.unwatch(self._engine.link.fileno())

    def _on_running(self) -> None:
        self._failed_starts = 0
        self._settle()
        if self._deaths:
            _log.info("core is back after %d ms", (time.monotonic() - self._deaths[-1]) * 1000)

    def _lose_patience(self) -> None:
        _log.error("core killed, it did not start within %g s", PATIENCE)
        self._engine.link.process.kill()

    def _settle(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _on_exit(self) -> None:
        link = self._engine.link
        if not link.closed:
            self._on_readable()  # its last words
        self._stop_listening()
        self._reactor.unwatch(link.process.pidfd)
        ran = self._patience is None
        self._settle()
        status = link.process.reap(block=True)
        assert status is not None
        if self._observer.wants_core:
            _log.error("core ended with %s: its connections are lost", child.describe(status))
            self._replace(ran)
        else:
            in_order = status in (0, child.UNKNOWN)
            self._observer.on_core_gone(None if in_order else f"core ended with {child.describe(status)}")

    def _replace(self, ran: bool) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - WINDOW:
            self._deaths.popleft()
        self._failed_starts += not ran
        if self._failed_starts >= MOST_FAILED_STARTS:
            self._observer.on_core_gone(f"core ended {self._failed_starts} times before it ran")
        elif len(self._deaths) > MOST_DEATHS:
            self._observer.on_core_gone(f"core ended {len(self._deaths)} times within {WINDOW:g} s")
        elif len(self._deaths) == 1:
            self._start()
        else:
            delay = min(FIRST_DELAY * 2 ** (len(self._deaths) - 2), LONGEST_DELAY)
            self._next = self._reactor.call_later(delay, self._start)

    def _start(self) -> None:
        self._next = None
        try:
            self._engine.renew()
        except OSError:
            self._wait_for_the_system()
            return
        self._lacking_since = None
        self.begin()
        self._observer.on_core_replaced()

    def _wait_for_the_system(self) -> None:
        now = time.monotonic()
        if self._lacking_since is None:
            self._lacking_since = now
            _log.exception("another core cannot be started now")
        if now - self._lacking_since < PATIENCE:
            self._next = self._reactor.call_later(TRY_AGAIN, self._start)
        else:
            self._observer.on_core_gone(f"no other core could be started for {PATIENCE:g} s")
