"""The end of one worker process while the service goes on: it gets no more work, finishes what it has, and ends."""

from __future__ import annotations

from mosec_cy.core_link import ToCore
from mosec_cy.engine import Engine
from mosec_cy.log import get_logger
from mosec_cy.reactor import Reactor, Timer
from mosec_cy.worker_row import State, WorkerRow

_log = get_logger()


class Retirement:
    """Ends the process of a row, at once if it is not ready yet.

    Args:
        row: has a process.
        engine: core tells when the process holds no request any more.
        reactor: the master's loop.
        timeout: the service's, in s: by then all clients of the process have had an answer.
        grace: s; for the end itself.
    """

    def __init__(self, row: WorkerRow, engine: Engine, reactor: Reactor, timeout: float, grace: float) -> None:
        self.killed = False
        self._row = row
        self._engine = engine
        self._reactor = reactor
        self._grace = grace
        self._timer: Timer | None = None
        serves = row.is_ready
        row.state = State.RETIRING
        if serves:
            self._timer = reactor.call_later(timeout, self.on_idle)
            self.tell_core()
        else:
            self._kill()

    def tell_core(self) -> None:
        """Have core hand the process nothing more, and say when it is idle."""
        self._engine.link.send(ToCore.ROW_DRAIN, self._row.index, self._row.incarnation)

    def on_idle(self) -> None:
        """No client waits for the process any more."""
        self.cancel()
        self._engine.segment.stop_row(self._row.index)
        self._timer = self._reactor.call_later(self._grace, self._kill_late)

    def cancel(self) -> None:
        """The process has ended, or the end of the whole service takes care of it."""
        if self._timer is not None:
            self._timer.cancel()

    def _kill_late(self) -> None:
        _log.warning("%s killed, it did not end within %g s", self._row.name, self._grace)
        self._kill()

    def _kill(self) -> None:
        assert self._row.process is not None
        self.killed = True
        self._row.process.kill()
