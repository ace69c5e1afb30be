"""A core that stands still before some of its system calls, until the test lets it go on (seccomp_unotify(2))."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import select
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.until import PATIENCE

T = TypeVar("T")

# Numbers of the kernel: the calls at which core stands still, and how the test hears of them.
# SLEEP is epoll_pwait2, which core calls only where it means to wait; PORT_SHUT is shutdown, of reading.
SLEEP = 441
SECCOMP, PORT_SHUT = {"x86_64": (317, 48), "aarch64": (277, 210)}[platform.machine()]
NO_NEW_PRIVILEGES, FILTER, NEW_LISTENER = 38, 1, 8
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
CALL = struct.Struct("@QIIiIQ6Q")  # struct seccomp_notif
REPLY = struct.Struct("@QqiI")


def _operation(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


_PROGRAM = ctypes.create_string_buffer(
    _operation(0x20, 0, 0, 0)  # the number of the call
    + _operation(0x15, 3, 0, SLEEP)
    + _operation(0x15, 0, 3, PORT_SHUT)
    + _operation(0x20, 0, 0, 24)  # its second argument
    + _operation(0x15, 0, 1, 0)  # SHUT_RD
    + _operation(0x06, 0, 0, 0x7FC00000)  # ask the test
    + _operation(0x06, 0, 0, 0x7FFF0000)  # allow
)


def _listen_to_calls() -> int:
    """The descriptor that tells of the calls of this thread, and of all that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    long = ctypes.c_ulong
    header = ctypes.create_string_buffer(struct.pack("@HP", 7, ctypes.addressof(_PROGRAM)))
    assert libc.prctl(NO_NEW_PRIVILEGES, long(1), long(0), long(0), long(0)) == 0, "no new privileges"
    descriptor: int = libc.syscall(long(SECCOMP), long(FILTER), long(NEW_LISTENER), header)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    return descriptor


class Steps:
    """Of one core, from call to call: SLEEP and PORT_SHUT."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._current: int | None = None

    def next(self) -> int | None:
        """Let core go on, until it stands before its next call; None: it has ended."""
        if self._current is not None:
            # Core may have been killed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                fcntl.ioctl(self._descriptor, SEND, REPLY.pack(self._current, 0, 0, CONTINUE))
            self._current = None
        while True:
            ready = self._poll.poll(PATIENCE * 1000)
            assert ready, "core neither called nor ended"
            if not ready[0][1] & select.POLLIN:
                return None
            with contextlib.suppress(FileNotFoundError):  # the call was interrupted: it comes again
                call = CALL.unpack(fcntl.ioctl(self._descriptor, RECEIVE, bytes(CALL.size)))
                self._current = call[0]
                return call[3]

    def until(self, number: int) -> None:
        """Let core go on, until it stands before that call."""
        while (call := self.next()) != number:
            assert call is not None, "core has ended"

    @contextlib.contextmanager
    def freely(self) -> Iterator[None]:
        """Core goes on meanwhile, and has ended when this returns."""

        def run() -> None:
            while self.next() is not None:
                pass

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@contextlib.contextmanager
def stepped(start: Callable[[], T]) -> Iterator[tuple[T, Steps]]:
    """What `start` gives, and the steps of the process that it starts, which must have ended when this returns."""
    with ThreadPoolExecutor(1) as thread:  # the filter cannot be taken off the thread again
        descriptor = thread.submit(_listen_to_calls).result()
        started = thread.submit(start).result()
    try:
        yield started, Steps(descriptor)
    finally:
        os.close(descriptor)
