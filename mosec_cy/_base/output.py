"""stdout and stderr as the service needs them: open, and never in the way of the process that writes to them.

A pipe, a terminal or a socket may take nothing for as long as it likes, or nothing any more; the process goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mosec_cy._base.signals import start_thread

_MOST_WAITING = 1 << 18  # bytes
_STALLED = 0.25  # s without a byte taken, after which lines are lost instead of waited for
_SLOW = 1.0  # s, for which one line waits at most for a reader that is slow
_HOLD_TIMEOUT = 1.0  # s; a process that was stopped amid a line does not silence the others
_END_TIMEOUT = 0.5  # s, for what still waits when the process ends
_RETRY = 0.05  # s, between attempts where the system says that there is room and then there is none
_LOOK_AGAIN = 1000  # ms, in case the descriptor has been replaced meanwhile


class Output:
    """What descriptor `number` refers to, written to from any thread.

    Lines that do not fit wait in memory, and a thread, which runs only then, writes them once there is room. Beyond the
    memory's limit a writer waits for a reader that is slow; once nothing is read, or there is no reader, lines are
    counted as lost. `on_recovery` is called when writing works again. Signal handlers may write amid a write.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.on_recovery: Callable[[], None] | None = None
        self._sink: _Sink | None = None
        self._avoided: tuple[int, int] | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._waiting: deque[bytes | memoryview] = deque()
        self._size = 0  # bytes that wait
        self._lost = 0  # lines
        self._flushing = 0  # the thread that does; it has the lock
        self._losing = False  # since nothing was read while there was no room left
        self._troubled = False  # since some line could not be written at once
        self._draining = False

    def after_fork(self) -> None:
        """In the child: what waits is the parent's to write; an open file of its own is needed for the lock on it."""
        self._begin()
        if self._sink is not None and self._sink.is_intact():
            self._sink.close()
        self._sink = None

    @property
    def may_stall(self) -> bool:
        """True if writing to the descriptor itself might wait."""
        with contextlib.suppress(OSError):
            return _may_stall(os.fstat(self.number).st_mode, self.number)
        return False

    def avoid(self) -> None:
        """What is on the descriptor now is not meant for lines: write none to it."""
        self._avoided = _place(self.number)

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def take_lost(self) -> int:
        """How many lines were lost since this was called last; 0 while writing does not work."""
        with self._lock:
            if self._troubled:
                return 0
            lost, self._lost = self._lost, 0
            return lost

    def write(self, data: bytes) -> None:
        """Write whole lines, or have them wait, or count them as lost; raises nothing."""
        if self._size >= _MOST_WAITING and not self._losing and self._flushing != threading.get_ident():
            self._wait_while_it_is_read()
        with self._lock:
            if self._size < _MOST_WAITING:
                self._waiting.append(data)
                self._size += len(data)
            else:
                self._lost += _lines(data)
            recovered = self._flush()
        self._report(recovered)

    def _wait_while_it_is_read(self) -> None:
        size, began = self._size, time.monotonic()
        since = began
        while self._size >= _MOST_WAITING and not self._losing:
            self._wait_for_room(int(_STALLED * 1000))
            with self._lock:
                recovered = self._flush()
            self._report(recovered)
            if self._size < size:
                size, since = self._size, time.monotonic()
            else:
                self._losing = time.monotonic() - since >= _STALLED
            if time.monotonic() - began >= _SLOW:
                self._losing = True

    def finish(self) -> None:
        """Write what waits, for a moment at most: the process is about to end."""
        deadline = time.monotonic() + _END_TIMEOUT
        while True:
            size = self._size
            with self._lock:
                recovered = self._flush()
            self._report(recovered)
            left = deadline - time.monotonic()
            if not self._waiting or left <= 0:
                break
            self._wait_for_room(int(left * 1000))
            if self._size == size:  # there is room, but another process is amid a line
                time.sleep(min(left, _RETRY))
        with self._lock:  # the interpreter stops threads wherever they are: not while they hold what is needed
            self._lock = threading.RLock()
            self._draining = True  # nor does it start any more: that would wait for ever

    def _report(self, recovered: bool) -> None:
        if recovered and self.on_recovery is not None:
            self.on_recovery()

    def _flush(self) -> bool:
        """Write what can be written now; True if that was all, and it had not been so before."""
        # What a signal handler has added is written by what it interrupted.
        if not self._waiting or self._flushing == threading.get_ident():
            return False
        self._flushing = threading.get_ident()
        try:
            sink = self._current_sink()
            while self._waiting:
                self._write_first(sink)
            self._size = 0
        except BlockingIOError:
            self._troubled = True
            self._start_draining()
            return False
        except OSError:  # nothing reads it any more, or the disk is full
            self._lost += sum(map(_lines, self._waiting))
            self._waiting.clear()
            self._size = 0
            self._troubled = True
            return False
        finally:
            self._flushing = 0
        recovered, self._troubled, self._losing = self._troubled, False, False
        return recovered

    def _write_first(self, sink: _Sink) -> None:
        line, written = self._waiting.popleft(), 0
        try:
            written = sink.write(line)
        finally:  # a signal handler may have raised
            self._size -= written
            if written < len(line):
                self._waiting.appendleft(memoryview(line)[written:] if written else line)

    def _start_draining(self) -> None:
        if not self._draining:
            with contextlib.suppress(RuntimeError):  # no thread is to be had: the next line tries again
                start_thread("mosec_cy-log", self._drain, self._lock)
                self._draining = True

    def _drain(self, lock: threading.RLock) -> None:
        """The thread; it ends when all is written, or when the lock that it began with is no more in use."""
        while True:
            self._wait_for_room(_LOOK_AGAIN)
            with lock:
                if self._lock is not lock:
                    return
                before = self._size
                recovered = self._flush()
                stuck = self._size == before
                self._draining = bool(self._waiting)
                done = not self._draining
            self._report(recovered)
            if done:
                return
            if stuck:
                time.sleep(_RETRY)

    def _wait_for_room(self, most: int) -> None:
        sink = self._sink
        waiting = select.poll()
        waiting.register(self.number if sink is None else sink.fd, select.POLLOUT)
        waiting.poll(most)

    def _current_sink(self) -> _Sink:
        """The program may have put another file on the descriptor, or have closed it, or ours. Raises OSError."""
        place = _place(self.number)
        if place == self._avoided:
            place = None
        sink = self._sink
        if sink is not None and sink.is_intact():
            if place in (None, sink.place):
                return sink
            sink.close()
        self._sink = None
        if place is None:
            raise OSError(f"descriptor {self.number} is closed")
        self._sink = _open(self.number, place)
        return self._sink


