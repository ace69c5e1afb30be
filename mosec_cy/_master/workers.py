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
    """The slots of all stages.

    Args:
        on_ready: called when a worker is ready.
        on_hopeless: told of a slot that never got ready, in as many attempts as are worth making.
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
        self._slots = {
            index: WorkerSlot(stage, index, plan.is_first(stage), plan.is_last(stage))
            for stage in plan.stages
            for index in stage.all_slots
        }
        self._retirements: dict[int, _Retirement] = {}
        self._forked = [stage.name for stage in plan.stages if stage.runtime.start_method == "fork"]
        self._rolling = Rolling(list(self._slots.values()), options.rolling == "surge", self._begin, self._retire)
        self._stages_awaited = {stage.number for stage in plan.stages}
        self._failures_told: dict[int, str] = {}  # the last one of each stage, until a replica of it is ready
        self._report = Report(reactor, lambda: self._rolling.described or "starting")

    @property
    def complete(self) -> bool:
        """Each stage has had a worker that was ready."""
        return not self._stages_awaited

    @property
    def alive(self) -> list[WorkerSlot]:
        return [slot for slot in self._slots.values() if slot.process is not None]

    @property
    def gone(self) -> bool:
        """No process is left, nor a helper of one."""
        return not self.alive and self._helpers.done

    def start(self) -> None:
        for slot in self._slots.values():
            if slot.worker_id is not None:
                self._begin(slot)

    def on_serving(self) -> None:
        """The service has begun to listen."""
        self._rolling.on_serving()

    def roll(self) -> None:
        """Replace all processes, one after the other, while the others serve."""
        if self._forked:
            _log.warning("%s: forked workers keep the code that this process has loaded", ", ".join(self._forked))
        self._rolling.ask()

    def on_drained(self, message: Message) -> None:
        """Core has given up the slot's process: what that one held is free, the slot may have a new one."""
        slot = self._slots[message.slot]
        if message.incarnation != slot.incarnation:
            return
        slot.drained = True
        if message.value:
            _log.error("%s ended with %d requests, which were answered 500", slot.name, message.value)
        self._restart_when_free(slot)

    def on_idle(self, message: Message) -> None:
        """Core has nothing more of the slot's process, which gets no more work, to wait for."""
        slot = self._slots[message.slot]
        if message.incarnation == slot.incarnation and slot.index in self._retirements:
            self._retirements[slot.index].on_idle()

    def on_overdue(self, message: Message) -> None:
        _log.warning("%s `forward` overran the timeout of its stage", self._slots[message.slot].name)

    def on_killed(self, message: Message) -> None:
        _log.error("%s killed, it did not end after its timeout", self._slots[message.slot].name)

    def on_core_replaced(self) -> None:
        """Tell the new core of all processes, and those of the new core; `_Attachments` says what becomes of each."""
        segment_fd, core_bell_fd = self._engine.descriptors
        self._common = dataclasses.replace(self._common, segment_fd=segment_fd, core_bell_fd=core_bell_fd)
        free = [slot for slot in self._slots.values() if slot.process is None]
        for slot in self.alive:
            slot.drained = False
            self._engine.segment.begin_slot(slot.index, slot.incarnation)
            self._introduce(slot)
            self._attachments.ask(slot)
            if slot.index in self._retirements:
                self._retirements[slot.index].tell_core()
        for slot in free:
            slot.drained = True
        for slot in free:  # after all others: what starts now, in this slot or in another one, introduces itself
            self._restart_when_free(slot)

    def cancel_starts(self) -> None:
        """Start no more processes, and end those that are not ready: they cannot hear of the shutdown."""
        self._stopping = True
        self._report.stop()
        self._rolling.cancel()
        for retirement in self._retirements.values():
            retirement.cancel()
        for slot in self._slots.values():
            if slot.restart is not None:
                slot.restart.cancel()
            if slot.process is not None and slot.state is State.STARTING:
                slot.process.kill()

    def stop(self) -> None:
        """Have each process finish what it holds and end."""
        self.cancel_starts()
        for slot in self.alive:
            self._engine.segment.stop_slot(slot.index)

    def kill(self) -> None:
        """Kill all processes, and their helpers as they end."""
        self._helpers.hurry()
        for slot in self.alive:
            assert slot.process is not None
            slot.process.kill()

    def reap(self) -> None:
        """Wait for the end of all processes, which have been killed, and of their helpers."""
        for slot in self.alive:
            assert slot.process is not None
            slot.process.reap(block=True)
        self._helpers.end_all({slot.pid for slot in self.alive})

    def close(self) -> None:
        self._report.close()
        for slot in self._slots.values():
            slot.close()

    # ---- one slot -----------------------------------------------------------------------------------

    def _begin(self, slot: WorkerSlot) -> None:
        """Start a process in a slot that is free."""
        slot.restart = None
        self._engine.segment.begin_slot(slot.index, slot.incarnation + 1)
        try:
            slot.start(self._common, self._release_master)
        except OSError:
            _log.exception("%s cannot start a process", slot.name)
            slot.last_words = "the system starts no process"
            slot.start_failed()
            slot.drained = True
            self._restart_when_free(slot)
            return
        assert slot.process is not None
        self._helpers.worker_started(slot.pid)
        self._report.begin(slot.index, slot.stage.name, slot.name)
        self._introduce(slot)
        self._reactor.watch(slot.fileno(), functools.partial(self._on_message, slot))
        self._reactor.watch(slot.process.pidfd, functools.partial(self._on_exit, slot))

    def _introduce(self, slot: WorkerSlot) -> None:
        """Tell core of the slot's process."""
        assert slot.process is not None
        self._engine.link.send(
            ToCore.SLOT_STARTED, slot.index, slot.incarnation, slot.pid, slot.home, slot.process.pidfd
        )

    def _retire(self, slot: WorkerSlot) -> None:
        """Have the slot become free: its process, if there is one, finishes what it has and ends."""
        if slot.process is not None:
            self._retirements[slot.index] = _Retirement(slot, self._engine, self._reactor, self._timeout, self._grace)
            return
        if slot.restart is not None:
            slot.restart.cancel()
            slot.restart = None
        self._restart_when_free(slot)

    def _on_message(self, slot: WorkerSlot) -> None:
        assert slot.inbox is not None
        assert slot.process is not None
        try:
            for message in slot.inbox.take():
                if message.get("ready") and slot.state is State.STARTING:
                    self._on_ready(slot)
                elif "step" in message and slot.state is State.STARTING:
                    self._report.enter(slot.index, Step(message["step"]))
                elif "failed" in message:
                    slot.failure, slot.failure_is_final = message["failed"], "final" in message
                elif "attached" in message:
                    self._attachments.done(slot, message["attached"])
                    self._offer(slot)
                elif "metrics" in message:
                    self._user_metrics.answered(slot.index, message["metrics"])
        except ValueError as error:
            slot.process.kill()
            slot.inbox.closed = True
            _log.error("%s killed, user code has written into its control socket: %s", slot.name, error)
        if slot.inbox.closed:
            self._reactor.unwatch(slot.fileno())

    def _on_ready(self, slot: WorkerSlot) -> None:
        slot.became_ready()
        self._user_metrics.joined(slot.index, slot.ask_for_metrics)
        self._failures_told.pop(slot.stage.number, None)
        self._report.ready(slot.index, slot.stage.name, slot.name)
        self._attachments.expect(slot)
        self._offer(slot)
        self._stages_awaited.discard(slot.stage.number)
        self._on_stage_ready()

    def _offer(self, slot: WorkerSlot) -> None:
        """The slot may get work, unless its process still serves a core before."""
        if slot.state is State.READY and not self._attachments.is_missing(slot):
            self._engine.link.send(ToCore.SLOT_READY, slot.index, slot.incarnation)
            self._rolling.on_ready(slot)

    def _on_exit(self, slot: WorkerSlot) -> None:
        assert slot.process is not None
        assert slot.inbox is not None
        if not slot.inbox.closed:
            self._on_message(slot)  # its last words
        if not slot.inbox.closed:  # a child of its own holds the other end
            self._reactor.unwatch(slot.fileno())
        self._reactor.unwatch(slot.process.pidfd)
        status = slot.process.reap(block=True)
        assert status is not None
        slot.helpers_remain = True
        self._helpers.begin(slot.name, slot.pid, slot.mark, functools.partial(self._on_alone, slot))
        slot.ended()
        self._tell_end(slot, status)
        self._report.forget(slot.index)
        self._attachments.forget(slot)
        self._user_metrics.left(slot.index)

    def _on_alone(self, slot: WorkerSlot) -> None:
        """The slot's process has ended, and its helpers have."""
        slot.helpers_remain = False
        self._on_gone()
        self._restart_when_free(slot)

    def _tell_end(self, slot: WorkerSlot, status: int) -> None:
        retirement = self._retirements.pop(slot.index, None)
        if retirement is not None:
            retirement.cancel()
            if status == 0 or retirement.killed:
                return
        slot.last_words = slot.failure or f"it ended with {child.describe(status)}"
        if self._rolling.is_trial(slot):  # says so itself
            return
        if self._stopping:
            return
        if slot.failure_is_final:
            _log.error("%s failed to start: %s", slot.name, slot.failure)
        elif slot.failure is not None:
            step = self._report.step_of(slot.index)
            if self._failures_told.get(slot.stage.number) == slot.failure:
                how = f" as before: {slot.failure.splitlines()[-1]}\n"
            else:
                how = f"\n{slot.failure}"
                self._failures_told[slot.stage.number] = slot.failure
            _log.error("%s failed to start%sIt failed while %s: %s", slot.name, how, step, slot.outlook)
        else:
            _log.error("%s ended by itself with %s: %s", slot.name, child.describe(status), slot.outlook)

    def _restart_when_free(self, slot: WorkerSlot) -> None:
        if self._stopping or slot.process is not None or slot.helpers_remain or not slot.drained or slot.restart:
            return
        if slot.worker_id is None or self._rolling.on_free(slot) or slot.restart is not None:
            return
        if slot.hopeless:
            self._on_hopeless(slot)
            return
        self._report.failed(slot.index, slot.stage.name, slot.name, slot.delay())
        slot.restart = self._reactor.call_later(slot.delay(), functools.partial(self._begin, slot))


