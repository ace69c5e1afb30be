"""Messages between master and a worker over their control socket: 4 bytes of length, then msgpack.

A worker that starts sends {"step": what it begins to do}, a value of `progress.Step`, and then {"ready": true}; or
{"failed": traceback} and ends, with "final" beside it where another process would fail alike.
To {"collect": true} from the master it answers {"metrics": snapshot}, which it also sends unasked as its last words.
{"attach": number} comes with the descriptors of another core's memory and bell; once the worker serves that core it
says {"attached": number}.
"""

from __future__ import annotations

import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

_LENGTH = struct.Struct("=I")
_LARGEST = 64 << 20


def send(sock: socket.socket, message: dict[str, Any], flags: int = 0, descriptors: Sequence[int] = ()) -> None:
    """Send one message whole; blocks while the peer does not read, unless `flags` (MSG_*) say otherwise.

    The peer gets copies of `descriptors`, if it is ready to take any.
    """
    body = msgpack.packb(message)
    data = _LENGTH.pack(len(body)) + body
    if descriptors:  # not by socket.send_fds, which drops the flags in some versions of Python
        rights = socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors)
        data = data[sock.sendmsg([data], [rights], flags) :]
    if data:
        sock.sendall(data, flags)


class Inbox:
    """The messages that arrive on a socket, in whatever pieces."""

    def __init__(self, sock: socket.socket, largest: int = _LARGEST) -> None:
        self._socket = sock
        self._pending = bytearray()
        self.largest = largest  # bytes of one message
        self.closed = False

    def take(self) -> Iterator[dict[str, Any]]:
        """All whole messages that are there, without waiting; sets `closed` when the peer has gone.

        Raises ValueError for bytes that are no message; the socket is then of no more use.
        """
        self._receive()
        while len(self._pending) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._pending)
            if size > self.largest:
                raise ValueError(f"a control message of {size} bytes is not one")
            end = _LENGTH.size + size
            if len(self._pending) < end:
                return
            body = bytes(self._pending[_LENGTH.size : end])
            del self._pending[:end]
            message = msgpack.unpackb(body)
            if not isinstance(message, dict):
                raise ValueError(f"a control message is a map, not {type(message).__name__}")
            yield message

    def _receive(self) -> None:
        while not self.closed:
            try:
                data = self._read(1 << 16)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self._pending += data
            self.closed = not data

    def _read(self, most: int) -> bytes:
        return self._socket.recv(most, socket.MSG_DONTWAIT)  # the kernel closes descriptors that come with it


class DescriptorInbox(Inbox):
    """Also takes the descriptors that messages bring, up to `MOST` with each."""

    MOST = 2

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._descriptors: deque[int] = deque()

    def take(self) -> Iterator[dict[str, Any]]:
        """As `Inbox.take`. Descriptors that were not claimed before the next call are closed."""
        if not self._pending:  # else they may belong to the message that has begun
            self.close()
        yield from super().take()

    def claim(self, count: int) -> list[int]:
        """The next descriptors, for the message that was taken last; the caller owns them.

        Raises:
            ValueError: so many have not come.
        """
        if len(self._descriptors) < count:
            raise ValueError(f"{len(self._descriptors)} descriptors came where {count} were expected")
        return [self._descriptors.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close descriptors that were not claimed."""
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _read(self, most: int) -> bytes:
        room = socket.CMSG_LEN(self.MOST * array("i").itemsize)
        data, ancillary, _, _ = self._socket.recvmsg(most, room, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        for level, kind, body in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors.extend(array("i", body))
        return data
