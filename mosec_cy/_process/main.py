"""A worker process: becomes one instance of the user's class, says when it is ready, and serves.

Started either as a fresh interpreter (`main`) or as a copy of the master (`run_forked`). A second thread hears the
master while the main thread serves or user code runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import select
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mosec_cy import log
from mosec_cy._base import messages, mistakes, output, replica
from mosec_cy._base.signals import leave_signals_to_master, start_thread
from mosec_cy._engine.process import die_with_parent, keep_freed_pages
from mosec_cy._process import codings
from mosec_cy._process.dry_run import dry_run, examples_of, try_forward
from mosec_cy._process.results import FATAL, close_event_loop, prepare_event_loop
from mosec_cy._process.snapshot import Recorder
from mosec_cy.worker import BaseWorker, is_worker

if TYPE_CHECKING:
    from mosec_cy._base.main_module import Program
    from mosec_cy._engine.segment import Segment
    from mosec_cy._engine.worker import Channel

_HOLD_TIMEOUT = 1.0  # s


@dataclass(frozen=True)
class Boot:
    """What a worker process is told at its start. Descriptors are inherited and belong to it."""

    master_pid: int
    control_fd: int
    segment_fd: int
    core_bell_fd: int
    slot: int
    incarnation: int
    stage: str
    worker_id: int
    max_batch_size: int
    is_first: bool | None
    is_last: bool | None
    tells_costs: bool
    content_type: int
    max_decoded: int | None
    log_level: str
    log_format: str
    strict_warmup: bool
    dry_run: bool

    @property
    def descriptors(self) -> dict[str, int]:
        """Those that there are: a dry run has neither memory nor core."""
        names = ("control_fd", "segment_fd", "core_bell_fd")
        return {name: getattr(self, name) for name in names if getattr(self, name) >= 0}


def main(boot_fd: int, master_pid: int) -> None:
    """Entry of a spawned worker; `boot_fd` holds the pickled Boot, preparation data, main module and class."""
    _begin(master_pid)
    with open(boot_fd, "rb") as file:
        boot, preparation, program, pickled_class = pickle.load(file)
    for descriptor in boot.descriptors.values():
        os.set_inheritable(descriptor, False)  # programs of user code would keep the memory, and the socket open
    status = _run(boot, lambda: _import_class(preparation, program, pickled_class))
    if status:
        _end(status)
    sys.exit(0)


def run_forked(boot: Boot, worker: type[BaseWorker]) -> NoReturn:
    """Entry of a forked worker: ends the process, without the exit handlers that are the master's."""
    _begin(boot.master_pid)
    if os.isatty(0):  # a group in the background is stopped when it reads the terminal
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
    _end(_run(boot, lambda: worker, forked=True))


def _begin(master_pid: int) -> None:
    die_with_parent(master_pid)
    os.setpgid(0, 0)  # by the group the master knows what this process has started
    leave_signals_to_master()


def _end(status: int) -> NoReturn:
    """End at once: a thread of user code would keep a useless process alive, and the master would start no other."""
    output.finish()
    os._exit(status)


def _run(boot: Boot, load: Callable[[], type[BaseWorker]], forked: bool = False) -> int:
    output.guard()
    log.configure(boot.log_level, boot.log_format, f"{boot.stage}|{boot.worker_id}")
    recorder = Recorder(forked)
    keep_freed_pages()
    with socket.socket(fileno=boot.control_fd) as control:
        thread = ControlThread(control, recorder)
        try:
            worker_class = load()
            messages.send(control, {"step": "loading"})
            worker = _make_worker(boot, worker_class)
            if not boot.dry_run:
                _warm_up(worker, boot.is_last is not False, boot.strict_warmup, control)
                channel = _open_channel(boot)
                thread.start(channel)
        except BaseException as error:  # user code may raise SystemExit
            messages.send(control, mistakes.as_message(error))
            return 1
        if boot.dry_run:
            dry_run(worker, control)
            close_event_loop()
            return 0
        status = 0
        try:
            thread.send({"ready": True})
            _serve(boot, worker, channel)
            close_event_loop()
        except BaseException:  # user code may raise SystemExit
            log.get_logger().exception("%s ends by an exception", f"<{boot.stage}|{boot.worker_id}>")
            status = 1
        with contextlib.suppress(OSError):  # user code has closed it
            thread.send_metrics()
    return status


