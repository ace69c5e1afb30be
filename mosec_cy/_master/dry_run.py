"""`--dry-run`: the examples go through each route, with one process a stage and without a port."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from mosec_cy._config.options import Options
from mosec_cy._config.plan import Plan, Stage
from mosec_cy._master import child
from mosec_cy._master.child import Daemon
from mosec_cy._master.guard import Guard
from mosec_cy._master.progress import Report, Step
from mosec_cy._master.reactor import Reactor
from mosec_cy._master.slot import CommonBoot, WorkerSlot
from mosec_cy._process.dry_run import LARGEST_MESSAGE
from mosec_cy._process.helpers import Origin
from mosec_cy.log import get_logger
from mosec_cy.worker import steps

_log = get_logger()


class _Failure(Exception):
    """The dry run is over; the text says why."""


def run(plan: Plan, options: Options, daemons: Sequence[Daemon]) -> int:
    """Try all routes; the exit status: 0, or 1 after an error in the log."""
    with ExitStack() as closing:
        # A shell ignores it for what a script runs in the background; as when serving, it ends this all the same.
        closing.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        for daemon in daemons:
            closing.callback(daemon.wait)
            closing.callback(daemon.kill)
        reactor = Reactor()
        closing.callback(reactor.close)
        report = Report(reactor, lambda: "in the dry run")
        closing.callback(report.close)
        try:
            stages = _start(plan, options, closing, reactor, report)
            for path, numbers in plan.routes.items():
                _try_route(path, [stages[number] for number in numbers])
        except _Failure as failure:
            report.stop()
            _log.error("%s", failure)
            return 1
        except KeyboardInterrupt:
            report.stop()
            _log.info("SIGINT: the dry run ends")
            return 128 + signal.SIGINT
    _log.info("dry run successful")
    return 0


def _start(plan: Plan, options: Options, closing: ExitStack, reactor: Reactor, report: Report) -> dict[int, _Stage]:
    """All stages at once, as when serving: models are loaded side by side."""
    origin = Origin()
    guard = Guard(origin, options.kill_grace / 1000, {})
    closing.callback(guard.close)
    common = CommonBoot(
        origin=origin,
        segment_fd=-1,
        core_bell_fd=-1,
        master_pid=os.getpid(),
        log_level=options.log_level,
        log_format=options.log_format,
        strict_warmup=False,
        dry_run=True,
    )
    stages: dict[int, _Stage] = {}

    def close_all() -> None:  # in a forked child
        guard.close_in_child()
        report.close()
        reactor.close()
        for stage in stages.values():
            stage.slot.close()

    def end_helpers() -> None:
        origin.end_all({stage.slot.pid for stage in stages.values()})

    closing.callback(end_helpers)
    _log.info("starting: %s", ", ".join(stage.name for stage in plan.stages))
    for stage in plan.stages:
        stages[stage.number] = started = _Stage(plan, stage, reactor, report)
        started.start(common, close_all)
        closing.callback(started.end)
        guard.began(started.slot.pid)
    for started in stages.values():
        started.examples = started.answer()["examples"]
    return stages


def _try_route(path: str, stages: Sequence[_Stage]) -> None:
    first = stages[0]
    if not first.examples:
        raise _Failure(
            f"route {path!r} cannot be tried: give {first.stage.runtime.worker.__qualname__}, its first stage, "
            "an `example`, one argument of `forward` (with max_batch_size > 1 a list) or of `start`, or several as "
            "`multi_examples`"
        )
    for index in range(first.examples):
        print(f"{path}: example {index + 1} of {first.examples}", flush=True)
        payloads: list[bytes] = []
        for place, stage in enumerate(stages):
            last = place == len(stages) - 1
            question = {"items": payloads} if place else {"example": index}
            answer = stage.ask(question | {"last": last})
            payloads = answer["items"]
            print(_line(stage.stage, answer, "to the client" if last else "to the next stage"), flush=True)


def _line(stage: Stage, answer: Mapping[str, Any], whither: str) -> str:
    payloads = answer["items"]
    sizes = " + ".join(str(len(payload)) for payload in payloads[:8]) + (" + ..." if len(payloads) > 8 else "")
    total = f" = {sum(map(len, payloads))}" if len(payloads) > 1 else ""
    sent = f"{sizes}{total} bytes {whither}" if payloads else "events to the client"
    what = "start to end" if steps(stage.runtime.worker) else "forward"
    return f"  {stage.name}: {answer['calls']} x {what}, {answer['seconds'] * 1000:.3f} ms, {sent}"


class _Stage:
    """The process of a stage, in conversation."""

    def __init__(self, plan: Plan, stage: Stage, reactor: Reactor, report: Report) -> None:
        self.stage = stage
        self.slot = WorkerSlot(stage, stage.first_slot, plan.is_first(stage), plan.is_last(stage))
        self.examples = 0
        self._reactor = reactor
        self._report = report
        self._said: dict[str, Any] | None = None

    def start(self, common: CommonBoot, release_master: Callable[[], None]) -> None:
        self.slot.start(common, release_master)
        assert self.slot.process is not None
        assert self.slot.inbox is not None
        self.slot.inbox.largest = LARGEST_MESSAGE
        self._report.begin(self.slot.index, self.stage.name, self.slot.name)
        self._reactor.watch(self.slot.fileno(), self._on_readable)
        self._reactor.watch(self.slot.process.pidfd, self._on_exit)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._report.enter(self.slot.index, Step.TRYING)
        with suppress(OSError):  # it has ended; `answer` says how
            self.slot.send(question)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Waits for the process's next message. Raises _Failure if a process fails or ends."""
        while self._said is None:
            self._reactor.run()  # until some stage has said something
        said, self._said = self._said, None
        return said

    def _on_readable(self) -> None:
        assert self.slot.inbox is not None
        for message in self.slot.inbox.take():
            if "step" in message:
                self._report.enter(self.slot.index, Step(message["step"]))
            elif "failed" in message:
                separator = ": " if "final" in message else "\n"
                raise _Failure(f"{self.slot.name} failed in the dry run{separator}{message['failed']}")
            else:
                self._said = message
                self._report.enter(self.slot.index, Step.READY)
                self._reactor.stop()
        if self.slot.inbox.closed:
            self._reactor.unwatch(self.slot.fileno())

    def _on_exit(self) -> None:
        assert self.slot.process is not None
        assert self.slot.inbox is not None
        if not self.slot.inbox.closed:
            self._on_readable()  # its last words
        status = self.slot.process.reap(block=True)
        assert status is not None
        raise _Failure(f"{self.slot.name} ended in the dry run with {child.describe(status)}")

    def end(self) -> None:
        process = self.slot.process
        assert process is not None
        process.kill()
        process.reap(block=True)
        self.slot.close()
