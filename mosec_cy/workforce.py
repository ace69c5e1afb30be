"""All worker processes: started, watched, and started again after a while when they end."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

from mosec_cy import child
from mosec_cy.attachments import Attachments
from mosec_cy.core_link import Message, ToCore
from mosec_cy.engine import Engine
from mosec_cy.log import get_logger
from mosec_cy.plan import Plan
from mosec_cy.reactor import Reactor
from mosec_cy.user_metrics import UserMetrics
from mosec_cy.worker_row import CommonBoot, State, WorkerRow

_log = get_logger()


class Observer(Protocol):
    """Who is told of what happens to the workers as a whole."""

    def on_worker_ready(self) -> None: ...

    def on_hopeless_worker(self, name: str) -> None: ...

    def on_worker_gone(self) -> None: ...


class Workforce:
    """The rows of all stages.

    Args:
        release_master: called in a forked worker, to close what is the master's.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        common: CommonBoot,
        reactor: Reactor,
        observer: Observer,
        user_metrics: UserMetrics,
        attachments: Attachments,
        release_master: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._common = common
        self._reactor = reactor
        self._observer = observer
        self._user_metrics = user_metrics
        self._attachments = attachments
        self._release_master = release_master
        self._stopping = False
        self._rows = {
            index: WorkerRow(stage, index, plan.is_first(stage), plan.is_last(stage))
            for stage in plan.stages
            for index in stage.rows
        }
        self._stages_awaited = {stage.number for stage in plan.stages}

    @property
    def complete(self) -> bool:
        """Each stage has had a worker that was ready."""
        return not self._stages_awaited

    @property
    def alive(self) -> list[WorkerRow]:
        return [row for row in self._rows.values() if row.process is not None]

    def start(self) -> None:
        for row in self._rows.values():
            self._start(row)

    def on_drained(self, message: Message) -> None:
        """Core has given up the row's process: what that one held is free, the row may have a new one."""
        row = self._rows[message.row]
        if message.incarnation != row.incarnation:
            return
        row.drained = True
        if message.value:
            _log.error("%s ended with %d requests, which were answered 500", row.name, message.value)
        self._restart_when_free(row)

    def on_overdue(self, message: Message) -> None:
        _log.warning("%s `forward` overran the timeout of its stage", self._rows[message.row].name)

    def on_killed(self, message: Message) -> None:
        _log.error("%s killed, it did not end after its timeout", self._rows[message.row].name)

    def on_core_replaced(self) -> None:
        """Tell the new core of all processes, and those of the new core; see `attachments` for what becomes of each."""
        segment_fd, core_bell_fd = self._engine.descriptors
        self._common = dataclasses.replace(self._common, segment_fd=segment_fd, core_bell_fd=core_bell_fd)
        for row in self._rows.values():
            if row.process is None:
                row.drained = True
                self._restart_when_free(row)
            else:
                row.drained = False
                self._engine.segment.begin_row(row.index, row.incarnation)
                self._introduce(row)
                self._attachments.ask(row, self._engine)

    def cancel_starts(self) -> None:
        """Start no more processes, and end those that are not ready: they cannot hear of the shutdown."""
        self._stopping = True
        for row in self._rows.values():
            if row.restart is not None:
                row.restart.cancel()
            if row.process is not None and row.state is State.STARTING:
                row.process.kill()

    def stop(self) -> None:
        """Have each process finish what it holds and end."""
        self.cancel_starts()
        for row in self.alive:
            self._engine.segment.stop_row(row.index)

    def kill(self) -> None:
        for row in self.alive:
            assert row.process is not None
            row.process.kill()

    def reap(self) -> None:
        """Wait for the end of all processes; they have been killed."""
        for row in self.alive:
            assert row.process is not None
            row.process.reap(block=True)

    def close(self) -> None:
        for row in self._rows.values():
            row.close()

    # ---- one row -----------------------------------------------------------------------------------

    def _start(self, row: WorkerRow) -> None:
        row.restart = None
        self._engine.segment.begin_row(row.index, row.incarnation + 1)
        try:
            row.start(self._common, self._release_master)
        except OSError:
            _log.exception("%s cannot start a process", row.name)
            row.start_failed()
            row.drained = True
            self._restart_when_free(row)
            return
        assert row.process is not None
        self._introduce(row)
        self._reactor.watch(row.fileno(), functools.partial(self._on_message, row))
        self._reactor.watch(row.process.pidfd, functools.partial(self._on_exit, row))

    def _introduce(self, row: WorkerRow) -> None:
        """Tell core of the row's process."""
        assert row.process is not None
        pid, pidfd = row.process.pid, row.process.pidfd
        self._engine.link.send(ToCore.ROW_STARTED, row.index, row.incarnation, pid, pidfd=pidfd)

    def _on_message(self, row: WorkerRow) -> None:
        assert row.inbox is not None
        assert row.process is not None
        try:
            for message in row.inbox.take():
                if message.get("ready"):
                    self._on_ready(row)
                elif "failed" in message:
                    row.failure = message["failed"]
                elif "attached" in message:
                    self._attachments.done(row, message["attached"])
                    self._offer(row)
                elif "metrics" in message:
                    self._user_metrics.answered(row.index, message["metrics"])
        except ValueError as error:
            row.process.kill()
            row.inbox.closed = True
            _log.error("%s killed, user code has written into its control socket: %s", row.name, error)
        if row.inbox.closed:
            self._reactor.unwatch(row.fileno())

    def _on_ready(self, row: WorkerRow) -> None:
        row.became_ready()
        self._user_metrics.joined(row.index, row.ask_for_metrics)
        _log.info("%s ready", row.name)
        self._attachments.expect(row)
        self._offer(row)
        self._stages_awaited.discard(row.stage.number)
        self._observer.on_worker_ready()

    def _offer(self, row: WorkerRow) -> None:
        """Tell core that the row may get work, unless its process still serves a core before."""
        if row.state is State.READY and not self._attachments.is_missing(row):
            self._engine.link.send(ToCore.ROW_READY, row.index, row.incarnation)

    def _on_exit(self, row: WorkerRow) -> None:
        assert row.process is not None
        assert row.inbox is not None
        if not row.inbox.closed:
            self._on_message(row)  # its last words
        if not row.inbox.closed:  # a child of its own holds the other end
            self._reactor.unwatch(row.fileno())
        self._reactor.unwatch(row.process.pidfd)
        status = row.process.reap(block=True)
        assert status is not None
        if row.failure is not None:
            _log.error("%s failed to start\n%s", row.name, row.failure)
        elif not self._stopping:
            _log.error("%s ended by itself with %s", row.name, child.describe(status))
        row.ended()
        self._attachments.forget(row)
        self._user_metrics.left(row.index)
        self._observer.on_worker_gone()
        self._restart_when_free(row)

    def _restart_when_free(self, row: WorkerRow) -> None:
        if self._stopping or row.process is not None or not row.drained or row.restart is not None:
            return
        if row.hopeless:
            self._observer.on_hopeless_worker(row.name)
            return
        row.restart = self._reactor.call_later(row.delay(), functools.partial(self._start, row))