def _make_worker(boot: Boot, worker_class: type[BaseWorker]) -> BaseWorker:
    from setproctitle import setproctitle

    setproctitle(f"mosec_cy: {boot.stage} [{boot.worker_id}]")
    this = replica.Replica(boot.stage, boot.worker_id, boot.max_batch_size)
    replica.begin(this, worker_class)  # before __init__, which can read it
    prepare_event_loop(worker_class)
    worker = worker_class()
    if not is_worker(type(worker)):
        raise TypeError(f"{worker_class.__qualname__}() made a {type(worker).__qualname__}, which is no worker")
    replica.begin(this, type(worker))
    return worker


def _warm_up(worker: BaseWorker, last: bool, strict: bool, control: socket.socket) -> None:
    name = replica.of(worker).name
    try:
        examples = examples_of(worker)
        if not len(examples):
            return
        messages.send(control, {"step": "warming up"})
        for example in examples:
            try_forward(worker, example, last)
    except FATAL:
        raise
    except BaseException as error:
        if strict:
            raise
        if mistakes.says_all(error):
            log.get_logger().error("%s warm-up failed: %s", name, error)
            return
        log.get_logger().error(
            "%s warm-up failed; `example` must be one argument of `forward`, with max_batch_size > 1 a list",
            name,
            exc_info=(type(error), error, mistakes.user_traceback(error)),
        )
    else:
        log.get_logger().debug("%s warm-up done", name)


def _open_channel(boot: Boot) -> Channel:
    from mosec_cy._engine.segment import Segment
    from mosec_cy._engine.worker import Channel

    if boot.max_decoded is not None:
        codings.available()  # loads the libraries now, and not within a request
    return Channel(Segment.attach(boot.segment_fd), boot.slot, boot.incarnation, boot.core_bell_fd)


def _serve(boot: Boot, worker: BaseWorker, channel: Channel) -> None:
    from mosec_cy._process.loop import serve

    replica.of(worker).channel = channel
    serve(
        channel,
        worker,
        is_first=boot.is_first,
        is_last=boot.is_last,
        tells_costs=boot.tells_costs,
        content_type=boot.content_type,
        max_decoded=boot.max_decoded,
    )


def _import_class(preparation: dict[str, Any], program: Program | None, pickled_class: bytes) -> type[BaseWorker]:
    """Make the user's program importable as `multiprocessing` does, then import the class from it."""
    from multiprocessing import process, spawn

    from mosec_cy._base import main_module

    # As in a process of multiprocessing: starting processes while the main module is imported means
    # that it has no `if __name__ == "__main__"`, and each of them would start more.
    current: Any = process.current_process()
    current._inheriting = True
    try:
        spawn.prepare(preparation)
        if program is not None:
            main_module.load(program)
        try:
            worker_class = pickle.loads(pickled_class)
        except AttributeError as error:
            raise AttributeError(
                f"{error}: the worker class must be there when its module is imported, so outside of any "
                '`if __name__ == "__main__":`'
            ) from None
    finally:
        del current._inheriting
    if not isinstance(worker_class, type) or not is_worker(worker_class):
        raise TypeError(f"{worker_class!r} is not the worker class that the master has by that name")
    return worker_class


# ---- the control thread -----------------------------------------------------------------------------


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
            _close_memory(*replaced)

    def _attached(self, number: int, segment: Segment, core_bell_fd: int) -> None:
        # In the main thread; the descriptors are those of the core before.
        _close_memory(segment, core_bell_fd)
        self.send({"attached": number})


def _close_memory(segment: Segment, core_bell_fd: int) -> None:
    """Close descriptors; what is mapped stays for the objects that look into it."""
    segment.close()
    os.close(core_bell_fd)
