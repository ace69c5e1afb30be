"""Helpers: processes that workers have started. They end with the worker that they come from; when the master has been
killed, the guard ends them.

A child inherits two things by which it is recognised, also when its parents are gone:

- the process group. Each worker leads one of its own; a child that leaves it (a shell's jobs, `start_new_session`) has
- the mark, a variable in the environment, which a program keeps if it is not started with another environment.

Imports next to nothing: the guard is a process of its own, which runs `main` for as long as the service.
"""

from __future__ import annotations

import os
import select
import signal
import time

from mosec_cy._engine.process import set_title

TYPE_CHECKING = False  # `typing` stays out of the guard process
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MARK = "MOSEC_CY_WORKER"
_KILL_TIMEOUT = 5.0  # s, for the kernel to end what was killed; a process that hangs in a driver may not end at all
_SHORTEST = 0.01  # s between two looks, and doubled up to
_LONGEST = 0.25
_LARGEST_ENVIRONMENT = 4 << 20  # bytes
_LARGEST_MESSAGE = 1 << 20  # bytes of what the master says to the guard at once


class Origin:
    """By what the helpers of this process's service are known.

    `mark`: what all their marks begin with. `since`: when this process has started, in clock ticks: none of them is
    older. `session`: of the workers' groups.
    """

    def __init__(self) -> None:
        stat = _stat(os.getpid()) if _proc_is_ours() else None
        # Within a worker of another service what this one starts is that one's too.
        self.mark = f"{os.environ.get(MARK, '')}{os.getpid()}-{time.time_ns():x}/"
        self.since = int(stat[19]) if stat else 0
        self.session = os.getsid(0)

    def mark_of(self, slot: int, incarnation: int) -> str:
        """Of the helpers of one worker."""
        return f"{self.mark}{slot}/{incarnation}/"

    def family(self, mark: str, groups: Collection[int], grace: float) -> Family:
        return Family(mark, groups, self.session, grace)

    def end_all(self, groups: Collection[int]) -> None:
        """Kill all helpers of workers with those pids, which have ended, and wait for their end."""
        end(self.family(self.mark, groups, 0), self.since)


class Process:
    """A process as proc(5) shows it; the pid may be another's later, but not with the same `start` (clock ticks)."""

    __slots__ = ("_environment", "group", "parent", "pid", "session", "start")

    def __init__(self, pid: int, stat: list[bytes]) -> None:
        self.pid = pid
        self.parent, self.group, self.session = map(int, stat[1:4])
        self.start = int(stat[19])
        self._environment: bytes | None = None

    def has_mark(self, mark: bytes) -> bool:
        """The value of MARK that its program was started with begins with `mark`."""
        if self._environment is None:
            self._environment = b"\0" + _read(f"/proc/{self.pid}/environ")
        return b"\0" + MARK.encode() + b"=" + mark in self._environment

    def send(self, number: int) -> None:
        """Send it a signal, and to no other that has its pid by now."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:  # it has ended; or there is no descriptor: it is met again at the next look
            return
        try:
            stat = _stat(self.pid)
            if stat and int(stat[19]) == self.start:
                signal.pidfd_send_signal(pidfd, number)
        except (ProcessLookupError, PermissionError):
            pass
        finally:
            os.close(pidfd)


def processes(since: int) -> list[Process] | None:
    """All that run and have started at `since` (clock ticks) or later; None where /proc does not show them."""
    if not _proc_is_ours():
        return None
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat and stat[0] not in (b"Z", b"X") and int(stat[19]) >= since:
                found.append(Process(int(name), stat))
    return found


def descendants(ancestors: Iterable[int], among: Iterable[Process]) -> list[Process]:
    """Children of `ancestors` (pids), their children, and so on."""
    children: dict[int, list[Process]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = list(ancestors)
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


class Family:
    """The helpers of one worker, or of all of a service, that are to end: SIGTERM, and after `grace` s SIGKILL.

    Args:
        mark: what their marks begin with.
        groups: of the workers; a group of that number in another session is none of ours.
        grace: s.

    `told`, `killed`: pid and start of those that have been sent the one and the other.
    """

    def __init__(self, mark: str, groups: Collection[int], session: int, grace: float) -> None:
        self.told: set[tuple[int, int]] = set()
        self.killed: set[tuple[int, int]] = set()
        self._mark = mark.encode()
        self._groups = groups
        self._session = session
        self._deadline = time.monotonic() + grace
        self._wait = _SHORTEST / 2

    def hurry(self) -> None:
        """Kill those that are there at the next look."""
        self._deadline = min(self._deadline, time.monotonic())
        self._wait = _SHORTEST / 2

    def look(self, among: list[Process] | None) -> float:
        """Have those end that are there. Seconds until the next look; 0: none is left, or does not end even so."""
        late = time.monotonic() - self._deadline
        if among is None:
            found = self._signal_groups(signal.SIGKILL if late >= 0 else signal.SIGTERM)
        else:
            members = [process for process in among if self._has(process)]
            found = bool(members)
            for process in members:
                self._signal(process, late >= 0)
        if not found or late >= _KILL_TIMEOUT:
            return 0
        self._wait = min(self._wait * 2, _LONGEST)
        return max(min(self._wait, -late), _SHORTEST) if late < 0 else self._wait

    def _has(self, process: Process) -> bool:
        return (process.group in self._groups and process.session == self._session) or process.has_mark(self._mark)

    def _signal(self, process: Process, kill: bool) -> None:
        known = process.pid, process.start
        if kill:
            self.killed.add(known)
            process.send(signal.SIGKILL)
        elif known not in self.told:
            self.told.add(known)
            process.send(signal.SIGTERM)

    def _signal_groups(self, number: int) -> bool:
        found = False
        for group in self._groups:
            try:
                os.killpg(group, number)
                found = True
            except OSError:  # no process is in it
                pass
        return found


def end(family: Family, since: int) -> None:
    """Wait until the family has ended."""
    while wait := family.look(processes(since)):
        time.sleep(wait)


def _proc_is_ours() -> bool:
    """It is mounted, and for this namespace of processes."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115 (no pathlib in the guard process)
    except OSError:
        return False


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat after the name, which may hold anything; None: it has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split() or None