# ---- the end of one process while the service goes on ----------------------------------------------------


class _Retirement:
    """Ends the process of a slot, at once if it is not ready yet.

    Args:
        slot: has a process.
        engine: core tells when the process holds no request any more.
        reactor: the master's loop.
        timeout: the service's, in s: by then all clients of the process have had an answer.
        grace: s; for the end itself.
    """

    def __init__(self, slot: WorkerSlot, engine: Engine, reactor: Reactor, timeout: float, grace: float) -> None:
        self.killed = False
        self._slot = slot
        self._engine = engine
        self._reactor = reactor
        self._grace = grace
        self._timer: Timer | None = None
        serves = slot.is_ready
        slot.state = State.RETIRING
        if serves:
            self._timer = reactor.call_later(timeout, self.on_idle)
            self.tell_core()
        else:
            self._kill()

    def tell_core(self) -> None:
        """Have core dispatch nothing more to the process, and say when it is idle."""
        self._engine.link.send(ToCore.SLOT_DRAIN, self._slot.index, self._slot.incarnation)

    def on_idle(self) -> None:
        """No client waits for the process any more."""
        self.cancel()
        self._engine.segment.stop_slot(self._slot.index)
        self._timer = self._reactor.call_later(self._grace, self._kill_late)

    def cancel(self) -> None:
        """The process has ended, or the end of the whole service takes care of it."""
        if self._timer is not None:
            self._timer.cancel()

    def _kill_late(self) -> None:
        _log.warning("%s killed, it did not end within %g s", self._slot.name, self._grace)
        self._kill()

    def _kill(self) -> None:
        assert self._slot.process is not None
        self.killed = True
        self._slot.process.kill()


