"""The memory budget: what does not fit is refused or failed, nobody waits for memory, and it all comes back."""

from __future__ import annotations

import contextlib
from typing import Any

from tests.engine import MIB
from tests.http_client import Client, clients
from tests.interop.slots import BYTES, blocks_at_rest, running

NO_ROOM = (503, b"service is out of memory for request bodies (--budget)")
NO_ROOM_FOR_ANSWER = (500, b"inference internal error: no shared memory for the answer (--budget)")


def head(length: int) -> bytes:
    return b"POST /inference HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length


def take_all(channel: Any) -> list[memoryview]:
    """Buffers in all blocks that are free."""
    hoard = []
    for size in (MIB // 4, MIB // 8, MIB // 64, 1):
        with contextlib.suppress(MemoryError):
            while True:
                hoard.append(channel.new_buffer(size))
    return hoard


def test_bodies_may_use_half_of_it() -> None:
    """A declared body is refused at its head; what others have sent is served."""
    with running(budget=16 * MIB) as engine, clients(engine, 4) as holding:
        channel = engine.channel()
        for client in holding:  # a block of 2 MiB each
            client.send(head(MIB + 5) + b"12345")
        engine.wait_until(lambda stats: stats["charged"] == 8 * MIB)
        with Client(engine) as refused:
            refused.send(head(MIB))
            assert refused.outcome() == NO_ROOM
        for client in holding:
            client.send(bytes(MIB))
            [item] = channel.take()
            channel.publish(item, [bytes(item)[:5]], 0, BYTES)
            assert client.outcome() == (200, b"12345")
        with Client(engine) as accepted:
            accepted.send_post(bytes(MIB))
            channel.publish(channel.take()[0], [b"x"], 0, BYTES)
            assert accepted.outcome() == (200, b"x")


def test_a_chunked_body_is_charged_as_it_grows() -> None:
    with running(budget=4 * MIB) as engine, Client(engine) as client:
        client.send(b"POST /inference HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"4000\r\n" + bytes(1 << 14) + b"\r\n"
        client.send(chunk)
        engine.wait_until(lambda stats: stats["charged"] == 32 * 1024)
        client.send(40 * 4 * chunk)
        assert client.outcome() == NO_ROOM


def test_a_client_that_leaves_in_its_upload() -> None:
    with running(budget=16 * MIB) as engine:
        client = Client(engine)
        client.send(head(MIB) + b"half")
        engine.wait_until(lambda stats: stats["charged"] == 2 * MIB)
        client.reset()
        assert blocks_at_rest(engine) == (0, 0)


def test_an_answer_that_finds_no_room() -> None:
    with running(budget=MIB) as engine, Client(engine) as client:
        channel = engine.channel()
        for answer in (bytes(2 * MIB), bytearray(2 * MIB)):
            client.send_post(b"x")
            [item] = channel.take()
            assert channel.publish(item, [answer], 0, BYTES) is False
            assert client.outcome() == NO_ROOM_FOR_ANSWER
        client.send_post(b"x")
        channel.publish(channel.take()[0], [b"fits"], 0, BYTES)
        assert client.outcome() == (200, b"fits")


def test_nothing_is_left_for_an_error_either() -> None:
    """Not even its text finds room; the client hears of the budget all the same."""
    with running(budget=MIB) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(b"x")
        [item] = channel.take()
        hoard = take_all(channel)
        assert channel.answer(item, 422, b"the reason") is False
        assert client.outcome() == NO_ROOM_FOR_ANSWER
        blocks_at_rest(engine)
        hoard += take_all(channel)
        assert client.post(b"y").outcome == NO_ROOM  # and core finds none for a body
        hoard.clear()
        with Client(engine) as other:
            other.send_post(b"z")
            channel.answer(channel.take()[0], 422, b"the reason")
            assert other.outcome() == (422, b"the reason")


def test_many_sizes_at_once_leave_nothing_behind() -> None:
    def echo(channel: Any, item: Any) -> None:
        if len(item) % 3:
            channel.publish(item, [bytes(item)], 0, BYTES)
        else:
            buffer = channel.new_buffer(len(item))
            buffer[:] = memoryview(item)
            outputs = [buffer]
            del buffer
            channel.publish(item, outputs, 0, BYTES)

    sizes = [1, 959, 960, 961, 4000, 65_536, 200_000, MIB, 3_000_000]
    with running() as engine, engine.worker(echo), clients(engine, len(sizes)) as many:
        for _ in range(10):
            for size, client in zip(sizes, many, strict=True):
                client.socket.settimeout(20)
                client.send_post(bytes([size % 251]) * size)
            for size, client in zip(sizes, many, strict=True):
                assert client.outcome() == (200, bytes([size % 251]) * size)