def _read(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:  # it has ended, or is another user's
        return b""
    try:
        return os.read(file, _LARGEST_ENVIRONMENT)
    except OSError:
        return b""
    finally:
        os.close(file)


# ---- the guard --------------------------------------------------------------------------------------


def main(master: int, control: int, mark: str, since: int, session: int, grace_ms: int, *daemons: int) -> None:
    """Wait until `master` has been killed, and end what the kernel does not end with it: helpers, and daemons, which
    the user has started. At the end of a service in order the guard is killed.

    Args:
        master: its pidfd.
        control: the socket to it; messages are numbers of 32 bits: the pid of a worker that has been started, or, below
            0, of one that has ended and whose helpers have.
        mark: what the marks of all helpers of the service begin with.
        since: when the master has started, in clock ticks.
        session: of the workers.
        daemons: pid and pidfd of each.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # also those that a terminal sends to all
    os.setsid()  # apart from the master's terminal and group, which may be killed as a whole
    set_title(b"mosec_cy: guard")
    os.set_blocking(control, False)
    waiting = select.poll()
    waiting.register(master, select.POLLIN)
    waiting.register(control, select.POLLIN)
    workers: set[int] = set()
    while True:
        ended = master in {descriptor for descriptor, _ in waiting.poll()}
        _hear(control, workers)
        if ended:
            break
    _kill_daemons(dict(zip(daemons[::2], daemons[1::2], strict=True)), since)
    end(Family(mark, workers, session, grace_ms / 1000), since)
    os._exit(0)


def _hear(control: int, workers: set[int]) -> None:
    """Read what the master has said."""
    while True:
        try:
            message = os.read(control, _LARGEST_MESSAGE)
        except (BlockingIOError, ConnectionResetError):
            return
        if not message:  # the master has ended, which its pidfd tells
            return
        for pid in memoryview(message).cast("i"):
            if pid > 0:
                workers.add(pid)
            else:
                workers.discard(-pid)


def _kill_daemons(daemons: dict[int, int], since: int) -> None:
    alive = {pid: pidfd for pid, pidfd in daemons.items() if not select.select([pidfd], [], [], 0)[0]}
    below = descendants(alive, processes(since) or [])
    for pidfd in alive.values():
        try:  # noqa: SIM105 (no contextlib in here)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for process in below:
        process.send(signal.SIGKILL)
