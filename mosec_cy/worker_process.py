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

from mosec_cy import content_coding, log, messages, mistakes
from mosec_cy._process import die_with_parent, keep_freed_pages
from mosec_cy.item_errors import FATAL
from mosec_cy.metric_snapshot import Recorder
from mosec_cy.rehearsal import examples_of, forward, rehearse, results_of
from mosec_cy.worker import SSEWorker, Worker
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
    log_format: str
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


def run_forked(boot: Boot, worker: type[Worker]) -> NoReturn:
    """Entry of a forked worker: ends the process, without the exit handlers that are the master's."""
    die_with_parent(boot.master_pid)
    leave_signals_to_master()
    _end(_run(boot, lambda: worker, forked=True))


def _end(status: int) -> NoReturn:
    """End at once: a thread of user code would keep alive what serves no more, and nobody would start another."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(boot: Boot, load: Callable[[], type[Worker]], forked: bool = False) -> int:
    log.configure(boot.log_level, boot.log_format, f"{boot.stage}|{boot.worker_id}")
    recorder = Recorder(forked)
    keep_freed_pages()
    with socket.socket(fileno=boot.control_fd) as control:
        try:
            worker_class = load()
            messages.send(control, {"step": "loading"})
            worker = _make_worker(boot, worker_class)
            if not boot.dry_run:
                _warm_up(worker, boot.strict_warmup, control)
        except BaseException as error:  # user code may raise SystemExit
            messages.send(control, mistakes.as_message(error))
            return 1
        if boot.dry_run:
            rehearse(worker, control)
            return 0
        thread = ControlThread(control, recorder)
        status = 0
        try:
            _serve(boot, worker, control, thread)
        except BaseException:  # user code may raise SystemExit
            traceback.print_exc()
            status = 1
        with contextlib.suppress(OSError):  # user code has closed it
            thread.send_metrics()
    return status


def _make_worker(boot: Boot, worker_class: type[Worker]) -> Worker:
    from setproctitle import setproctitle

    setproctitle(f"mosec_cy: {boot.stage} [{boot.worker_id}]")
    worker = worker_class.__new__(worker_class)
    # Before __init__, so that the user's can read them.
    worker.stage = boot.stage
    worker.worker_id = boot.worker_id
    worker.max_batch_size = boot.max_batch_size
    worker.__init__()  # type: ignore[misc]
    return worker


def _warm_up(worker: Worker, strict: bool, control: socket.socket) -> None:
    name = f"<{worker.stage}|{worker.worker_id}>"
    try:
        examples = examples_of(worker)
        if not len(examples):
            return
        messages.send(control, {"step": "warming up"})
        for example in examples:
            returned = forward(worker, example)
            if not isinstance(worker, SSEWorker):  # what that returns is ignored
                results_of(worker, example, returned)
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
        log.get_logger().info("%s warm-up done", name)


def _serve(boot: Boot, worker: Worker, control: socket.socket, thread: ControlThread) -> None:
    from mosec_cy._channel import Channel
    from mosec_cy._segment import Segment
    from mosec_cy.stage_loop import serve

    channel = Channel(Segment.attach(boot.segment_fd), boot.row, boot.incarnation, boot.core_bell_fd)
    worker._channel = channel
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


def _import_class(main_module: dict[str, Any], pickled_class: bytes) -> type[Worker]:
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
    if not isinstance(worker_class, type) or not issubclass(worker_class, Worker):
        raise TypeError(f"{worker_class!r} is not the worker class that the master has by that name")
    return worker_class
