"""Child processes of the master: its own, started so that they inherit nothing but what they are given; daemons, which
the program has started; and as process 1 of a container those whose parents have ended.
"""

from __future__ import annotations

import gc
import multiprocessing.process
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import popen_fork, spawn
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from mosec_cy._base import output
from mosec_cy._base.signals import MASTER_SIGNALS

if TYPE_CHECKING:
    from mosec_cy._master.reactor import Reactor, Timer

MARK = "mosec_cy-child"  # last in the arguments of what `execute` starts
_EXECUTABLE = sys.executable or ""
UNKNOWN = 256  # in place of an exit status, where the program itself has reaped the child


class Child:
    """A started process: `pid`, and `pidfd`, which is readable once the process has ended.

    Raises OSError if it cannot be watched, as without a free descriptor; then it has been killed.
    """

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.pidfd = -1
        self._popen = popen
        self._status: int | None = None
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:
            with suppress(ProcessLookupError):  # the program ignores SIGCHLD
                os.kill(pid, signal.SIGKILL)
            self.reap(block=True)
            raise

    def reap(self, block: bool = False) -> int | None:
        """The exit status, negative for a signal; None while the process runs (and `block` is false)."""
        if self._status is None:
            try:
                pid, wait_status = os.waitpid(self.pid, 0 if block else os.WNOHANG)
                self._status = os.waitstatus_to_exitcode(wait_status) if pid else None
            except ChildProcessError:  # the program waits for any child, or ignores SIGCHLD
                self._status = UNKNOWN
            if self._popen is not None:
                self._popen.returncode = self._status  # it would wait for the pid itself, and warn
        return self._status

    @property
    def reaped(self) -> bool:
        return self._status is not None

    def kill(self) -> None:
        if self._status is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def describe(status: int) -> str:
    """An exit status in words: `status 1` or `SIGKILL`."""
    if status == UNKNOWN:
        return "a status that the program itself has taken"
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def interpreter() -> str:
    """The program that is Python, also for multiprocessing (`set_executable`); empty where none is known."""
    told = os.fsdecode(spawn.get_executable() or "")
    return told if told != _EXECUTABLE else sys.executable


def check_interpreter() -> None:
    """Raise RuntimeError where `execute` would start this program anew in place of a child."""
    ours = interpreter()
    way_out = "run the program with Python, or name one with multiprocessing.set_executable"
    if getattr(sys, "frozen", False) and ours == sys.executable:
        raise RuntimeError(
            f"a service cannot run in a frozen program ({sys.executable}): its processes are started by a Python "
            f"interpreter, and this would start itself again and again; {way_out}"
        )
    if sys.argv[-1:] == [MARK]:
        raise RuntimeError(f"{sys.executable} was started as a process of a service, but is no Python: {way_out}")
    if not ours:
        raise RuntimeError(f"sys.executable names no Python interpreter to start processes with: {way_out}")


def execute(flags: Sequence[str], code: str, keep: Sequence[int], variables: Mapping[str, str] | None = None) -> Child:
    """Start this interpreter on `code`, with no descriptors but 0 to 2 and `keep`.

    The master's signals are blocked in the child until it has decided what to do with them.
    """
    environment = None if not variables else {**os.environ, **variables}
    with _signals_held():
        popen = subprocess.Popen(
            [interpreter(), *flags, "-c", code, MARK], pass_fds=keep, env=environment, stdin=subprocess.DEVNULL
        )
    return Child(popen.pid, popen)


def execute_small(module: str, arguments: Sequence[int | str], keep: Sequence[int]) -> Child:
    """Start `main(*arguments)` of a module of this package in a small interpreter; the rest is as for `execute`.

    It is isolated and without `site`: the module has the standard library and this package, and none of the user's.
    """
    parent = str(Path(__file__).resolve().parent.parent.parent)
    code = f"import sys; sys.path.append({parent!r}); from {module} import main; main(*{list(arguments)!r})"
    return execute(["-I", "-S"], code, keep)


def fork(body: Callable[[], NoReturn]) -> Child:
    """Start a copy of this process on `body`, which never returns. Signals: as `execute`."""
    output.flush()
    with _signals_held():
        pid = os.fork()
        if pid == 0:
            try:
                body()
            finally:  # whatever happened, the master's stack must not unwind in here
                os._exit(1)
    return Child(pid)


@contextmanager
def _signals_held() -> Iterator[None]:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, MASTER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


# ---- daemons --------------------------------------------------------------------------------------

DaemonProcess: TypeAlias = "subprocess.Popen[bytes] | subprocess.Popen[str] | multiprocessing.process.BaseProcess"


class Daemon:
    """`name` and pid of a started `process`; TypeError or ValueError if it is not one."""

    def __init__(self, name: str, process: DaemonProcess) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, but is {name!r}")
        if not isinstance(process, subprocess.Popen | multiprocessing.process.BaseProcess):
            raise TypeError(f"process must be a subprocess.Popen or multiprocessing.Process, but is {process!r}")
        if process.pid is None:
            raise ValueError(f"process of daemon {name!r} must have been started: call its start() first")
        self.name = name
        self.pid = process.pid
        self._process = process

    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def terminate(self) -> None:
        if self.returncode() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self.returncode() is None:
            self._process.kill()

    def wait(self) -> int:
        """The exit status, once it has ended."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.wait()
        self._process.join()
        status = self._process.exitcode
        assert status is not None
        return status


# ---- children whose parents have ended ------------------------------------------------------------

_REAPER_PERIOD = 1.0  # s; a zombie that is there at two looks has no owner: an owner that waits takes it at once


def reap_the_ownerless(reactor: Reactor) -> None:
    """From now on reap ended children, if this is process 1 and the program does nothing about them itself.

    A process that the program has an object for (`subprocess`, `multiprocessing`, `Child`) is left to that object: a
    reaper that takes its exit status away makes its owner believe that it ended with 0.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL:
        reaper = ChildReaper(reactor)
        reactor.take_signals([signal.SIGCHLD], reaper.on_signal)
        reaper.look_later()  # at those that are there already


class ChildReaper:
    """Looks at ended children a moment after one has ended, and reaps those that have no owner."""

    def __init__(self, reactor: Reactor, period: float = _REAPER_PERIOD) -> None:
        self._reactor = reactor
        self._period = period
        self._timer: Timer | None = None
        self._seen: set[int] = set()

    def on_signal(self, number: signal.Signals) -> None:
        self.look_later()

    def look_later(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.call_later(self._period, self.look)

    def look(self) -> None:
        """Reap the zombies without an owner that were there at the last look too."""
        self._timer = None
        zombies = {pid for pid in _children() if _has_ended(pid)}
        if zombies:
            zombies -= set(_owned())
        for pid in zombies & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = zombies - self._seen
        if self._seen:
            self.look_later()


def _children() -> Iterator[int]:
    """Those of all threads, zombies among them (proc(5), /proc/PID/task/TID/children)."""
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, thread.read_text().split())


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # reaped meanwhile, or /proc is that of another namespace
        return False


def _owned() -> Iterator[int]:
    """Processes that some object of the program still waits for. The standard library keeps no list of them."""
    for thing in gc.get_objects():
        kind = type(thing)  # not isinstance, which asks a proxy for its __class__
        if issubclass(kind, Child):
            if not thing.reaped:
                yield thing.pid
        elif issubclass(kind, subprocess.Popen | popen_fork.Popen) and getattr(thing, "returncode", 0) is None:
            yield thing.pid
