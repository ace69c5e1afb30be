"""HTTP load that does not wait for its answers: Poisson arrivals at a given rate, over as many connections as it takes.

Latencies are counted from when a request was due, not from when it was sent: a client that falls behind does not hide
that (what wrk2 calls coordinated omission).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections import defaultdict

MOST_CONNECTIONS = 4096
PATIENCE = 30.0  # s, for the answers after the last request


@dataclasses.dataclass
class Tally:
    """What came of a run.

    Attributes:
        seconds: length of the run.
        latencies: s, by status.
        good: answers 200 while it ran.
        unsent: requests for which the client had no connection left.
        lost: requests without an answer.
        without_retry: refusals, 429 and 503, without a retry-after.
    """

    seconds: float
    latencies: dict[int, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    good: int = 0
    unsent: int = 0
    lost: int = 0
    without_retry: int = 0

    def add(self, other: Tally) -> None:
        """Take over what another client saw in the same time."""
        for status, latencies in other.latencies.items():
            self.latencies[status] += latencies
        self.good += other.good
        self.unsent += other.unsent
        self.lost += other.lost
        self.without_retry += other.without_retry


def drive(port: int, body: bytes, rate: float, seconds: float, seed: int, headers: str = "") -> Tally:
    """`rate` requests a second (mean), whatever becomes of those before."""
    return asyncio.run(_Load(port, body, headers, seconds).open_loop(rate, random.Random(seed)))


def saturate(port: int, body: bytes, connections: int, seconds: float) -> Tally:
    """So many clients that ask again as soon as they have their answer."""
    return asyncio.run(_Load(port, body, "", seconds).closed_loop(connections))


class _Load:
    def __init__(self, port: int, body: bytes, headers: str, seconds: float) -> None:
        self.port = port
        head = f"POST /inference HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        self.request = head.encode() + body
        self.tally = Tally(seconds)
        self.idle: list[_Connection] = []
        self.open: set[_Connection] = set()
        self.waiting = 0
        self.quiet = asyncio.Event()  # nobody waits
        self.ends_at = 0.0
        self.again = False  # a closed loop

    async def open_loop(self, rate: float, generator: random.Random) -> Tally:
        loop = asyncio.get_running_loop()
        due = loop.time()
        self.ends_at = due + self.tally.seconds
        while (due := due + generator.expovariate(rate)) < self.ends_at:
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            await self.ask(due)
        return await self.finish()

    async def closed_loop(self, connections: int) -> Tally:
        loop = asyncio.get_running_loop()
        self.again = True
        self.ends_at = loop.time() + self.tally.seconds
        for _ in range(connections):
            await self.ask(loop.time())
        await asyncio.sleep(self.tally.seconds)
        return await self.finish()

    async def ask(self, due: float) -> None:
        """One request, on a connection that is idle or new."""
        if not self.idle and len(self.open) >= MOST_CONNECTIONS:
            self.tally.unsent += 1
            return
        self.waiting += 1
        if self.idle:
            self.idle.pop().send(due)
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            connection.send(due)

    def ended(self) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            self.quiet.set()

    async def finish(self) -> Tally:
        self.again = False
        if self.waiting:
            self.quiet.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.quiet.wait(), PATIENCE)
        self.tally.lost += self.waiting
        for connection in list(self.open):
            connection.transport.abort()
        return self.tally


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.due: float | None = None
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.load.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.load.open.discard(self)
        if self in self.load.idle:
            self.load.idle.remove(self)
        if self.due is not None:
            self.load.ended()
            self.load.tally.lost += 1

    def send(self, due: float) -> None:
        self.due = due
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.got += data
        head, end, body = self.got.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self.got = b""
        self.answered(int(head[9:12]), b"\r\nretry-after: " in head)
        if b"connection: close" in head:
            self.transport.abort()
        elif self.load.again:
            self.load.waiting += 1
            self.send(asyncio.get_running_loop().time())
        else:
            self.load.idle.append(self)

    def answered(self, status: int, says_when: bool) -> None:
        load, now = self.load, asyncio.get_running_loop().time()
        assert self.due is not None, "an answer to nothing"
        load.tally.latencies[status].append(now - self.due)
        load.tally.good += status == 200 and now < load.ends_at
        load.tally.without_retry += status in (429, 503) and not says_when
        load.ended()
        self.due = None
