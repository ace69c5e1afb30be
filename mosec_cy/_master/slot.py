"""A worker slot, one place in the worker table, over the processes that fill it in turn; and the starting of these."""

from __future__ import annotations

import dataclasses
import enum
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import process, spawn
from pathlib import Path
from typing import Any, NoReturn

from mosec_cy._base import main_module, messages
from mosec_cy._config.plan import Stage
from mosec_cy._master import child
from mosec_cy._master.reactor import Timer
from mosec_cy._process import helpers, main
from mosec_cy._process.main import Boot
from mosec_cy.worker import BaseWorker

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
STABLE_AFTER = 60.0
MAX_FAILED_STARTS = 3


class State(enum.Enum):
    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # no more work for it, its successor is ready or will be started


@dataclass(frozen=True)
class CommonBoot:
    """What all worker processes are told alike; `origin`: by what their helpers are known."""

    origin: helpers.Origin
    segment_fd: int
    core_bell_fd: int
    master_pid: int
    log_level: str
    log_format: str
    strict_warmup: bool
    max_decoded: int | None = None
    dry_run: bool = False


class WorkerSlot:
    """A slot of a stage: its process now, its state, and how long to wait before the next one.

    `worker_id`: of the replica that it is, from 1; None: it is spare.
    """

    def __init__(self, stage: Stage, index: int, is_first: bool | None, is_last: bool | None) -> None:
        self.stage = stage
        self.index = index
        self.worker_id = index - stage.first_slot + 1 if index in stage.slots else None
        self.incarnation = 0
        self.state = State.DOWN
        self.process: child.Child | None = None
        self.inbox: messages.Inbox | None = None
        self.drained = False
        self.failure: str | None = None
        self.failure_is_final = False
        self.mark = ""  # of the helpers of its last process
        self.helpers_remain = False  # of that process, which has ended
        self.last_words = ""
        self.restart: Timer | None = None
        self._is_first = is_first
        self._is_last = is_last
        self._control: socket.socket | None = None
        self._was_ready = False
        self._failures = 0
        self._ready_at = 0.0

    @property
    def name(self) -> str:
        return f"<{self.stage.name}|{self.worker_id or 'spare'}>"

    @property
    def stage_number(self) -> int:
        return self.stage.number

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def pid(self) -> int:
        """Of its process; 0: it has none."""
        return self.process.pid if self.process is not None else 0

    @property
    def home(self) -> int:
        """The slot in which its replica began: core counts what the replica does there."""
        assert self.worker_id is not None
        return self.stage.slots[self.worker_id - 1]

    @property
    def hopeless(self) -> bool:
        """It never once got ready, in as many attempts as are worth making."""
        return not self._was_ready and (self.failure_is_final or self._failures >= MAX_FAILED_STARTS)

    @property
    def outlook(self) -> str:
        """What becomes of it now that its process has failed."""
        attempt = "" if self._was_ready else f"attempt {self._failures} of {MAX_FAILED_STARTS}"
        following = "" if self.hopeless else f"it is started again in {self.delay():g} s"
        return ", ".join(filter(None, (attempt, following)))

    def assign(self, worker_id: int | None) -> None:
        """Make it the slot of that replica, or spare; what has failed in it before does not count."""
        self.worker_id = worker_id
        self._failures = 0

    def start(self, common: CommonBoot, release_master: Callable[[], None]) -> None:
        """Start a process; `release_master` is called in a forked one, to close what is the master's.

        Raises OSError if the system starts no process.
        """
        self.incarnation += 1
        self.drained = False
        self.failure = None
        self.failure_is_final = False
        self.mark = common.origin.mark_of(self.index, self.incarnation)
        ours, theirs = socket.socketpair()
        try:
            self.process = self._launch(common, ours, theirs, release_master)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        self.inbox = messages.Inbox(ours)
        self.state = State.STARTING

    def fileno(self) -> int:
        """Of the control socket, while there is a process."""
        assert self._control is not None
        return self._control.fileno()

    def ask_for_metrics(self) -> None:
        """The answer arrives in `inbox`, unless the process cannot give one."""
        with suppress(OSError):  # it has ended, or reads nothing any more
            self.send({"collect": True}, socket.MSG_DONTWAIT)

    def ask_to_attach(self, number: int, descriptors: Sequence[int]) -> None:
        """To the core of that number; the answer arrives in `inbox`. Raises OSError if the process cannot be told."""
        self.send({"attach": number}, socket.MSG_DONTWAIT, descriptors)

    def send(self, message: dict[str, Any], flags: int = 0, descriptors: Sequence[int] = ()) -> None:
        """As `messages.send`. Raises OSError if the process has ended."""
        assert self._control is not None
        messages.send(self._control, message, flags, descriptors)

    def became_ready(self) -> None:
        self.state = State.READY
        self._was_ready = True
        self._ready_at = time.monotonic()

    def ended(self) -> None:
        """Forget the process, which has been reaped."""
        if self.state is State.READY and time.monotonic() - self._ready_at >= STABLE_AFTER:
            self._failures = 0
        self.start_failed()
        self.close()
        self.process = self._control = self.inbox = None

    def close(self) -> None:
        """Close the descriptors that belong to the process."""
        if self._control is not None:
            self._control.close()
        if self.process is not None:
            self.process.close()

    def start_failed(self) -> None:
        self.state = State.DOWN
        self._failures += 1

    def delay(self) -> float:
        """Seconds to wait before the next start."""
        doublings = min(self._failures - 1, 30)  # what fails for hours must not leave the range of numbers
        return float(min(FIRST_DELAY * 2**doublings, LONGEST_DELAY))

    def _launch(
        self, common: CommonBoot, ours: socket.socket, theirs: socket.socket, release_master: Callable[[], None]
    ) -> child.Child:
        runtime = self.stage.runtime
        assert self.worker_id is not None
        boot = Boot(
            master_pid=common.master_pid,
            control_fd=theirs.fileno(),
            segment_fd=common.segment_fd,
            core_bell_fd=common.core_bell_fd,
            slot=self.index,
            incarnation=self.incarnation,
            stage=self.stage.name,
            worker_id=self.worker_id,
            max_batch_size=runtime.max_batch_size,
            is_first=self._is_first,
            is_last=self._is_last,
            tells_costs=self.stage.tells_costs,
            content_type=self.stage.content_type,
            log_level=common.log_level,
            log_format=common.log_format,
            strict_warmup=common.strict_warmup,
            max_decoded=common.max_decoded,
            dry_run=common.dry_run,
        )
        variables = {**runtime.env[self.worker_id - 1], helpers.MARK: self.mark}
        if runtime.start_method == "spawn":
            return _spawn(boot, runtime.worker, variables)

        def in_child() -> NoReturn:
            kept: dict[str, Any] = {name: os.dup(fd) for name, fd in boot.descriptors.items()}
            ours.close()
            theirs.close()
            release_master()
            os.environ.update(variables)
            main.run_forked(dataclasses.replace(boot, **kept), runtime.worker)

        return child.fork(in_child)


