"""The workers' way from the memory of a core that has died to that of the next one.

What the death of core means for a row depends on where it stood; nothing else about the row changes:

- no process, a restart is due: nothing; the next process starts with the new descriptors;
- no process, core had not reported the row as drained yet: with fresh memory it is;
- starting: the new core is told of the process. It inherited the old descriptors; the message waits in its control
  socket until it is ready and reads there. Core hears that the row is ready when it has also attached;
- ready, asleep: the message wakes it, it attaches at once;
- ready, at work: it finishes, nobody hears the result, and it attaches before it would take the next batch;
- ready, and hangs: it is killed when the time-out of its stage (in `forward`; else that of the service, if it is
  longer) and the grace period have passed, and started again;
- has ended, unknown to master: the new core is told of a process that is no more, and reports that at once;
- asked to stop: the order lies in the new memory too, the process finds it there after it has attached.

Meanwhile between two cores, while a replacement waits, rows live on: what they say to the dead core goes nowhere, and
is said again when the next one starts.
"""

from __future__ import annotations

import functools

from mosec_cy.engine import Engine
from mosec_cy.log import get_logger
from mosec_cy.reactor import Reactor, Timer
from mosec_cy.worker_row import State, WorkerRow

_log = get_logger()


class Attachments:
    """Which processes still look into the memory of a dead core, and how long they may.

    Args:
        reactor: the master's loop.
        engine: to whose memory they attach.
        timeout, grace: the service's, in s.
    """

    def __init__(self, reactor: Reactor, engine: Engine, timeout: float, grace: float) -> None:
        self._reactor = reactor
        self._engine = engine
        self._timeout = timeout
        self._grace = grace
        self._awaited: dict[int, tuple[int, Timer | None]] = {}  # by row: number of the core, end of patience

    def ask(self, row: WorkerRow) -> None:
        """Have the row's process attach to the engine's memory."""
        self.forget(row)
        assert row.process is not None
        try:
            row.ask_to_attach(self._engine.number, self._engine.descriptors)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, which will be heard of; or user code has closed its socket: then its patience ends
        except OSError as error:  # it reads nothing, and its socket is full
            _log.error("%s killed, it cannot be told of the new core: %s", row.name, error)
            row.process.kill()
        self._awaited[row.index] = self._engine.number, None
        if row.state is State.READY:
            self.expect(row)

    def expect(self, row: WorkerRow) -> None:
        """The row's process is ready: if it has yet to attach, its time runs from now on."""
        if row.index in self._awaited:
            number, _ = self._awaited[row.index]
            timer = self._reactor.call_later(self._patience(row), functools.partial(self._give_up, row))
            self._awaited[row.index] = number, timer

    def done(self, row: WorkerRow, number: int) -> None:
        """The row's process says that it has attached to the memory of the core of that number."""
        if row.index in self._awaited and self._awaited[row.index][0] == number:
            self.forget(row)

    def is_missing(self, row: WorkerRow) -> bool:
        """The row's process has yet to attach."""
        return row.index in self._awaited

    def forget(self, row: WorkerRow) -> None:
        """The row's process has attached, or ended."""
        _, timer = self._awaited.pop(row.index, (0, None))
        if timer is not None:
            timer.cancel()

    def _patience(self, row: WorkerRow) -> float:
        """Seconds that a row's process has once it is ready, as in _row_watch."""
        timeout = row.stage.runtime.timeout or self._timeout
        if row.index not in self._engine.in_forward:
            timeout = max(timeout, self._timeout)
        return timeout + self._grace

    def _give_up(self, row: WorkerRow) -> None:
        assert row.process is not None
        _log.error("%s killed, it did not take up the work of the new core", row.name)
        row.process.kill()
