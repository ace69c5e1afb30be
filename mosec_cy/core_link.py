"""The master's side of the core process: how it is started, and the messages between both."""

from __future__ import annotations

import enum
import marshal
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mosec_cy import child

_MESSAGE = struct.Struct("=IIIiQ")  # kind, row, incarnation, pid, value: one datagram each


class ToCore(enum.IntEnum):
    ROW_STARTED = 1  # row, incarnation, pid, and the pidfd beside it; value: the row whose counts it continues
    ROW_READY = 2
    ROW_DRAIN = 3
    LISTEN = 4  # accept from now on
    SHUTDOWN = 5  # value: monotonic deadline in ns


class FromCore(enum.IntEnum):
    ROW_DEAD = 101  # drained: the row may be started again; value: tasks that were answered 500
    ROW_OVERDUE = 102
    ROW_KILLED = 103
    STOPPED = 104  # nothing is in flight any more
    RUNNING = 105  # it is set up and hears orders
    ROW_IDLE = 106  # a row that was told to drain holds no task any more


@dataclass(frozen=True)
class Message:
    kind: int
    row: int
    incarnation: int
    pid: int
    value: int


class CoreLink:
    """The core process and the socket to it."""

    def __init__(self, config: Mapping[str, Any], keep: list[int]) -> None:
        """Start core with `config`, which it gets by memory file, and the descriptors `keep`."""
        self.closed = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            full = {**config, "control_fd": theirs.fileno(), "master_pid": os.getpid()}
            boot = os.memfd_create("mosec_cy-core")
            try:
                os.write(boot, marshal.dumps(full))
                os.lseek(boot, 0, os.SEEK_SET)
                self.process = child.execute_small(
                    "mosec_cy.core_process", [boot, os.getpid()], [*keep, theirs.fileno(), boot]
                )
            except BaseException:
                self._socket.close()
                raise
            finally:
                os.close(boot)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(
        self, kind: ToCore, row: int = 0, incarnation: int = 0, pid: int = 0, value: int = 0, pidfd: int = -1
    ) -> None:
        """Send one message, once there is room; to a core that has died it goes nowhere, its pidfd tells of that."""
        data = _MESSAGE.pack(kind, row, incarnation, pid, value)
        try:
            while not self._send(data, pidfd):
                room = select.poll()
                room.register(self._socket, select.POLLOUT)
                room.poll()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _send(self, data: bytes, pidfd: int) -> bool:
        """False: a few hundred messages wait already, as when as many workers start before core listens."""
        try:
            if pidfd >= 0:
                socket.send_fds(self._socket, [data], [pidfd])
            else:
                self._socket.send(data)
        except BlockingIOError:
            return False
        return True

    def take(self) -> Iterator[Message]:
        """All messages that are there, without waiting; sets `closed` when core has gone."""
        while not self.closed:
            try:
                data = self._socket.recv(_MESSAGE.size)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                return
            yield Message(*_MESSAGE.unpack(data))

    def close(self) -> None:
        self._socket.close()
        self.process.close()
