"""Slots that write what no slot of ours would: core checks what it reads, and lives."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine import Engine
from tests.http_client import Client, clients
from tests.interop.rogue import BUDGET, NO_BLOCK, SLOT, Rogue, answer_to, pause, rogue_slot
from tests.interop.slots import TEXT, Worker, ring_core, running, shared_memory

CORRUPT = (500, b"inference internal error: the worker sent an impossible answer")


@pytest.fixture
def rogue() -> Iterator[tuple[Engine, Rogue, Worker]]:
    with rogue_slot() as parts:
        yield parts


IMPOSSIBLE = {
    "no such block": {"block": 7, "length": 1, "offset": 1 << 20},
    "no such class": {"block": 0x7FFFFFFF, "length": 1},
    "length without a block": {"length": 1},
    "length beyond the block": {"block": -1, "length": 1 << 12},
    "length that wraps around": {"block": -1, "length": (1 << 64) - 8, "offset": 16},
    "offset beyond the block": {"block": -1, "offset": 0xFFFFFFFF},
    "a block that nobody holds": {"block": 3},
    "no such content type": {"block": -1, "content_type": 3},
    "no status": {"block": -1, "status": 0},
    "an interim status": {"block": -1, "status": 100},
    "a status that has no body": {"block": -1, "status": 204},
    "a status that is none": {"block": -1, "status": 600},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_answers(rogue: tuple[Engine, Rogue, Worker], name: str) -> None:
    """`block` -1 stands for one that the slot holds as it should."""
    engine, slot, _ = rogue
    fields = dict(IMPOSSIBLE[name])
    if fields.get("block") == -1:
        fields["block"] = slot.pool.allocate(100, slot.lessee)
    with Client(engine) as client:
        client.send_post(b"x")
        slot.answer(engine, answer_to(slot.task(engine), **fields))
        assert client.outcome() == CORRUPT
        client.send_post(b"y")
        slot.answer(engine, answer_to(slot.task(engine)))
        assert client.outcome() == (200, b"")


def test_an_answer_in_a_block_of_core(rogue: tuple[Engine, Rogue, Worker]) -> None:
    """The request's own block, and that of another client's request."""
    engine, slot, _ = rogue
    with clients(engine, 2) as two:
        two[0].send_post(b"mine")
        mine = slot.task(engine)
        two[1].send_post(b"the other's")
        engine.wait_until(lambda stats: stats["remaining"] == 2)
        other = next(block for block in range(1 << 10) if slot.pool.lease(block, slot.lessee) == 0 and block != mine[2])
        slot.pool.drop_lease(other, slot.lessee)
        slot.answer(engine, answer_to(mine, block=other, length=11, offset=64))
        assert two[0].outcome() == CORRUPT
        theirs = slot.task(engine)
        assert theirs[2] == other
        slot.answer(engine, answer_to(theirs, block=theirs[2], length=11, offset=64))
        assert two[1].outcome() == CORRUPT


def test_answers_that_are_not_its_to_give(rogue: tuple[Engine, Rogue, Worker]) -> None:
    """Twice the same, one with a wrong sequence, one of a task that is long gone: all but the first are nothing."""
    engine, slot, _ = rogue
    with Client(engine) as client:
        client.send_post(b"x")
        task = slot.task(engine)
        block = slot.pool.allocate(100, slot.lessee)
        stale = (task[0] + (1 << 32), *task[1:])
        wrong = (task[0], task[1] + 1, *task[2:])
        slot.answer(
            engine, answer_to(stale), answer_to(wrong, block=block), answer_to(task, status=422), answer_to(task)
        )
        assert client.outcome() == (422, b"inference internal error: no shared memory for the answer (--budget)")
        client.send_post(b"y")
        slot.answer(engine, answer_to(task), answer_to(slot.task(engine), status=400))
        assert client.answer().status == 400


def test_killed_between_answering_and_ringing(rogue: tuple[Engine, Rogue, Worker]) -> None:
    """Core wakes up only for the death, and finds the answer: it counts."""
    engine, slot, worker = rogue
    with Client(engine) as client:
        client.send_post(b"x")
        slot.answers.push(answer_to(slot.task(engine), status=418))
        slot.answers.publish()
        worker.kill()
        assert client.answer().status == 418
        assert worker.ended() == 0


def test_garbage_without_end(rogue: tuple[Engine, Rogue, Worker]) -> None:
    engine, slot, _ = rogue
    generator = random.Random(1)
    sizes = (64, 32, 32, 64, 32, 32, 32, 16, 16, 32)
    with Client(engine) as client:
        for _ in range(300):
            client.send_post(b"x")
            task = slot.task(engine)
            for _ in range(50):
                fields = [generator.getrandbits(generator.randint(1, bits)) for bits in sizes]
                # Near to what is real, so that it gets past the first checks; but never this very task.
                fields[0] = generator.choice((fields[0], task[0] ^ (1 << generator.randrange(64))))
                fields[2] = generator.choice((fields[2], task[2], NO_BLOCK))
                slot.answers.push(tuple(fields))
            slot.answer(engine, answer_to(task, status=418))
            assert client.answer().status == 418
            engine.wait_until(lambda stats: slot.answers.free() == 256)
    assert engine.process.poll() is None


@pytest.mark.parametrize("head", [257, 1 << 40, (1 << 64) - 1])
def test_an_impossible_index_of_answers(rogue: tuple[Engine, Rogue, Worker], head: int) -> None:
    """The slot is killed, what it had not started goes to its next life."""
    engine, slot, worker = rogue
    at = engine.segment.layout()["rings"][SLOT][1]
    with Client(engine) as client:
        client.send_post(b"x")
        engine.wait_until(lambda stats: slot.tasks.has_news())
        shared_memory(engine)[at : at + 8] = struct.pack("Q", head)
        ring_core(engine)
        assert worker.ended() == 0
        again = Worker(engine, echo, incarnation=2)
        assert client.outcome() == (200, b"x")
        again.stop()


def echo(channel: Any, say: Any) -> None:
    while (items := channel.take()) is not None:
        for item in items:
            channel.publish(item, [bytes(item)], 0, TEXT)


def test_an_impossible_index_of_tasks(rogue: tuple[Engine, Rogue, Worker]) -> None:
    """Core finds out when the ring looks full, and gives the slot up."""
    engine, slot, worker = rogue
    at = engine.segment.layout()["rings"][SLOT][0] + 64
    memory = shared_memory(engine)
    with Client(engine) as client:
        for _ in range(256):
            client.send_post(b"x")
            engine.wait_until(lambda stats: slot.tasks.has_news())
            descriptor = slot.tasks.pop()
            assert descriptor is not None
            memory[at : at + 8] = struct.pack("Q", 1 << 50)
            slot.answer(engine, answer_to(descriptor, status=418))
            assert client.answer().status == 418
        client.send_post(b"y")
        assert worker.ended() == 0
        again = Worker(engine, echo, incarnation=2)
        assert client.outcome() == (200, b"y")
        again.stop()


def test_entries_of_slots_scribbled_over() -> None:
    """Bells, phases, batches, times: other slots' and its own, while requests are served."""
    stage = {"timeout_ns": 1_000_000_000}
    with running(slots=2, stage=stage) as engine, Client(engine) as client:
        generator = random.Random(2)
        memory = shared_memory(engine)
        workers = [Worker(engine, echo, slot=slot) for slot in (1, 2)]
        victim = engine.segment.layout()["slots"][2]
        for number in range(2000):
            # Not the words by which a slot that sleeps is woken and told to stop: those are its own loss.
            at = victim + generator.choice((72, 128, 132, 136))
            memory[at : at + 4] = generator.randbytes(4)
            assert client.post(b"%d" % number).outcome == (200, b"%d" % number)
        for worker in workers:
            worker.kill()
        for _ in workers:
            engine.news()
        for worker in workers:
            worker.reap()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_everything_scribbled_over(seed: int, streams: bool) -> None:
    """Nothing that is written anywhere in the shared memory crashes core; what is answered then is another matter."""
    engine = Engine(
        slots=2, streams=streams, budget=BUDGET, stage={"timeout_ns": 50_000_000}, service_timeout_ns=200_000_000
    )
    memory = shared_memory(engine)
    with clients(engine, 8) as eight:
        generator = random.Random(seed)
        workers = [Worker(engine, pause, slot=slot) for slot in (1, 2)]
        layout = engine.segment.layout()
        for _ in range(60):
            for client in eight:
                client.send_post(b"x" * generator.randrange(1, 2000))
            for _ in range(200):
                # Rings and words, and not only payloads; small numbers are more often possible ones.
                at = generator.randrange(layout["core_bell"], layout["pool"] + 8192) & ~7
                memory[at : at + 8] = (generator.getrandbits(generator.choice((1, 3, 8, 33, 64)))).to_bytes(8, "little")
            ring_core(engine)
        assert engine.process.poll() is None
        for worker in workers:
            worker.kill()
            worker.reap()
    engine.close()  # in order, with status 0
