"""The clients of a soak: each sends request after request, and some leave in their middle."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
import zlib
from collections.abc import Callable, Iterator

from tests.http_client import RESET, parse_answer
from tests.soak.ledger import Attempt, Fault, Ledger
from tests.soak.requests import Request, draw

PATIENCE = 45.0  # s; more than the service's time-out
LEAVES = 0.04  # of the requests: the client leaves
SLOW = 0.05  # of them: it takes its time to read the answer
HALF_CLOSES = 0.03  # of them: it says at once that it will ask for nothing more
GONE = (ConnectionError, asyncio.IncompleteReadError)
WRONG = (ValueError, OSError, EOFError, zlib.error, AssertionError)  # no JSON, MessagePack or gzip, or no HTTP at all


class Client:
    """One connection after the other, until `end` (s of the monotonic clock)."""

    def __init__(self, port: int, ledger: Ledger, numbers: Iterator[int], chance: random.Random, pause: float) -> None:
        self.port = port
        self.ledger = ledger
        self.numbers = numbers
        self.chance = chance
        self.pause = pause
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, end: float) -> None:
        while time.monotonic() < end:
            asked = draw(next(self.numbers), self.chance)
            try:
                await self._connect()
            except ConnectionError:  # the service is between two cores
                await asyncio.sleep(0.05)
                continue
            if self.chance.random() < LEAVES:
                await self._leave(asked)
            else:
                again = self.chance.random() < 0.1 and asked.kind in ("echo", "pipeline", "packed")
                await self._ask([asked, asked] if again else [asked])
            await asyncio.sleep(self.chance.random() * 2 * self.pause)
        self._close()

    async def _connect(self) -> None:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)

    def _close(self, *, reset: bool = False) -> None:
        if self.streams is not None:
            _, writer = self.streams
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            writer.close()
            self.streams = None

    async def _leave(self, asked: Request) -> None:
        """Sends a part or all of it, perhaps reads a little, and is gone."""
        assert self.streams is not None
        reader, writer = self.streams
        with contextlib.suppress(*GONE, asyncio.TimeoutError):
            writer.write(asked.raw[: self.chance.randrange(len(asked.raw)) + 1])
            if self.chance.random() < 0.5:
                await asyncio.wait_for(reader.read(100), 0.05)
        self.ledger.left += 1
        if asked.fault:
            self.ledger.faults.append(Fault(asked.fault, time.monotonic(), "faulty"))
        self._close(reset=self.chance.random() < 0.5)

    async def _ask(self, pipelined: list[Request]) -> None:
        """Sends them at once and reads the answers in their order."""
        assert self.streams is not None
        reader, writer = self.streams
        began = time.monotonic()
        keep = True
        whole = b"".join(asked.raw for asked in pipelined)
        rest = whole[pipelined[0].first or len(whole) :]
        writer.write(whole[: len(whole) - len(rest)])

        def go_on() -> None:
            nonlocal rest
            if rest:  # else it is a sign of life to who has half closed
                writer.write(rest)
                rest = b""

        half_closes = not rest and self.chance.random() < HALF_CLOSES
        if half_closes:
            with contextlib.suppress(OSError):  # the connection has ended already
                writer.write_eof()
        if self.chance.random() < SLOW:
            await asyncio.sleep(2 * self.chance.random())
        for asked in pipelined:
            status: int | None = 0
            own: bool | None = None
            if keep:
                try:
                    status, body, keep = await asyncio.wait_for(answer(reader, go_on), PATIENCE)
                    own = asked.check(body) if status == 200 and 200 in asked.allowed else None
                except asyncio.TimeoutError:
                    status, keep = None, False
                except GONE:
                    keep = False
                except WRONG:
                    own, keep = False, False
            ended = time.monotonic()
            self.ledger.enter(Attempt(asked.kind, began, ended, status, own, asked.allowed))
            if asked.fault:
                self.ledger.faults.append(Fault(asked.fault, ended, "faulty"))
        if not keep or rest or half_closes or self.chance.random() < 0.1:
            self._close()


async def answer(reader: asyncio.StreamReader, go_on: Callable[[], None]) -> tuple[int, bytes, bool]:
    """Status and body of the next answer, and whether the connection stays; `go_on` is called at each 100 before it.

    Raises ConnectionError or IncompleteReadError where the connection ends before the answer's end.
    """
    while True:
        parsed = parse_answer(await reader.readuntil(b"\r\n\r\n"), to_head=True)
        assert parsed, "a whole head"
        head, _ = parsed
        if head.status >= 200:
            break
        go_on()
    if head.headers.get("transfer-encoding") != "chunked":
        body = await reader.readexactly(int(head.headers.get("content-length", "0")))
        return head.status, body, not head.closes
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return head.status, b"".join(parts), not head.closes


async def drive(port: int, ledger: Ledger, seed: int, seconds: float, clients: int, rate: float) -> None:
    """That many clients for so long, together about `rate` requests a second."""
    numbers = iter(range(1, 1 << 40))
    end = time.monotonic() + seconds
    await asyncio.gather(
        *(
            Client(port, ledger, numbers, random.Random(f"{seed} {client}"), clients / rate).run(end)
            for client in range(clients)
        )
    )
