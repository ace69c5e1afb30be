"""The master: starts core and workers, opens the door when they are ready, and ends everything in order.

One thread, one loop; it never touches a payload of the users' routes.
"""

from __future__ import annotations

import enum
import functools
import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from multiprocessing import process as multiprocessing_process

from setproctitle import getproctitle, setproctitle

from mosec_cy._base import limits
from mosec_cy._base.mistakes import OneSentence
from mosec_cy._base.signals import MASTER_SIGNALS, SHUTDOWN_SIGNALS
from mosec_cy._config.options import Options
from mosec_cy._config.plan import Plan
from mosec_cy._master import child, welcome
from mosec_cy._master.child import Daemon
from mosec_cy._master.core import CoreLife, Engine, FromCore, Message, ToCore
from mosec_cy._master.guard import Guard, HelperEnds
from mosec_cy._master.listener import Listener
from mosec_cy._master.reactor import Reactor
from mosec_cy._master.slot import CommonBoot, WorkerSlot
from mosec_cy._master.user_metrics import UserMetrics
from mosec_cy._master.workers import Workers
from mosec_cy._process import codings, helpers
from mosec_cy._web.metrics import own_names
from mosec_cy.log import get_logger, is_for_terminal

_log = get_logger()


class Phase(enum.IntEnum):
    STARTING = 0  # some stage has not had a ready worker yet
    SERVING = 1
    DRAINING = 2  # core refuses what is new and finishes what is in flight
    STOPPING = 3  # core has ended, workers and daemons are ending


def serve(plan: Plan, options: Options, daemons: Sequence[Daemon]) -> int:
    """Run a service until it is told to stop or cannot go on; the exit status.

    Raises:
        OSError: the address cannot be listened on, or core cannot be started.
        RuntimeError: a daemon has ended already.
    """
    with ExitStack() as closing:
        title = getproctitle()
        setproctitle("mosec_cy: master")
        closing.callback(setproctitle, title)
        reactor = Reactor()
        closing.callback(reactor.close)
        # From now on none of them does what is usual; they are acted on once the loop runs.
        reactor.take_signals(_signals(), lambda number: supervisor.on_signal(number))
        with OneSentence():
            listener = Listener(options.address, options.port)
        closing.callback(listener.close)
        watched = _watch_daemons(daemons, closing)
        origin = helpers.Origin()
        # Before all else: this process may be killed at any time.
        guard = Guard(origin, options.kill_grace / 1000, watched)
        closing.callback(guard.close)
        user_metrics = UserMetrics(reactor, own_names(options.namespace))
        engine = Engine(plan, options, listener.fds, user_metrics.collect)
        closing.callback(engine.close)
        supervisor = Supervisor(plan, options, reactor, listener, engine, user_metrics, origin, guard, watched)
        closing.callback(supervisor.end_all)
        return supervisor.run()


