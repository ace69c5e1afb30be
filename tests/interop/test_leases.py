"""Payloads that user code keeps looking into, and answers that it writes in place."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.engine import MIB, Engine
from tests.http_client import Client
from tests.interop.slots import BYTES, TEXT, blocks_at_rest, running, shared_memory, stopped

MARK = b"\xf1a mark that nothing else holds\xf2"


def exchange(engine: Engine, client: Client, channel: Any, body: bytes) -> Any:
    """One request, answered `ok`; its item."""
    client.send_post(body)
    [item] = channel.take()
    channel.publish(item, [b"ok"], 0, TEXT)
    assert client.outcome() == (200, b"ok")
    return item


def in_child(work: Callable[[], None]) -> None:
    """Runs `work` in a process forked from this one, which must get through it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_view_outlives_its_request() -> None:
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(MARK)
        [item] = channel.take()
        view = memoryview(item)[2:]
        channel.publish(item, [b"ok"], 0, TEXT)
        client.answer()
        assert blocks_at_rest(engine) == (0, 1)
        assert channel.leased_bytes == 1024
        for number in range(2000):
            exchange(engine, client, channel, b"%d" % number + bytes(900))
        assert view == MARK[2:]
        view[0] = 0  # writable, and nobody else's
        del view, item
        assert channel.leased_bytes == 0


def test_what_nobody_looks_into_costs_nothing() -> None:
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        item = exchange(engine, client, channel, b"x")
        assert item.answered
        assert blocks_at_rest(engine) == (0, 0)
        with pytest.raises(BufferError, match="has been answered"):
            memoryview(item)


def test_several_views_are_one_lease() -> None:
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(MARK)
        [item] = channel.take()
        views = [memoryview(item), np.frombuffer(item, np.uint8), memoryview(item)[3:5]]
        channel.publish(item, [b"ok"], 0, TEXT)
        client.answer()
        for _ in range(3):
            assert blocks_at_rest(engine) == (0, 1)
            views.pop()
        assert blocks_at_rest(engine) == (0, 0)
        with pytest.raises(BufferError, match="has been answered"):
            memoryview(item)


def test_a_lease_dropped_by_another_thread() -> None:
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        views = []
        for number in range(64):
            client.send_post(b"%d" % number)
            [item] = channel.take()
            views.append(memoryview(item))
            channel.publish(item, [b"ok"], 0, TEXT)
            client.answer()
        del item
        assert blocks_at_rest(engine) == (0, 64)
        dropper = threading.Thread(target=views.clear)
        dropper.start()
        for number in range(200):  # meanwhile the slot's own thread goes on
            exchange(engine, client, channel, b"%d" % number)
        dropper.join()
        assert blocks_at_rest(engine) == (0, 0)


def test_a_lease_dropped_after_core_has_gone() -> None:
    engine = Engine()
    channel = engine.channel()
    with Client(engine) as client:
        client.send_post(MARK)
        [item] = channel.take()
        view = memoryview(item)
        channel.publish(item, [b"ok"], 0, TEXT)
        client.answer()
        client.send_post(MARK)
        [unanswered] = channel.take()
        other = memoryview(unanswered)
        engine.close()
    channel.publish(unanswered, [b"to nobody"], 0, TEXT)
    del engine, channel, item, unanswered
    assert view == other == MARK
    del view, other


def test_a_slot_that_keeps_too_much_gets_copies() -> None:
    """From 1/8 of the budget on, so that what it keeps is its own memory."""
    with running(budget=8 * MIB) as engine, Client(engine) as client:
        channel = engine.channel()
        views: list[memoryview] = []
        for number in range(40):
            client.send_post(bytes([number]) * 60_000)
            [item] = channel.take()
            views.append(memoryview(item))
            channel.publish(item, [b"ok"], 0, TEXT)
            client.answer()
        assert blocks_at_rest(engine) == (0, 16)
        assert channel.leased_bytes == MIB
        assert [view[0] for view in views] == list(range(40))
        assert all(view == bytes([view[0]]) * 60_000 for view in views)
        del views[:8], item  # there is room for leases again
        assert blocks_at_rest(engine) == (0, 8)
        client.send_post(b"x")
        [item] = channel.take()
        views.append(memoryview(item))
        channel.publish(item, [b"ok"], 0, TEXT)
        client.answer()
        assert blocks_at_rest(engine) == (0, 9)
        views.clear()


