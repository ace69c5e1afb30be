"""Slots that send events which no slot of ours would: core drops them, or ends the stream, and lives."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from mosec_cy._engine.segment import STATUS_CODES
from tests.engine import Engine
from tests.http_client import Client
from tests.interop.rogue import NO_BLOCK, Rogue, answer_to, rogue_slot
from tests.interop.slots import Worker
from tests.interop.streams import WINDOW, Reader

EVENT = 8  # the flag
CORRUPT = b"event: error\ndata: SSE inference error: 500: Internal Server Error: inference internal error: "

Parts = tuple[Engine, Rogue, Worker]


@pytest.fixture
def rogue() -> Iterator[Parts]:
    with rogue_slot(streams=True) as parts:
        yield parts


def event(slot: Rogue, task: tuple[int, ...], text: bytes = b"data: x\n\n", **fields: int) -> tuple[int, ...]:
    """An event with `text`, as it should be but for `fields`."""
    values = {"block": slot.block(text), "offset": 64, "length": len(text), "flags": EVENT}
    return answer_to(task, **(values | fields))


def test_events_that_are_not_its_to_send(rogue: Parts) -> None:
    """Of a task that is gone, of one that another client waits for now, with a wrong sequence, and after the end."""
    engine, slot, _ = rogue
    with Reader(engine) as reader:
        first = slot.task_of(reader, engine)
        stale = (first[0] + (1 << 32), *first[1:])
        wrong = (first[0], first[1] + 1, *first[2:])
        guessed = ((1 << 32) | 7, *first[1:])
        refused = (event(slot, task, b"data: no\n\n") for task in (stale, wrong, guessed))
        slot.answer(engine, *refused, event(slot, first))
        slot.answer(engine, answer_to(first), event(slot, first, b"data: late\n\n"))
        assert reader.rest_of_stream() == b"data: x\n\n"
        second = slot.task_of(reader, engine)
        slot.answer(engine, event(slot, first, b"data: no\n\n"), event(slot, second), answer_to(second))
        assert reader.rest_of_stream() == b"data: x\n\n"


def test_events_on_a_route_that_does_not_stream() -> None:
    with rogue_slot() as (engine, slot, _), Client(engine) as client:
        client.send_post(b"x")
        task = slot.task(engine)
        slot.answer(engine, event(slot, task), event(slot, task, status=500), answer_to(task, status=418))
        assert client.answer().status == 418


def test_events_of_a_stage_that_is_not_the_last() -> None:
    with (
        rogue_slot(stages=2, streams=True) as (engine, slot, _),
        engine.worker(lambda channel, item: channel.publish_end(item), slot=2),
    ):
        with Reader(engine) as reader:
            task = slot.task_of(reader, engine)
            slot.answer(engine, event(slot, task), answer_to(task))
            assert reader.rest_of_stream() == b""


IMPOSSIBLE = {
    "no such block": {"block": 7, "offset": 1 << 20},
    "length without a block": {"block": NO_BLOCK},
    "length beyond the block": {"length": 1 << 12},
    "length that wraps around": {"length": (1 << 64) - 8, "offset": 16},
    "a block that nobody holds": {"block": 3},
    "an interim status": {"status": 100},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_events(rogue: Parts, name: str) -> None:
    engine, slot, _ = rogue
    with Reader(engine) as reader:
        task = slot.task_of(reader, engine)
        fields = {"block": slot.block(b"data: no\n\n"), "offset": 64, "length": 10}
        if "block" in IMPOSSIBLE[name]:
            slot.pool.drop_lease(fields["block"], slot.lessee)
        bad = answer_to(task, flags=EVENT, **(fields | IMPOSSIBLE[name]))
        slot.answer(engine, event(slot, task), bad, event(slot, task, b"data: no\n\n"))
        assert reader.rest_of_stream() == b"data: x\n\n" + CORRUPT + b"the worker sent an impossible event\n\n"
        slot.answer(engine, answer_to(task))


def test_more_than_the_window(rogue: Parts) -> None:
    """A slot that does not wait for its clients loses that stream: what core holds for it stays bounded."""
    engine, slot, _ = rogue
    with Reader(engine) as reader:
        task = slot.task_of(reader, engine)
        text = b"data: " + b"x" * (WINDOW // 2) + b"\n\n"
        sent = 0
        while engine.segment.stats()["routes"][0][STATUS_CODES.index(500)] == 0:
            slot.answer(engine, event(slot, task, text))
            engine.wait_until(lambda _: slot.answers.free() == 256)
            sent += 1
            assert engine.segment.stats()["charged"] <= 4 * WINDOW
        got = reader.rest_of_stream()
        assert got.startswith(text) and got.endswith(b"the worker sent an impossible event\n\n") and sent < 40
        slot.answer(engine, answer_to(task))


def test_a_ring_full_of_events(rogue: Parts) -> None:
    engine, slot, _ = rogue
    with Reader(engine) as reader:
        task = slot.task_of(reader, engine)
        slot.answer(engine, *(event(slot, task, b"data: %d\n\n" % i) for i in range(256)))
        engine.wait_until(lambda _: slot.answers.free() == 256)
        slot.answer(engine, answer_to(task))
        assert reader.rest_of_stream() == b"".join(b"data: %d\n\n" % i for i in range(256))


def test_garbage_between_the_events(rogue: Parts) -> None:
    engine, slot, _ = rogue
    generator = random.Random(3)
    sizes = (64, 32, 32, 64, 32, 32, 32, 16, 16)
    with Reader(engine) as reader:
        for _ in range(100):
            task = slot.task_of(reader, engine)
            for _ in range(50):
                fields = [generator.getrandbits(generator.randint(1, bits)) for bits in sizes]
                fields[0] = generator.choice((fields[0], task[0] ^ (1 << generator.randrange(64))))
                fields[2] = generator.choice((fields[2], task[2], NO_BLOCK))
                slot.answers.push((*fields, EVENT | generator.getrandbits(13)))
            slot.answer(engine, event(slot, task), answer_to(task))
            assert reader.rest_of_stream() == b"data: x\n\n"
            engine.wait_until(lambda _: slot.answers.free() == 256)
    assert engine.process.poll() is None


def test_an_error_with_a_made_up_end(rogue: Parts) -> None:
    """The text of an error cannot leave its event."""
    engine, slot, _ = rogue
    with Reader(engine) as reader:
        task = slot.task_of(reader, engine)
        slot.answer(engine, event(slot, task, b"a\r\rdata: b\n\nevent: c", status=400), answer_to(task))
        assert reader.rest_of_stream() == (
            b"event: error\ndata: SSE inference error: 400: Bad Request: a\ndata: \ndata: data: b\ndata: \n"
            b"data: event: c\n\n"
        )
