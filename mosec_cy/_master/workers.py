"""All worker processes: started, watched, retired, and started again after a while when they end."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from mosec_cy._config.options import Options
from mosec_cy._config.plan import Plan
from mosec_cy._master import child
from mosec_cy._master.core import Engine, Message, ToCore
from mosec_cy._master.guard import HelperEnds
from mosec_cy._master.progress import Report, Step
from mosec_cy._master.reactor import Reactor, Timer
from mosec_cy._master.rolling import Rolling
from mosec_cy._master.slot import CommonBoot, State, WorkerSlot
from mosec_cy._master.user_metrics import UserMetrics
from mosec_cy.log import get_logger

_log = get_logger()


class Workers:
    """The rows of all stages.

    Args:
        on_ready: called when a worker is ready.
        on_hopeless: told of a row that never got ready, in as many attempts as are worth making.
        on_gone: called when a process has ended, and its helpers have.
        release_master: called in a forked worker, to close what is the master's.
    """

    def __init__(
        self,
        plan: Plan,
        options: Options,
        engine: Engine,
        common: CommonBoot,
        reactor: Reactor,
        helper_ends: HelperEnds,
        user_metrics: UserMetrics,
        *,
        on_ready: Callable[[], None],
        on_hopeless: Callable[[WorkerSlot], None],
        on_gone: Callable[[], None],
        release_master: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._common = common
        self._reactor = reactor
        self._helpers = helper_ends
        self._user_metrics = user_metrics
        self._on_stage_ready = on_ready
        self._on_hopeless = on_hopeless
        self._on_gone = on_gone
        self._attachments = _Attachments(reactor, engine, options.timeout / 1000, options.kill_grace / 1000)
        self._release_master = release_master
        self._stopping = False
        self._timeout = options.timeout / 1000
        self._grace = options.kill_grace / 1000
        self._rows = {
            index: WorkerSlot(stage, index, plan.is_first(stage), plan.is_last(stage))
            for stage in plan.stages
            for index in stage.all_rows
        }
        self._retirements: dict[int, _Retirement] = {}
        self._forked = [stage.name for stage in plan.stages if stage.runtime.start_method == "fork"]
        self._rolling = Rolling(list(self._rows.values()), options.rolling == "surge", self._begin, self._retire)
        self._stages_awaited = {stage.number for stage in plan.stages}
        self._failures_told: dict[int, str] = {}  # the last one of each stage, until a replica of it is ready
        self._report = Report(reactor, lambda: self._rolling.described or "starting")

    @property
    def complete(self) -> bool:
        """Each stage has had a worker that was ready."""
        return not self._stages_awaited

    @property
    def alive(self) -> list[WorkerSlot]:
        return [row for row in self._rows.values() if row.process is not None]

    @property
    def gone(self) -> bool:
        """No process is left, nor a helper of one."""
        return not self.alive and self._helpers.done

    def start(self) -> None:
        for row in self._rows.values():
            if row.worker_id is not None:
                self._begin(row)

    def on_serving(self) -> None:
        """The service has begun to listen."""
        self._rolling.on_serving()

    def roll(self) -> None:
        """Replace all processes, one after the other, while the others serve."""
        if self._forked:
            _log.warning("%s: forked workers keep the code that this process has loaded", ", ".join(self._forked))
        self._rolling.ask()

    def on_drained(self, message: Message) -> None:
        """Core has given up the row's process: what that one held is free, the row may have a new one."""
        row = self._rows[message.row]
        if message.incarnation != row.incarnation:
            return
        row.drained = True
        if message.value:
            _log.error("%s ended with %d requests, which were answered 500", row.name, message.value)
        self._restart_when_free(row)

    def on_idle(self, message: Message) -> None:
        """Core has nothing more of the row's process, which gets no more work, to wait for."""
        row = self._rows[message.row]
        if message.incarnation == row.incarnation and row.index in self._retirements:
            self._retirements[row.index].on_idle()

    def on_overdue(self, message: Message) -> None:
        _log.warning("%s `forward` overran the timeout of its stage", self._rows[message.row].name)

    def on_killed(self, message: Message) -> None:
        _log.error("%s killed, it did not end after its timeout", self._rows[message.row].name)

    def on_core_replaced(self) -> None:
        """Tell the new core of all processes, and those of the new core; `_Attachments` says what becomes of each."""
        segment_fd, core_bell_fd = self._engine.descriptors
        self._common = dataclasses.replace(self._common, segment_fd=segment_fd, core_bell_fd=core_bell_fd)
        free = [row for row in self._rows.values() if row.process is None]
        for row in self.alive:
            row.drained = False
            self._engine.segment.begin_row(row.index, row.incarnation)
            self._introduce(row)
            self._attachments.ask(row)
            if row.index in self._retirements:
                self._retirements[row.index].tell_core()
        for row in free:
            row.drained = True
        for row in free:  # after all others: what starts now, in this row or in another one, introduces itself
            self._restart_when_free(row)

    def cancel_starts(self) -> None:
        """Start no more processes, and end those that are not ready: they cannot hear of the shutdown."""
        self._stopping = True
        self._report.stop()
        self._rolling.cancel()
        for retirement in self._retirements.values():
            retirement.cancel()
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
        """Kill all processes, and their helpers as they end."""
        self._helpers.hurry()
        for row in self.alive:
            assert row.process is not None
            row.process.kill()

    def reap(self) -> None:
        """Wait for the end of all processes, which have been killed, and of their helpers."""
        for row in self.alive:
            assert row.process is not None
            row.process.reap(block=True)
        self._helpers.end_all({row.pid for row in self.alive})

    def close(self) -> None:
        self._report.close()
        for row in self._rows.values():
            row.close()

    # ---- one row -----------------------------------------------------------------------------------

    def _begin(self, row: WorkerSlot) -> None:
        """Start a process in a row that is free."""
        row.restart = None
        self._engine.segment.begin_row(row.index, row.incarnation + 1)
        try:
            row.start(self._common, self._release_master)
        except OSError:
            _log.exception("%s cannot start a process", row.name)
            row.last_words = "the system starts no process"
            row.start_failed()
            row.drained = True
            self._restart_when_free(row)
            return
        assert row.process is not None
        self._helpers.worker_started(row.pid)
        self._report.begin(row.index, row.stage.name, row.name)
        self._introduce(row)
        self._reactor.watch(row.fileno(), functools.partial(self._on_message, row))
        self._reactor.watch(row.process.pidfd, functools.partial(self._on_exit, row))

    def _introduce(self, row: WorkerSlot) -> None:
        """Tell core of the row's process."""
        assert row.process is not None
        self._engine.link.send(ToCore.ROW_STARTED, row.index, row.incarnation, row.pid, row.home, row.process.pidfd)

    def _retire(self, row: WorkerSlot) -> None:
        """Have the row become free: its process, if there is one, finishes what it has and ends."""
        if row.process is not None:
            self._retirements[row.index] = _Retirement(row, self._engine, self._reactor, self._timeout, self._grace)
            return
        if row.restart is not None:
            row.restart.cancel()
            row.restart = None
        self._restart_when_free(row)

    def _on_message(self, row: WorkerSlot) -> None:
        assert row.inbox is not None
        assert row.process is not None
        try:
            for message in row.inbox.take():
                if message.get("ready") and row.state is State.STARTING:
                    self._on_ready(row)
                elif "step" in message and row.state is State.STARTING:
                    self._report.enter(row.index, Step(message["step"]))
                elif "failed" in message:
                    row.failure, row.failure_is_final = message["failed"], "final" in message
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

    def _on_ready(self, row: WorkerSlot) -> None:
        row.became_ready()
        self._user_metrics.joined(row.index, row.ask_for_metrics)
        self._failures_told.pop(row.stage.number, None)
        self._report.ready(row.index, row.stage.name, row.name)
        self._attachments.expect(row)
        self._offer(row)
        self._stages_awaited.discard(row.stage.number)
        self._on_stage_ready()

    def _offer(self, row: WorkerSlot) -> None:
        """The row may get work, unless its process still serves a core before."""
        if row.state is State.READY and not self._attachments.is_missing(row):
            self._engine.link.send(ToCore.ROW_READY, row.index, row.incarnation)
            self._rolling.on_ready(row)

    def _on_exit(self, row: WorkerSlot) -> None:
        assert row.process is not None
        assert row.inbox is not None
        if not row.inbox.closed:
            self._on_message(row)  # its last words
        if not row.inbox.closed:  # a child of its own holds the other end
            self._reactor.unwatch(row.fileno())
        self._reactor.unwatch(row.process.pidfd)
        status = row.process.reap(block=True)
        assert status is not None
        row.helpers_remain = True
        self._helpers.begin(row.name, row.pid, row.mark, functools.partial(self._on_alone, row))
        row.ended()
        self._tell_end(row, status)
        self._report.forget(row.index)
        self._attachments.forget(row)
        self._user_metrics.left(row.index)

    def _on_alone(self, row: WorkerSlot) -> None:
        """The row's process has ended, and its helpers have."""
        row.helpers_remain = False
        self._on_gone()
        self._restart_when_free(row)

    def _tell_end(self, row: WorkerSlot, status: int) -> None:
        retirement = self._retirements.pop(row.index, None)
        if retirement is not None:
            retirement.cancel()
            if status == 0 or retirement.killed:
                return
        row.last_words = row.failure or f"it ended with {child.describe(status)}"
        if self._rolling.is_trial(row):  # says so itself
            return
        if self._stopping:
            return
        if row.failure_is_final:
            _log.error("%s failed to start: %s", row.name, row.failure)
        elif row.failure is not None:
            step = self._report.step_of(row.index)
            if self._failures_told.get(row.stage.number) == row.failure:
                how = f" as before: {row.failure.splitlines()[-1]}\n"
            else:
                how = f"\n{row.failure}"
                self._failures_told[row.stage.number] = row.failure
            _log.error("%s failed to start%sIt failed while %s: %s", row.name, how, step, row.outlook)
        else:
            _log.error("%s ended by itself with %s: %s", row.name, child.describe(status), row.outlook)

    def _restart_when_free(self, row: WorkerSlot) -> None:
        if self._stopping or row.process is not None or row.helpers_remain or not row.drained or row.restart:
            return
        if row.worker_id is None or self._rolling.on_free(row) or row.restart is not None:
            return
        if row.hopeless:
            self._on_hopeless(row)
            return
        self._report.failed(row.index, row.stage.name, row.name, row.delay())
        row.restart = self._reactor.call_later(row.delay(), functools.partial(self._begin, row))


