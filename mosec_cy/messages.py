"""Messages between master and a worker over their control socket: 4 bytes of length, then msgpack.

A worker sends {"ready": true} once, or {"failed": traceback} and ends. To {"collect": true} from the master it answers
{"metrics": snapshot}, which it also sends unasked as its last words.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgpack

_LENGTH = struct.Struct("=I")
_LARGEST = 64 << 20


def send(sock: socket.socket, message: dict[str, Any], flags: int = 0) -> None:
    """Send one message whole; blocks while the peer does not read, unless `flags` (MSG_*) say otherwise."""
    body = msgpack.packb(message)
    sock.sendall(_LENGTH.pack(len(body)) + body, flags)


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
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self._pending += data
            self.closed = not data