class Supervisor:
    """The life of one service, over parts that `serve` has made and closes."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        reactor: Reactor,
        listener: Listener,
        engine: Engine,
        user_metrics: UserMetrics,
        origin: helpers.Origin,
        guard: Guard,
        daemons: dict[int, Daemon],
    ) -> None:
        self._phase = Phase.STARTING
        self._status = 0
        self._plan = plan
        self._options = options
        self._grace = options.kill_grace / 1000
        self._timeout = options.timeout / 1000
        self._reactor = reactor
        self._listener = listener
        self._engine = engine
        self._origin = origin
        self._guard = guard
        self._core = CoreLife(
            engine,
            reactor,
            is_wanted=lambda: self._phase < Phase.DRAINING,
            on_message=self._on_core_message,
            on_replaced=self._on_core_replaced,
            on_gone=self._on_core_gone,
        )
        self._daemons = daemons
        self._below_daemons: list[helpers.Process] = []
        common = CommonBoot(
            origin=origin,
            segment_fd=engine.segment.fd,
            core_bell_fd=engine.core_bell_fd,
            master_pid=os.getpid(),
            log_level=options.log_level,
            log_format=options.log_format,
            strict_warmup=options.strict_warmup,
            max_decoded=options.max_request_size if options.compression else None,
        )
        self._workers = Workers(
            plan,
            options,
            engine,
            common,
            reactor,
            HelperEnds(reactor, origin, guard, self._grace),
            user_metrics,
            on_ready=self._on_worker_ready,
            on_hopeless=self._on_hopeless_worker,
            on_gone=self._finish_if_alone,
            release_master=self._release_in_child,
        )

    def run(self) -> int:
        """Start the workers and go on until everything has ended; the exit status."""
        if self._engine.codings:
            _log.info("compression is on: %s", codings.describe())
        self._core.begin()
        self._reactor.watch(self._engine.master_routes.bell_fd, self._engine.master_routes.answer)
        for pidfd, daemon in self._daemons.items():
            self._reactor.watch(pidfd, functools.partial(self._on_daemon_exit, pidfd, daemon))
        self._guard.watch(self._reactor)
        child.reap_the_ownerless(self._reactor)
        _log.info("starting: %s", ", ".join(f"{stage.name} × {stage.runtime.num}" for stage in self._plan.stages))
        self._workers.start()
        self._reactor.run()
        return self._status

    def end_all(self) -> None:
        """Kill what still runs, and wait for its end."""
        self._engine.link.process.kill()
        self._workers.kill()
        self._look_below_daemons()
        for daemon in self._daemons.values():
            daemon.kill()
        for process in self._below_daemons:
            process.send(signal.SIGKILL)
        self._engine.link.process.reap(block=True)
        self._workers.reap()
        self._workers.close()
        for daemon in self._daemons.values():
            daemon.wait()

    # ---- what happens ------------------------------------------------------------------------------

    def _on_worker_ready(self) -> None:
        if self._phase is Phase.STARTING and self._workers.complete:
            with OneSentence():
                self._listener.listen()
            self._engine.link.send(ToCore.LISTEN)
            self._phase = Phase.SERVING
            _log.info("listening on %s", self._listener.address)
            self._welcome()
            self._workers.on_serving()

    def _welcome(self) -> None:
        if is_for_terminal():
            _log.info("%s", welcome.block(self._plan, self._options, self._listener.address))
        else:
            _log.info("try it: %s", welcome.trial(self._plan, self._listener.address))

    def _on_hopeless_worker(self, slot: WorkerSlot) -> None:
        if not slot.failure_is_final:
            _log.error("%s never got ready, the server gives up", slot.name)
        self._shut_down(1)

    def on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._workers.roll()
            return
        if self._phase >= Phase.DRAINING:
            _log.warning("%s again: ending at once", number.name)
            self._status = 128 + number
            self._reactor.stop()
            return
        _log.info("%s: shutting down", number.name)
        self._shut_down(0)

    def _on_daemon_exit(self, pidfd: int, daemon: Daemon) -> None:
        self._reactor.unwatch(pidfd)
        del self._daemons[pidfd]
        os.close(pidfd)
        status = daemon.wait()
        if self._phase < Phase.DRAINING:
            _log.error("daemon %s ended with %s: shutting down", daemon.name, child.describe(status))
            self._shut_down(int(status != 0))
        self._finish_if_alone()

    def _on_core_message(self, message: Message) -> None:
        if message.kind == FromCore.SLOT_DEAD:
            self._workers.on_drained(message)
        elif message.kind == FromCore.SLOT_IDLE:
            self._workers.on_idle(message)
        elif message.kind == FromCore.SLOT_OVERDUE:
            self._workers.on_overdue(message)
        elif message.kind == FromCore.SLOT_KILLED:
            self._workers.on_killed(message)
        elif message.kind == FromCore.STOPPED and message.value:
            _log.warning("%d requests were not finished in time", message.value)

    def _on_core_replaced(self) -> None:
        if self._phase is Phase.SERVING:
            self._engine.link.send(ToCore.LISTEN)
        self._workers.on_core_replaced()

    def _on_core_gone(self, failure: str | None) -> None:
        if failure is not None:
            _log.error("%s: shutting down", failure)
            self._status = self._status or 1
        self._stop_workers()

    # ---- shutdown ----------------------------------------------------------------------------------

    def _shut_down(self, status: int) -> None:
        if self._phase >= Phase.DRAINING:
            return
        self._phase = Phase.DRAINING
        self._status = status
        self._workers.cancel_starts()
        if not self._core.stop():
            self._stop_workers()
            return
        deadline = time.monotonic() + self._timeout
        self._engine.link.send(ToCore.SHUTDOWN, value=int(deadline * 1e9))
        self._reactor.call_later(self._timeout + self._grace, self._engine.link.process.kill)

    def _stop_workers(self) -> None:
        self._phase = Phase.STOPPING
        self._listener.close()  # or clients would wait in its backlog for a core that does not come
        self._workers.stop()
        self._look_below_daemons()
        for daemon in self._daemons.values():
            daemon.terminate()
        self._reactor.call_later(self._grace, self._kill_stragglers)
        self._finish_if_alone()

    def _kill_stragglers(self) -> None:
        for slot in self._workers.alive:
            _log.warning("%s killed, it did not end within %g s", slot.name, self._grace)
        self._workers.kill()
        for daemon in self._daemons.values():
            daemon.kill()

    def _look_below_daemons(self) -> None:
        """Before a daemon is ended: what it leaves could not be found afterwards."""
        if self._daemons:
            pids = [daemon.pid for daemon in self._daemons.values()]
            self._below_daemons += helpers.descendants(pids, helpers.processes(self._origin.since) or [])

    def _finish_if_alone(self) -> None:
        if self._phase is Phase.STOPPING and self._workers.gone and not self._daemons:
            self._reactor.stop()

    def _release_in_child(self) -> None:
        """In a forked worker: close every descriptor of the master's."""
        self._reactor.close()
        self._listener.close_in_child()
        self._workers.close()
        self._engine.leave_in_child()
        self._guard.close_in_child()
        _close_all(self._daemons)


def check_place() -> None:
    """Raise RuntimeError where `run` cannot do its work: in a worker, a thread, on an old kernel, without a Python."""
    if getattr(multiprocessing_process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "run() was called while a worker process imports the program's main module: "
            'put it under `if __name__ == "__main__":`'
        )
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run() must be called in the main thread, where signals arrive")
    limits.check_kernel(os.uname().release)
    child.check_interpreter()


def _signals() -> frozenset[signal.Signals]:
    """Those that the master acts on. Under nohup, or with SIGHUP ignored otherwise, it stays so."""
    hang_up_is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return SHUTDOWN_SIGNALS if hang_up_is_ignored else MASTER_SIGNALS


def _watch_daemons(daemons: Sequence[Daemon], closing: ExitStack) -> dict[int, Daemon]:
    watched: dict[int, Daemon] = {}
    closing.callback(_close_all, watched)
    for daemon in daemons:
        try:
            watched[os.pidfd_open(daemon.pid)] = daemon
        except ProcessLookupError:
            raise RuntimeError(f"daemon {daemon.name!r} has ended already") from None
    return watched


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
