"""Streams of slots that are killed, to clients that leave: each gets what is its own, and core is left with nothing."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from mosec_cy._engine.worker import Sender
from tests.engine import SECOND
from tests.http_client import request
from tests.interop.slots import Worker, running
from tests.interop.streams import Reader

SLOTS = 2
DIED = b"event: error\ndata: SSE inference error: 500: Internal Server Error: inference internal error: the worker"
SLOW = b"event: error\ndata: SSE inference error: 408: Request Timeout: the client reads too slowly"


def serve(channel: Any, say: Any) -> None:
    """To each of a batch, by turns, as many events as it asks for, of the size that it asks for."""
    sender = Sender(channel)
    while (items := channel.take()) is not None:
        channel.begin_forward()
        asked = [bytes(item).decode().split() for item in items]
        for number in range(max(int(count) for _, count, _ in asked)):
            for index, (name, count, size) in enumerate(asked):
                if number < int(count):
                    sender.send(f"{name} {number} " + "." * int(size), index)
        channel.end_forward()
        for item in items:
            channel.publish_end(item)


class Clients:
    """What the clients have seen: streams that were whole, cut short by an error, and left."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.seen = {"whole": 0, "failed": 0, "left": 0}
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        generator = random.Random(number)
        reader = Reader(self.engine)
        for turn in range(150):
            count, size = generator.choice(((1, 1), (20, 10), (200, 100), (30, 100_000)))
            name = f"{number}-{turn}"
            reader.send(request(f"{name} {count} {size}".encode()))
            reader.answer()
            leaves = generator.random() < 0.2
            how = self.read(reader, name, generator.randrange(count) if leaves else count)
            if how == "so far":
                how = "left" if leaves else self.read_end(reader)
            if how != "whole":
                reader.socket.close()
                reader = Reader(self.engine)
            with self._lock:
                self.seen[how] += 1
        reader.socket.close()

    def read(self, reader: Reader, name: str, most: int) -> str:
        """Reads `most` events, or to an error; checks that they are the stream's own, in order."""
        for number in range(most):
            chunk = event(reader)
            if chunk.startswith((DIED, SLOW)):
                return "failed"
            if not chunk.startswith(f"data: {name} {number} .".encode()):
                self.wrong.append(f"{name} {number}: {chunk[:100]!r}")
                return "failed"
        return "so far"

    def read_end(self, reader: Reader) -> str:
        chunk = event(reader)
        if chunk and not chunk.startswith((DIED, SLOW)):
            self.wrong.append(f"in the place of the end: {chunk[:100]!r}")
        return "failed" if chunk else "whole"


def event(reader: Reader) -> bytes:
    while (chunk := reader.chunk()) == b":\n\n":
        pass
    return chunk


@pytest.mark.timeout(300)
def test_streams_of_killed_slots() -> None:
    stage = {"max_batch_size": 4, "max_wait_ns": SECOND // 1000}
    with running(slots=SLOTS, streams=True, stage=stage, stream_comment_ns=SECOND // 100) as engine:
        workers = [Worker(engine, serve, slot=1 + slot) for slot in range(SLOTS)]
        clients = Clients(engine)
        threads = [threading.Thread(target=clients.run, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for incarnation in range(2, 12):
            slot = incarnation % SLOTS
            threads[incarnation].join(0.2)
            workers[slot].kill()
            workers[slot].ended()
            workers[slot] = Worker(engine, serve, slot=1 + slot, incarnation=incarnation)
        for thread in threads:
            thread.join()
        assert clients.wrong == []
        assert sum(clients.seen.values()) == 12 * 150
        assert clients.seen["whole"] > clients.seen["failed"]
        for worker in workers:
            worker.stop()