# ---- the end of one process while the service goes on ----------------------------------------------------


class _Retirement:
    """Ends the process of a row, at once if it is not ready yet.

    Args:
        row: has a process.
        engine: core tells when the process holds no request any more.
        reactor: the master's loop.
        timeout: the service's, in s: by then all clients of the process have had an answer.
        grace: s; for the end itself.
    """

    def __init__(self, row: WorkerSlot, engine: Engine, reactor: Reactor, timeout: float, grace: float) -> None:
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


# ---- from the memory of a core that has died to that of the next one -------------------------------------


class _Attachments:
    """Which processes still look into the memory of a dead core, and how long they may.

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

    Meanwhile between two cores, while a replacement waits, rows live on: what they say to the dead core goes nowhere,
    and is said again when the next one starts.

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

    def ask(self, row: WorkerSlot) -> None:
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

    def expect(self, row: WorkerSlot) -> None:
        """The row's process is ready: if it has yet to attach, its time runs from now on."""
        if row.index in self._awaited:
            number, _ = self._awaited[row.index]
            timer = self._reactor.call_later(self._patience(row), functools.partial(self._give_up, row))
            self._awaited[row.index] = number, timer

    def done(self, row: WorkerSlot, number: int) -> None:
        """The row's process says that it has attached to the memory of the core of that number."""
        if row.index in self._awaited and self._awaited[row.index][0] == number:
            self.forget(row)

    def is_missing(self, row: WorkerSlot) -> bool:
        """The row's process has yet to attach."""
        return row.index in self._awaited

    def forget(self, row: WorkerSlot) -> None:
        """The row's process has attached, or ended."""
        _, timer = self._awaited.pop(row.index, (0, None))
        if timer is not None:
            timer.cancel()

    def _patience(self, row: WorkerSlot) -> float:
        """Seconds that a row's process has once it is ready, as in _row_watch."""
        timeout = row.stage.runtime.timeout or self._timeout
        if row.index not in self._engine.in_forward:
            timeout = max(timeout, self._timeout)
        return timeout + self._grace

    def _give_up(self, row: WorkerSlot) -> None:
        assert row.process is not None
        _log.error("%s killed, it did not take up the work of the new core", row.name)
        row.process.kill()