def _spawn(boot: Boot, worker: type[BaseWorker], variables: Mapping[str, str]) -> child.Child:
    preparation = _preparation(boot.stage)
    program = main_module.needed_for(worker)
    pickled_class = pickle.dumps(worker)  # by its name: apart, because it can only be read after the main module
    file = os.memfd_create("mosec_cy-boot")
    try:
        with open(file, "wb", closefd=False) as stream:
            pickle.dump((boot, preparation, program, pickled_class), stream)
        os.lseek(file, 0, os.SEEK_SET)
        code = (
            f"import sys; sys.path[:] = {preparation['sys_path']!r}; "
            f"from mosec_cy._process.main import main; main({file}, {boot.master_pid})"
        )
        keep = [file, *boot.descriptors.values()]
        return child.execute(subprocess._args_from_interpreter_flags(), code, keep, variables)  # type: ignore[attr-defined]
    finally:
        os.close(file)


def _preparation(name: str) -> dict[str, Any]:
    """What `multiprocessing` tells its children, but for a secret and the main module."""
    vars(sys.modules["__main__"]).setdefault("__spec__", None)  # which it lacks where a debugger has begun it anew
    data = spawn.get_preparation_data(name)
    for unwanted in ("authkey", "init_main_from_name", "init_main_from_path"):
        data.pop(unwanted, None)
    here = process.ORIGINAL_DIR or ""  # type: ignore[attr-defined]
    data["sys_path"] = [str(Path(here, entry)) if isinstance(entry, str) else entry for entry in data["sys_path"]]
    return data
