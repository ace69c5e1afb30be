"""A client of streams that sees every byte, and a core whose worker sends events."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mosec_cy._engine.worker import Channel, Sender
from tests.engine import Engine
from tests.http_client import Answer, Client, request
from tests.interop.http1 import serving

WINDOW = 1 << 20  # bytes of events that may be under way on one stream
TIMED_OUT = b"event: error\ndata: SSE inference error: 408: Request Timeout: inference timeout\n\n"


def data(*texts: str) -> bytes:
    return b"".join(b"data: %s\n\n" % text.encode() for text in texts)


class Reader(Client):
    """A client of one stream after the other."""

    def begin(self, body: bytes = b"x", **how: str) -> Answer:
        """Send a request; the head of the answer, which is a stream."""
        head = self.ask(request(body, **how))
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
        return head

    def chunk(self) -> bytes:
        """The next chunk's data; empty: it was the last one (RFC 9112 section 7.1)."""
        size = int(self._line(), 16)
        data = self._bytes(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    def until(self, end: bytes) -> bytes:
        """All data up to a chunk that ends so."""
        data = b""
        while not data.endswith(end):
            chunk = self.chunk()
            assert chunk, f"the stream ended after {data[-200:]!r}"
            data += chunk
        return data

    def rest_of_stream(self) -> bytes:
        """All data until the last chunk."""
        data = b""
        while chunk := self.chunk():
            data += chunk
        return data

    def _line(self) -> bytes:
        while b"\r\n" not in self.rest:
            self._more()
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def _bytes(self, n: int) -> bytes:
        parts, have = [self.rest], len(self.rest)
        while have < n:
            part = self.socket.recv(1 << 20)
            assert part, "the server closed within a chunk"
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self.rest = data[n:]
        return data[:n]


@contextlib.contextmanager
def streaming(forward: Callable[[Sender, Any], None], **options: Any) -> Iterator[Engine]:
    """A core whose worker answers each item with what `forward(sender, item)` sends."""
    senders: list[Sender] = []

    def answer(channel: Channel, item: Any) -> None:
        if not senders:
            senders.append(Sender(channel))
        forward(senders[0], item)
        channel.publish_end(item)

    with serving(answer, streams=True, **options) as engine:
        yield engine


class Gate:
    """A worker that sends one event, waits to be told, and goes on as long as it may."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.go = threading.Event()
        self.sent = 0
        self.refused = threading.Event()

    def __call__(self, sender: Sender, item: Any) -> None:
        sender.send("first", 0)
        assert self.go.wait(30)
        for text in self.texts:
            if not sender.send(text, 0):
                self.refused.set()
                return
            self.sent += 1