# ---- from the memory of a core that has died to that of the next one -------------------------------------


class _Attachments:
    """Which processes still look into the memory of a dead core, and how long they may.

    What the death of core means for a slot depends on where it stood; nothing else about the slot changes:

    - no process, a restart is due: nothing; the next process starts with the new descriptors;
    - no process, core had not reported the slot as drained yet: with fresh memory it is;
    - starting: the new core is told of the process. It inherited the old descriptors; the message waits in its control
      socket until it is ready and reads there. Core hears that the slot is ready when it has also attached;
    - ready, asleep: the message wakes it, it attaches at once;
    - ready, at work: it finishes, the result is dropped, and it attaches before it would take the next batch;
    - ready, and hangs: it is killed when the time-out of its stage (in `forward`; else that of the service, if it is
      longer) and the grace period have passed, and started again;
    - has ended, unknown to master: the new core is told of a process that is no more, and reports that at once;
    - asked to stop: the order lies in the new memory too, the process finds it there after it has attached.

    Meanwhile between two cores, while a replacement waits, slots live on: what they say to the dead core goes nowhere,
    and is said again when the next one starts.

    Args:
        reactor: the master's loop.
        engine: they attach to its memory.
        timeout, grace: the service's, in s.
    """

    def __init__(self, reactor: Reactor, engine: Engine, timeout: float, grace: float) -> None:
        self._reactor = reactor
        self._engine = engine
        self._timeout = timeout
        self._grace = grace
        self._awaited: dict[int, tuple[int, Timer | None]] = {}  # by slot: number of the core, its time-out

    def ask(self, slot: WorkerSlot) -> None:
        """Have the slot's process attach to the engine's memory."""
        self.forget(slot)
        assert slot.process is not None
        try:
            slot.ask_to_attach(self._engine.number, self._engine.descriptors)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, which will be heard of; or user code has closed its socket: then its time-out kills it
        except OSError as error:  # it reads nothing, and its socket is full
            _log.error("%s killed, it cannot be told of the new core: %s", slot.name, error)
            slot.process.kill()
        self._awaited[slot.index] = self._engine.number, None
        if slot.state is State.READY:
            self.expect(slot)

    def expect(self, slot: WorkerSlot) -> None:
        """The slot's process is ready: if it has yet to attach, its time runs from now on."""
        if slot.index in self._awaited:
            number, _ = self._awaited[slot.index]
            timer = self._reactor.call_later(self._attach_timeout(slot), functools.partial(self._give_up, slot))
            self._awaited[slot.index] = number, timer

    def done(self, slot: WorkerSlot, number: int) -> None:
        """The slot's process says that it has attached to the memory of the core of that number."""
        if slot.index in self._awaited and self._awaited[slot.index][0] == number:
            self.forget(slot)

    def is_missing(self, slot: WorkerSlot) -> bool:
        """The slot's process has yet to attach."""
        return slot.index in self._awaited

    def forget(self, slot: WorkerSlot) -> None:
        """The slot's process has attached, or ended."""
        _, timer = self._awaited.pop(slot.index, (0, None))
        if timer is not None:
            timer.cancel()

    def _attach_timeout(self, slot: WorkerSlot) -> float:
        """Seconds that a slot's process has once it is ready, as `_time_limit` in dispatch.pyx."""
        timeout = slot.stage.runtime.timeout or self._timeout
        if slot.index not in self._engine.in_forward:
            timeout = max(timeout, self._timeout)
        return timeout + self._grace

    def _give_up(self, slot: WorkerSlot) -> None:
        assert slot.process is not None
        _log.error("%s killed, it did not take up the work of the new core", slot.name)
        slot.process.kill()
