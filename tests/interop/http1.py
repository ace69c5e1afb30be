"""A client that sees every byte, and a core with an echoing worker, for tests of HTTP/1.1 over real sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import Engine, request
from tests.service import Service

JSON = 1
BYTES = 2
LEAVING = pytest.mark.parametrize("how", ["leave", "reset"])  # names of methods of Client


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """One connection. Reads answers one by one, and knows nothing of what was asked."""

    def __init__(self, engine: Engine | Service) -> None:
        self.socket = engine.connect()
        self.rest = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        for part in data:
            self.socket.sendall(part)

    def leave(self) -> None:
        """Close with a FIN."""
        self.socket.close()

    def reset(self) -> None:
        """Close with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def _more(self) -> None:
        part = self.socket.recv(1 << 20)
        assert part, f"the server closed after {self.rest[:2000]!r}"
        self.rest += part

    def answer(self, to_head: bool = False, interim: bool = False) -> Answer:
        """The next answer. `to_head`: it answers HEAD; `interim`: 1xx are answers too, else they are skipped."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [line.partition(":") for line in lines[1:]]
        headers = {name.lower(): value.strip() for name, _, value in fields}
        assert len(headers) == len(fields), f"a header line twice: {lines}"
        if int(status) < 200 and not interim:
            return self.answer(to_head)
        length = 0 if to_head else int(headers.get("content-length", "0"))
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return Answer(int(status), headers, body)

    def ask(self, data: bytes, to_head: bool = False) -> Answer:
        self.send(data)
        return self.answer(to_head)

    def post(self, body: bytes, **how: str) -> Answer:
        return self.ask(request(body, **how))

    def ended(self) -> bool:
        """Waits for the end of the connection; True if nothing came before it, and no reset."""
        return self.rest == b"" and self.socket.recv(1) == b""

    def gone(self) -> bool:
        """Waits for the end of the connection, by a FIN or a reset; True if no answer came before it."""
        with contextlib.suppress(ConnectionResetError):
            return self.rest == b"" and self.socket.recv(1) == b""
        return True


def chunked(*parts: bytes, path: str = "/inference", headers: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n{headers}\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def get(path: str = "/", headers: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n".encode()


def echo(channel: Channel, item: Any) -> None:
    channel.answer(item, 200, bytes(item), BYTES)


def barrier(engine: Engine | Service) -> None:
    """Core has handled all that was sent before: events come out of epoll in the order of their arrival."""
    with Client(engine) as client:
        assert client.ask(get()).status == 200


def settled(engine: Engine) -> None:
    """Waits until core holds nothing any more; call it when all clients are closed."""
    engine.wait_until(lambda now: now["connections"] == now["remaining"] == now["charged"] == 0)
    assert engine.segment.blocks() == (0, 0)


@contextlib.contextmanager
def core(**options: Any) -> Iterator[Engine]:
    """A core without a worker; at the end nothing may be left in it."""
    engine = Engine(**options)
    try:
        yield engine
        if engine.process.poll() is None:
            settled(engine)
    finally:
        engine.close()


@contextlib.contextmanager
def serving(answer: Callable[[Channel, Any], None] = echo, **options: Any) -> Iterator[Engine]:
    """A core with a worker; at the end nothing may be left in it."""
    with core(**options) as engine, engine.worker(answer):
        yield engine
