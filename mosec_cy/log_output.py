"""Writing to stdout and stderr without ever waiting for what reads them.

A pipe, a terminal or a socket may take nothing for as long as it likes, or nothing any more; the process goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable

from mosec_cy.background import start_thread

_MOST_WAITING = 1 << 18  # bytes
_LAST_PATIENCE = 0.5  # s, for what still waits when the process ends
_RETRY = 0.05  # s, between attempts where the system says that there is room and then there is none
_LOOK_AGAIN = 1000  # ms, in case the descriptor has been replaced meanwhile


class Output:
    """What descriptor `number` refers to, written to from any thread.

    Lines that do not fit wait in memory, and a thread, which runs only then, writes them once there is room. Those
    beyond the memory's limit, or without a reader, are counted. `on_recovery` gets the count when writing works again.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.on_recovery: Callable[[int], None] | None = None
        self._sink: _Sink | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes that wait
        self._lost = 0  # lines
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

    def write(self, data: bytes) -> None:
        """Write whole lines, or have them wait, or count them as lost; raises nothing."""
        with self._lock:
            if self._size < _MOST_WAITING:
                self._waiting.append(data)
                self._size += len(data)
            else:
                self._lost += _lines(data)
            recovered = self._flush()
        self._report(recovered)

    def finish(self) -> None:
        """Write what waits, for a moment at most: the process is about to end."""
        deadline = time.monotonic() + _LAST_PATIENCE
        while True:
            with self._lock:
                recovered = self._flush()
            self._report(recovered)
            left = deadline - time.monotonic()
            if not self._waiting or left <= 0:
                break
            self._wait_for_room(int(left * 1000))
        with self._lock:  # the interpreter stops threads wherever they are: not while they hold what is needed
            self._lock = threading.RLock()
            self._draining = False

    def _report(self, recovered: int) -> None:
        if recovered and self.on_recovery is not None:
            self.on_recovery(recovered)

    def _flush(self) -> int:
        """Write what can be written now; the number of lost lines, once all that waited has been written."""
        if not self._waiting:
            return 0
        try:
            sink = self._current_sink()
            sink.claim()
            while self._waiting:
                written = sink.write(self._waiting[0])
                self._size -= written
                if written < len(self._waiting[0]):
                    self._waiting[0] = self._waiting[0][written:]
                    sink.hold()
                else:
                    self._waiting.popleft()
                    sink.release()
        except BlockingIOError:
            self._start_draining()
            return 0
        except OSError:  # nothing reads it any more, or the disk is full
            self._lost += sum(map(_lines, self._waiting))
            self._waiting.clear()
            self._size = 0
            return 0
        recovered, self._lost = self._lost, 0
        return recovered

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

    def write(self, data: bytes) -> int:
        """Bytes written. Raises BlockingIOError if that would wait."""
        return os.write(self.fd, data)

    def claim(self) -> None:
        """Begin to write. Raises BlockingIOError while another process has written only a part of a line."""

    def hold(self) -> None:
        """Only a part of a line has been written: no other process may write before the rest has been."""

    def release(self) -> None:
        """A line has been written to its end."""


class _OwnSink(_Sink):
    """An open file of this process's own, which does not block: the others' descriptors stay as they are."""

    _holding = False

    def close(self) -> None:
        os.close(self.fd)

    def claim(self) -> None:
        if not self._holding:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def hold(self) -> None:
        if not self._holding:
            with contextlib.suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._holding = True

    def release(self) -> None:
        if self._holding:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            self._holding = False


class _SocketSink(_Sink):
    """A socket cannot be opened anew, but each call says whether it waits."""

    def __init__(self, fd: int, place: tuple[int, int]) -> None:
        super().__init__(os.dup(fd), place)
        blocking = os.get_blocking(fd)
        self._socket = socket.socket(fileno=self.fd)
        self._socket.settimeout(None)  # a default time-out of the program's would be waited for
        os.set_blocking(fd, blocking)  # which is of all who share the socket

    def close(self) -> None:
        self._socket.close()

    def write(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class _PolledSink(_Sink):
    """Where an open file of one's own is not to be had: written to in pieces that fit into any pipe with room."""

    def write(self, data: bytes) -> int:
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


def _lines(data: bytes) -> int:
    return data.count(b"\n")


STDOUT = Output(1)
STDERR = Output(2)
for _output in (STDOUT, STDERR):
    os.register_at_fork(after_in_child=_output.after_fork)
    atexit.register(_output.finish)