class _Sink:
    """A descriptor that is written to as it is: to a file, which takes all."""

    def __init__(self, fd: int, place: tuple[int, int]) -> None:
        self.fd = fd
        self.place = place

    def is_intact(self) -> bool:
        return _place(self.fd) == self.place

    def close(self) -> None:
        """Close the descriptor, if it is ours."""

    def write(self, data: bytes | memoryview) -> int:
        """Write a line, or what is left of it; returns the bytes written. Raises BlockingIOError if that would wait."""
        return os.write(self.fd, data)


class _OwnSink(_Sink):
    """An open file of this process's own, which does not block: the others' descriptors stay as they are.

    A write that may end amid a line locks the file (flock(2)) until the rest is written; other writes share a lock.
    """

    _amid = False  # a line, of which the rest is still to be written; has the lock
    _refused_since: float | None = None  # s, while there was room

    def __init__(self, fd: int, place: tuple[int, int]) -> None:
        super().__init__(fd, place)
        self._whole = 0 if os.isatty(fd) else select.PIPE_BUF  # bytes that are written at once or not at all, pipe(7)

    def close(self) -> None:
        os.close(self.fd)

    def write(self, data: bytes | memoryview) -> int:
        if not self._amid:
            self._lock(fcntl.LOCK_SH if len(data) <= self._whole else fcntl.LOCK_EX)
        try:
            written = os.write(self.fd, data)
            self._amid = written < len(data)
        finally:
            if not self._amid:
                fcntl.flock(self.fd, fcntl.LOCK_UN)
        return written

    def _lock(self, kind: int) -> None:
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._waits_for_the_holder():
                raise
        self._refused_since = None

    def _waits_for_the_holder(self) -> bool:
        """True while the other process may yet write the rest of its line."""
        room = select.poll()
        room.register(self.fd, select.POLLOUT)
        if not room.poll(0):
            self._refused_since = None
            return True
        if self._refused_since is None:
            self._refused_since = time.monotonic()
        return time.monotonic() - self._refused_since < _HOLD_TIMEOUT


