"""A worker process: becomes one instance of the user's class, says when it is ready, and serves.

Started either as a fresh interpreter (`main`) or as a copy of the master (`run_forked`).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from mosec_cy import content_coding, event_loop, log, messages, replica
from mosec_cy._process import die_with_parent, keep_freed_pages
from mosec_cy.item_errors import FATAL
from mosec_cy.metric_snapshot import Recorder
from mosec_cy.rehearsal import examples_of, rehearse, try_forward
from mosec_cy.worker import BaseWorker, is_worker
from mosec_cy.worker_control import ControlThread
from mosec_cy.worker_signals import leave_signals_to_master


@dataclass(frozen=True)
class Boot:
    """What a worker process is told at its start. Descriptors are inherited and belong to it."""

    master_pid: int
    control_fd: int
    segment_fd: int
    core_bell_fd: int
    row: int
    incarnation: int
    stage: str
    worker_id: int
    max_batch_size: int
    is_first: bool | None
    is_last: bool | None
    content_type: int
    max_decoded: int | None
    log_level: str
    strict_warmup: bool
    dry_run: bool

    @property
    def descriptors(self) -> dict[str, int]:
        """Those that there are: a dry run has neither memory nor core."""
        names = ("control_fd", "segment_fd", "core_bell_fd")
        return {name: getattr(self, name) for name in names if getattr(self, name) >= 0}


def main(boot_fd: int, master_pid: int) -> None:
    """Entry of a spawned worker; `boot_fd` holds the pickled Boot, main-module data and class."""
    die_with_parent(master_pid)
    leave_signals_to_master()
    with open(boot_fd, "rb") as file:
        boot, main_module, pickled_class = pickle.load(file)
    for descriptor in boot.descriptors.values():
        os.set_inheritable(descriptor, False)  # programs of user code would keep the memory, and the socket open
    status = _run(boot, lambda: _import_class(main_module, pickled_class))
    if status:
        _end(status)
    sys.exit(0)


def run_forked(boot: Boot, worker: type[BaseWorker]) -> NoReturn:
    """Entry of a forked worker: ends the process, without the exit handlers that are the master's."""
    die_with_parent(boot.master_pid)
    leave_signals_to_master()
    _end(_run(boot, lambda: worker, forked=True))


def _end(status: int) -> NoReturn:
    """End at once: a thread of user code would keep alive what serves no more, and nobody would start another."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(boot: Boot, load: Callable[[], type[BaseWorker]], forked: bool = False) -> int:
    log.configure(boot.log_level)
    recorder = Recorder(forked)
    keep_freed_pages()
    with socket.socket(fileno=boot.control_fd) as control:
        try:
            worker = _make_worker(boot, load())
            if not boot.dry_run:
                _warm_up(worker, boot.is_last is not False, boot.strict_warmup)
        except BaseException:  # user code may raise SystemExit
            messages.send(control, {"failed": traceback.format_exc()})
            return 1
        if boot.dry_run:
            rehearse(worker, control)
            event_loop.close()
            return 0
        thread = ControlThread(control, recorder)
        status = 0
        try:
            _serve(boot, worker, control, thread)
            event_loop.close()
        except BaseException:  # user code may raise SystemExit
            traceback.print_exc()
            status = 1
        with contextlib.suppress(OSError):  # user code has closed it
            thread.send_metrics()
    return status


def _make_worker(boot: Boot, worker_class: type[BaseWorker]) -> BaseWorker:
    from setproctitle import setproctitle

    setproctitle(f"mosec_cy: {boot.stage} [{boot.worker_id}]")
    this = replica.Replica(boot.stage, boot.worker_id, boot.max_batch_size)
    replica.begin(this, worker_class)  # before __init__, which can read it
    event_loop.prepare(worker_class)
    worker = worker_class()
    if not is_worker(type(worker)):
        raise TypeError(f"{worker_class.__qualname__}() made a {type(worker).__qualname__}, which is no worker")
    replica.begin(this, type(worker))
    return worker


def _warm_up(worker: BaseWorker, last: bool, strict: bool) -> None:
    name = replica.of(worker).name
    examples = examples_of(worker)
    if not len(examples):
        return
    try:
        for example in examples:
            try_forward(worker, example, last)
    except FATAL:
        raise
    except BaseException:
        if strict:
            raise
        log.get_logger().exception(
            "%s warm-up failed; `example` must be one argument of `forward`, with max_batch_size > 1 a list", name
        )
    else:
        log.get_logger().info("%s warm-up done", name)


def _serve(boot: Boot, worker: BaseWorker, control: socket.socket, thread: ControlThread) -> None:
    from mosec_cy._channel import Channel
    from mosec_cy._segment import Segment
    from mosec_cy.stage_loop import serve

    channel = Channel(Segment.attach(boot.segment_fd), boot.row, boot.incarnation, boot.core_bell_fd)
    replica.of(worker).channel = channel
    if boot.max_decoded is not None:
        content_coding.available()  # loads the libraries now, and not within a request
    messages.send(control, {"ready": True})  # before the thread may write
    thread.start(channel)
    serve(
        channel,
        worker,
        is_first=boot.is_first,
        is_last=boot.is_last,
        content_type=boot.content_type,
        max_decoded=boot.max_decoded,
    )


def _import_class(main_module: dict[str, Any], pickled_class: bytes) -> type[BaseWorker]:
    """Make the user's program importable as `multiprocessing` does, then import the class from it."""
    from multiprocessing import process, spawn

    # As in a process of multiprocessing: starting processes while the main module is imported means
    # that it has no `if __name__ == "__main__"`, and each of them would start more.
    current: Any = process.current_process()
    current._inheriting = True
    try:
        spawn.prepare(main_module)
        worker_class = pickle.loads(pickled_class)
    finally:
        del current._inheriting
    if not isinstance(worker_class, type) or not is_worker(worker_class):
        raise TypeError(f"{worker_class!r} is not the worker class that the master has by that name")
    return worker_class
