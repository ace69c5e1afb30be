"""A rogue slot writes over each part of the shared memory while others are served: core lives, the loss is bounded."""

from __future__ import annotations

import os
import random
import threading
from typing import Any

import pytest

from mosec_cy._engine.segment import Segment
from tests.engine import MIB, SLOT_DEAD, Engine
from tests.http_client import Client, clients
from tests.interop.rogue import pause
from tests.interop.slots import TEXT, Worker, ring_core, running, shared_memory

BUDGET = 4 * MIB
ROUNDS, WORDS = 12, 150
CLEAN = {200, 408, 422, 500, 503}
"""Statuses that honest clients may see meanwhile; 422: the budget."""


def echo(channel: Any, say: Any) -> None:
    while (items := channel.take()) is not None:
        for item in items:
            channel.publish(item, [bytes(item)], 0, TEXT)


def regions(engine: Engine) -> dict[str, tuple[int, int]]:
    """Every byte of the memory, by what lies there."""
    at = engine.segment.layout()
    rings = at["rings"][0][0]
    return {
        "header": (0, at["core_bell"]),
        "core's bell": (at["core_bell"], at["slots"][0]),
        "slots": (at["slots"][0], at["words"]),
        "words": (at["words"], at["acknowledged"]),
        "acknowledged and statistics": (at["acknowledged"], rings),
        "rings": (rings, at["pool"]),
        "claims": (at["pool"], at["data"]),
        "payloads": (at["data"], at["size"]),
    }


class Scribbler:
    """Writes at places of a region, mostly at those that are in use: the first of each page."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.memory = shared_memory(engine)
        self.chance = random.Random(seed)

    def scribble(self, start: int, end: int, count: int) -> None:
        for _ in range(count):
            at = self.chance.randrange(start, end)
            if self.chance.random() < 0.7:
                at = max(start, at & ~4095) + self.chance.randrange(min(512, end - start))
            at = min(at, end - 8) & ~7
            value = self.chance.getrandbits(self.chance.choice((1, 3, 8, 33, 64)))
            self.memory[at : at + 8] = value.to_bytes(8, "little")


class Replicas:
    """A rogue in slot 1 and an honest slot 2, started again as master would when core reports a death."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lives = {1: 0, 2: 0}
        self.workers: dict[int, Worker] = {}
        self.start(1, pause)
        self.start(2, echo)

    def start(self, slot: int, serve: Any) -> None:
        self.lives[slot] += 1
        self.workers[slot] = Worker(self.engine, serve, slot=slot, incarnation=self.lives[slot])

    def replace_all(self, serve: Any) -> None:
        """Kill them, wait until core has noticed, and start them anew. Some may have died of what they read."""
        for worker in self.workers.values():
            worker.kill()
        missing = set(self.workers)
        while missing:
            message = self.engine.news()
            if message[0] == SLOT_DEAD:
                missing.discard(message[1])
        for slot, worker in list(self.workers.items()):
            worker.reap()
            self.start(slot, serve)


@pytest.mark.parametrize("region", range(8))
def test_core_survives_and_serves_again(region: int) -> None:
    stage = {"timeout_ns": 50_000_000}
    engine = Engine(slots=2, budget=BUDGET, stage=stage, service_timeout_ns=150_000_000, kill_grace_ns=50_000_000)
    name, (start, end) = list(regions(engine).items())[region]
    scribbler = Scribbler(engine, region)
    replicas = Replicas(engine)
    with clients(engine, 4) as four:
        assert four[0].post(b"x").outcome == (200, b"x")  # core and slot 2 have begun
        for _ in range(ROUNDS):
            for client in four:
                client.send_post(b"x" * scribbler.chance.randrange(1, 3000))
            scribbler.scribble(start, end, WORDS)
            ring_core(engine)
            for client in four:
                status, _ = client.outcome()
                assert status in CLEAN, name
    assert engine.process.poll() is None, name
    replicas.replace_all(echo)
    with Client(engine) as client:
        for number in range(20):
            assert client.post(b"%d" % number).outcome == (200, b"%d" % number), name
    # Blocks whose words were written over may stay claimed by nobody, as many as words were written; no others.
    most = ROUNDS * WORDS if name == "claims" else 0
    engine.wait_until(lambda stats: sum(engine.segment.blocks()) <= most)
    for worker in replicas.workers.values():
        worker.kill()
        worker.reap()
    engine.close()


def test_a_slot_whose_bell_was_written_over_is_notified() -> None:
    """It sleeps, and its bell says that it is awake: one request runs out of time, the next is served."""
    with running(service_timeout_ns=200_000_000) as engine:
        worker = Worker(engine, echo)
        memory = shared_memory(engine)
        sleeping = engine.segment.layout()["slots"][1] + 4
        with Client(engine) as client:
            assert client.post(b"x").outcome == (200, b"x")
            engine.wait_until(lambda stats: memory[sleeping] == 1)
            memory[sleeping] = 0
            assert client.post(b"y").status == 408
            assert client.post(b"z").outcome == (200, b"z")
        worker.stop()


def test_an_order_that_is_none_keeps_nobody_awake() -> None:
    """The slot sleeps, so that other threads of its process get the GIL: one of them hears the master."""
    reader, writer = os.pipe()

    def serve(channel: Any, say: Any) -> None:
        threading.Thread(target=lambda: say(os.read(reader, 5)), daemon=True).start()
        echo(channel, say)

    with running() as engine, Client(engine) as client:
        worker = Worker(engine, serve)
        shared_memory(engine)[engine.segment.layout()["slots"][1] + 64] = 2  # the word for orders
        assert client.post(b"x").outcome == (200, b"x")
        os.write(writer, b"heard")
        assert worker.said() == b"heard"
        worker.stop()
    os.close(reader)
    os.close(writer)


def test_a_corrupt_header_is_written_anew_for_the_next_process() -> None:
    made = Segment.create([(64, 64), (16, 32)], 64, BUDGET, 2)
    valid = os.pread(made.fd, 4096, 0)
    for at, value in ((0, 0), (12, 7), (44, 5), (26, 1)):
        os.pwrite(made.fd, bytes([value]), at)
        with pytest.raises(ValueError, match="shared memory|capacity"):
            Segment.attach(made.fd)
        made.begin_slot(1, 1)
        assert os.pread(made.fd, 4096, 0) == valid
    attached = Segment.attach(os.dup(made.fd))
    assert attached.layout() == made.layout()
    attached.close()
    made.close()
