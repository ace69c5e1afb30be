"""The HTTP client of the tests that sees every byte, the requests that it sends, and the parser of what it gets.

Tests that want an ordinary client take httpx (`Service.client`); those of HTTP itself, and those that steer when a byte
is sent or read, take `Client`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from typing_extensions import Self

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: `close` sends a RST


# ---- requests ----------------------------------------------------------------------------------


def request(body: bytes, path: str = "/inference", headers: str = "", method: str = "POST") -> bytes:
    """A request with a body of declared length."""
    head = f"{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def chunked(*parts: bytes, path: str = "/inference", headers: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    """A POST whose body comes in these chunks."""
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n{headers}\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def get(path: str = "/", headers: str = "", method: str = "GET") -> bytes:
    """A request without a body."""
    return f"{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n".encode()


# ---- answers -----------------------------------------------------------------------------------


class Answer(NamedTuple):
    """One answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def outcome(self) -> tuple[int, bytes]:
        """Status and body."""
        return self.status, self.body

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


def parse_answer(data: bytes, to_head: bool = False) -> tuple[Answer, bytes] | None:
    """The answer at the beginning of the bytes, and what comes after it; None: it is not all there.

    An answer without a content-length ends with its head, and so does one `to_head`, to a HEAD. Raises AssertionError
    for what is no answer of HTTP/1.1, or has a header twice.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1", first
    fields = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in fields}
    assert len(headers) == len(fields), f"a header line twice: {lines}"
    begin = end + 4
    end = begin + (0 if to_head else int(headers.get("content-length", "0")))
    return (Answer(int(status), headers, data[begin:end]), data[end:]) if len(data) >= end else None


def receive_all(connection: socket.socket) -> bytes:
    """All bytes until the server closes."""
    parts = []
    while part := connection.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


# ---- the client --------------------------------------------------------------------------------


class Listening(Protocol):
    """What can be connected to: `Service`, `Engine`."""

    def connect(self) -> socket.socket: ...


class Client:
    """One connection, made or given. Reads answers one by one, and knows nothing of what was asked."""

    def __init__(self, to: Listening | socket.socket) -> None:
        self.socket = to if isinstance(to, socket.socket) else to.connect()
        self.rest = b""  # what has come after the last answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        """Send bytes as they are."""
        for part in data:
            self.socket.sendall(part)

    def send_post(self, body: bytes, path: str = "/inference", headers: str = "") -> Self:
        """Send a request, whose answer is read later."""
        self.send(request(body, path, headers))
        return self

    def answer(self, to_head: bool = False, interim: bool = False) -> Answer:
        """The next answer. `to_head`: it answers HEAD; `interim`: 1xx are answers too, else they are skipped."""
        while (parsed := parse_answer(self.rest, to_head)) is None:
            self._more()
        answer, self.rest = parsed
        return answer if interim or answer.status >= 200 else self.answer(to_head)

    def outcome(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        return self.answer().outcome

    def last_answer(self, to_head: bool = False) -> Answer:
        """The next answer, after which the server closes and has said nothing more."""
        answer = self.answer(to_head)
        assert self.ended(), f"more than one answer: {self.rest[:2000]!r}"
        return answer

    def ask(self, data: bytes, to_head: bool = False) -> Answer:
        self.send(data)
        return self.answer(to_head)

    def post(self, body: bytes, path: str = "/inference", headers: str = "") -> Answer:
        return self.ask(request(body, path, headers))

    def readable(self, seconds: float = 0) -> bool:
        """Whether something comes within that time, be it the end."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def leave(self) -> None:
        """Close with a FIN."""
        self.socket.close()

    def reset(self) -> None:
        """Close with a RST."""
        reset(self.socket)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def ended(self) -> bool:
        """Waits for the end of the connection; True if nothing came before it, and no reset."""
        return self.rest == b"" and self.socket.recv(1) == b""

    def gone(self) -> bool:
        """Waits for the end of the connection, by a FIN or a reset; True if no answer came before it."""
        with contextlib.suppress(ConnectionResetError):
            return self.rest == b"" and self.socket.recv(1) == b""
        return True

    def _more(self) -> None:
        part = self.socket.recv(1 << 20)
        assert part, f"the server closed after {self.rest[:2000]!r}"
        self.rest += part


def reset(connection: socket.socket) -> None:
    """Close with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


@contextlib.contextmanager
def clients(to: Listening, count: int) -> Iterator[list[Client]]:
    """So many connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client(to)) for _ in range(count)]