def test_a_child_of_the_worker_drops_nothing_and_answers_nothing() -> None:
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(MARK)
        [item] = channel.take()
        kept: list[Any] = [memoryview(item)]
        channel.publish(item, [b"ok"], 0, TEXT)
        client.answer()
        client.send_post(b"next")
        [item] = channel.take()
        buffers = [channel.new_buffer(100)]

        def child() -> None:
            assert kept[0] == MARK
            kept.clear()
            buffers.clear()
            for forbidden in (
                channel.take,
                lambda: channel.new_buffer(1),
                lambda: channel.publish(item, [b"the child's"], 0, TEXT),
                lambda: channel.answer(item, 500, b"the child's"),
                lambda: channel.publish_pickle(item, 1),
            ):
                with pytest.raises(RuntimeError, match="forked from a worker"):
                    forbidden()

        in_child(child)
        assert kept[0] == MARK
        assert engine.segment.blocks() == (1, 2)
        channel.publish(item, [b"the parent's"], 0, TEXT)
        assert client.outcome() == (200, b"the parent's")
        kept.clear()
        buffers.clear()


# ---- answers written in place --------------------------------------------------------------------


@pytest.fixture
def asked() -> Iterator[tuple[Engine, Client, Any]]:
    with running(budget=4 * MIB) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(b"x")
        yield engine, client, channel


def copies(engine: Engine) -> int:
    """How often the mark is in shared memory."""
    return bytes(shared_memory(engine)[engine.segment.layout()["pool"] :]).count(MARK)


def filled(channel: Any, size: int = len(MARK)) -> memoryview:
    buffer: memoryview = channel.new_buffer(size)
    buffer[: len(MARK)] = MARK
    return buffer


def test_a_buffer_is_sent_from_where_it_was_written(asked: tuple[Engine, Client, Any]) -> None:
    engine, client, channel = asked
    [item] = channel.take()
    outputs = [filled(channel)]
    with stopped(engine):
        channel.publish(item, outputs, 0, BYTES)
        assert copies(engine) == 1
        at = bytes(shared_memory(engine)[:]).find(MARK)
        shared_memory(engine)[at : at + 1] = b"\xf3"  # what lies there is what is sent
    assert client.outcome() == (200, b"\xf3" + MARK[1:])
    assert outputs == [None]


def test_a_buffer_that_somebody_keeps_is_copied(asked: tuple[Engine, Client, Any]) -> None:
    engine, client, channel = asked
    [item] = channel.take()
    kept = filled(channel)
    with stopped(engine):
        channel.publish(item, [kept], 0, BYTES)
        assert copies(engine) == 2
        kept[:] = bytes(len(MARK))
    assert client.outcome() == (200, MARK)


@pytest.mark.parametrize("part", [slice(0, 10), slice(4, None), slice(5, 6)])
def test_a_part_of_a_buffer(asked: tuple[Engine, Client, Any], part: slice) -> None:
    engine, client, channel = asked
    [item] = channel.take()
    outputs = [filled(channel)[part]]
    with stopped(engine):
        channel.publish(item, outputs, 0, BYTES)
        assert engine.segment.blocks()[1] == 1
    assert client.outcome() == (200, MARK[part])


def test_an_empty_part_of_a_buffer(asked: tuple[Engine, Client, Any]) -> None:
    _, client, channel = asked
    channel.publish(channel.take()[0], [channel.new_buffer(0)], 0, BYTES)
    assert client.outcome() == (200, b"")


def test_a_buffer_that_is_not_used(asked: tuple[Engine, Client, Any]) -> None:
    _, client, channel = asked
    [item] = channel.take()
    filled(channel, MIB)
    channel.publish(item, [b"other"], 0, BYTES)
    assert client.outcome() == (200, b"other")


def test_buffers_that_there_cannot_be(asked: tuple[Engine, Client, Any]) -> None:
    _, client, channel = asked
    with pytest.raises(ValueError, match="0 bytes or more"):
        channel.new_buffer(-1)
    with pytest.raises(MemoryError, match="--budget"):
        channel.new_buffer(64 * MIB)
    channel.publish(channel.take()[0], [b"x"], 0, BYTES)
    client.answer()


BODIES = {
    "bytes": b"abc",
    "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abc"),
    "array": np.frombuffer(b"abc", np.uint8),
    "subclass of bytes": type("Sub", (bytes,), {})(b"abc"),
    "column-major array": np.asfortranarray(np.frombuffer(b"abc", np.uint8)),
}


@pytest.mark.parametrize("kind", BODIES)
def test_what_may_be_an_answer(asked: tuple[Engine, Client, Any], kind: str) -> None:
    _, client, channel = asked
    channel.publish(channel.take()[0], [BODIES[kind]], 0, BYTES)
    assert client.outcome() == (200, b"abc")


@pytest.mark.parametrize("wrong", ["text", 7, None, memoryview(b"abc")[::2], np.zeros((4, 4))[:, 1]])
def test_what_may_not_be_an_answer(asked: tuple[Engine, Client, Any], wrong: object) -> None:
    """The item is still to be answered."""
    _, client, channel = asked
    [item] = channel.take()
    with pytest.raises((TypeError, BufferError, ValueError)):
        channel.publish(item, [wrong], 0, BYTES)
    assert not item.answered
    channel.answer(item, 500, b"sorry")
    assert client.outcome() == (500, b"sorry")