class _SocketSink(_Sink):
    """A socket cannot be opened anew, but each call says whether it waits."""

    def __init__(self, fd: int, place: tuple[int, int]) -> None:
        super().__init__(os.dup(fd), place)
        blocking = os.get_blocking(fd)
        self._socket = socket.socket(fileno=self.fd)
        self._socket.settimeout(None)  # a default time-out of the program's would be waited for
        os.set_blocking(fd, blocking)  # a flag that all processes share that share the socket

    def close(self) -> None:
        self._socket.close()

    def write(self, data: bytes | memoryview) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class _PolledSink(_Sink):
    """Where an open file of one's own is not to be had: written to in pieces that fit into any pipe with room."""

    def write(self, data: bytes | memoryview) -> int:
        room = select.poll()
        room.register(self.fd, select.POLLOUT)
        if not room.poll(0):
            raise BlockingIOError
        return os.write(self.fd, data[: select.PIPE_BUF])


def _open(number: int, place: tuple[int, int]) -> _Sink:
    mode = os.fstat(number).st_mode
    if not _may_stall(mode, number):
        return _Sink(number, place)
    with contextlib.suppress(OSError):  # no /proc, or no right to the file since the program has changed its user
        if stat.S_ISSOCK(mode):
            return _SocketSink(number, place)
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
        return _OwnSink(os.open(f"/proc/self/fd/{number}", flags), place)
    return _PolledSink(number, place)


def _may_stall(mode: int, number: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.isatty(number))


def _place(fd: int) -> tuple[int, int] | None:
    """Which file that is; None: it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lines(data: bytes | memoryview) -> int:
    return bytes(data).count(b"\n")


STDOUT = Output(1)
STDERR = Output(2)
for _output in (STDOUT, STDERR):
    os.register_at_fork(after_in_child=_output.after_fork)
    atexit.register(_output.finish)


# ---- descriptors 0 to 2, `sys.stdout` and `sys.stderr` ----------------------------------------------------


def open_missing() -> None:
    """Put /dev/null where the program was started without stdin, stdout or stderr.

    Else the next socket or memory that is opened gets that number, and what is printed goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    for stream, output in ((sys.__stdout__, STDOUT), (sys.__stderr__, STDERR)):
        if stream is None:
            output.avoid()  # a file of the program's own that has got the number already
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open("w")  # noqa: SIM115  for as long as the process runs
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def guard() -> None:
    """Have what is printed go the way of the log, so that `print` does not wait for a reader either.

    What user code has put in their place stays.
    """
    _guard("stdout", STDOUT)
    _guard("stderr", STDERR)


def flush() -> None:
    """Flush both; user code may have put anything in their place."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def finish() -> None:
    """Write what is still to be written: the process is about to end without Python's own exit."""
    flush()
    STDOUT.finish()
    STDERR.finish()


def _guard(name: str, output: Output) -> None:
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper) or not output.may_stall:
        return
    flush()
    raw = _Raw(output, stream.name)
    guarded = io.TextIOWrapper(
        raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw),  # PYTHONUNBUFFERED: raw
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, guarded)


class _Raw(io.RawIOBase):
    mode = "wb"

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self.name = name

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = bytes(data)
        self._output.write(written)
        return len(written)

    def fileno(self) -> int:
        return self._output.number

    def isatty(self) -> bool:
        return os.isatty(self._output.number)
