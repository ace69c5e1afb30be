"""Many requests over many connections from one thread, each answer checked, some clients leaving."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import selectors
import socket
from collections.abc import Callable, Iterable, Iterator

from tests.http_client import parse_answer, request, reset
from tests.until import PATIENCE


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One request, and what becomes of it.

    Attributes:
        raw: the bytes to send.
        check: gets status and body; says whether they are right. None: the client leaves with a reset.
        sent: how many of the bytes a client that leaves sends before; None: all.
    """

    raw: bytes
    check: Callable[[int, bytes], bool] | None = None
    sent: int | None = None


def exchange(path: str, body: bytes, check: Callable[[int, bytes], bool] | None) -> Exchange:
    return Exchange(request(body, path), check)


def drive(port: int, exchanges: Iterable[Exchange], connections: int = 32) -> collections.Counter[int]:
    """Carry all of them out; how many answers had which status (0: the client left).

    Raises AssertionError for a wrong or lost answer.
    """
    counts: collections.Counter[int] = collections.Counter()
    todo = iter(exchanges)
    with selectors.DefaultSelector() as selector:
        callers = [_Caller(port, selector, todo, counts) for _ in range(connections)]
        try:
            for caller in callers:
                caller.next()
            while selector.get_map():
                ready = selector.select(PATIENCE)
                assert ready, f"no answer within {PATIENCE} s; so far {counts}"
                for key, events in ready:
                    key.data.on_event(events)
        finally:
            for caller in callers:
                caller.close()
    return counts


class _Caller:
    def __init__(
        self, port: int, selector: selectors.BaseSelector, todo: Iterator[Exchange], counts: collections.Counter[int]
    ) -> None:
        self.port = port
        self.selector = selector
        self.todo = todo
        self.counts = counts
        self.socket: socket.socket | None = None
        self.current: Exchange
        self.unsent = memoryview(b"")
        self.got = b""

    def next(self) -> None:
        while (current := next(self.todo, None)) is not None:
            self.current = current
            self.unsent = memoryview(current.raw)[: current.sent]
            if self.socket is None:
                self._connect()
            self._send()
            if self.unsent or current.check is not None:
                return
            self._leave()
        self.close()

    def on_event(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send()
            if not self.unsent and self.current.check is None:
                self._leave()
                self.next()
                return
        if events & selectors.EVENT_READ:
            self._receive()

    def close(self) -> None:
        if self.socket is not None:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None
            self.got = b""

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self.socket.setblocking(False)
        self.selector.register(self.socket, selectors.EVENT_READ, self)

    def _send(self) -> None:
        assert self.socket is not None
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
        if self.selector.get_key(self.socket).events != wanted:
            self.selector.modify(self.socket, wanted, self)

    def _leave(self) -> None:
        assert self.socket is not None
        self.selector.unregister(self.socket)
        reset(self.socket)
        self.socket, self.got = None, b""
        self.counts[0] += 1

    def _receive(self) -> None:
        assert self.socket is not None
        part = self.socket.recv(1 << 18)
        assert part, f"closed without an answer to {self.current.raw[:200]!r}; got {self.got[:200]!r}"
        self.got += part
        if (parsed := parse_answer(self.got)) is None:
            return
        answer, rest = parsed
        assert rest == b"", f"more than one answer: {self.got[:500]!r}"
        self.counts[answer.status] += 1
        assert self.current.check is not None
        right = self.current.check(answer.status, answer.body)
        assert right, f"{answer.status} {answer.body[:200]!r} to {self.current.raw[:300]!r}"
        self.got = b""
        if answer.closes:
            self.close()
        self.next()
