"""Clients that half-close get their answers; clients that leave, at whatever moment, leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import MIB, Engine
from tests.http_client import Client, chunked, get, request
from tests.interop.http1 import BYTES, LEAVING, barrier, core, echo, serving


@pytest.fixture
def engine() -> Iterator[Engine]:
    with serving() as engine:
        yield engine


def test_half_close_after_a_request(engine: Engine) -> None:
    for raw in (request(b"x"), chunked(b"x"), b"POST /inference HTTP/1.0\r\ncontent-length: 1\r\n\r\nx"):
        with Client(engine) as client:
            client.send(raw)
            client.half_close()
            assert client.answer().body == b"x"
            assert client.ended()


def test_half_close_after_a_pipeline(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"1") + get() + request(b"2") + get("/nowhere") + request(b"3"))
        client.half_close()
        assert [client.answer().body for _ in range(5)] == [b"1", b"MOSEC service", b"2", b"not found", b"3"]
        assert client.ended()


def test_half_close_after_a_pipeline_and_a_piece(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"1") + request(b"22")[:-1])
        client.half_close()
        assert client.answer().body == b"1"
        assert client.ended()


def test_half_close_while_the_service_works() -> None:
    with core() as engine, Client(engine) as client:
        channel = engine.channel()
        client.send(request(b"x") + request(b"y"))
        (item,) = channel.take()
        client.half_close()
        # Core asks whether somebody is there. Who reads on does not care; who has left is found out.
        assert client.answer(interim=True).status == 100
        echo(channel, item)
        assert client.answer(interim=True).body == b"x"
        (item,) = channel.take()
        assert client.answer(interim=True).status == 100
        echo(channel, item)
        assert client.answer(interim=True).body == b"y"
        assert client.ended()


def test_a_half_closed_http_1_0_client_is_not_asked() -> None:
    with core() as engine, Client(engine) as old, Client(engine) as new:
        old.send(b"POST /inference HTTP/1.0\r\ncontent-length: 3\r\n\r\nold")
        old.half_close()
        barrier(engine)
        new.send(request(b"new"))
        new.half_close()
        assert new.answer(interim=True).status == 100  # the old one's time to be asked was before that
        channel = engine.channel()
        for expected in (b"old", b"new"):
            (item,) = channel.take()
            assert bytes(item) == expected
            echo(channel, item)
        assert old.answer(interim=True).body == b"old"
        assert new.answer(interim=True).body == b"new"


def test_half_close_before_a_large_answer() -> None:
    def large(channel: Channel, item: Any) -> None:
        channel.answer(item, 200, bytes(16 * MIB), BYTES)

    with serving(large) as engine, Client(engine) as client:
        client.send(request(b"x"))
        client.half_close()
        assert len(client.answer().body) == 16 * MIB
        assert client.ended()


@pytest.mark.parametrize("raw", [get()[:-1], b"G", b"\r\n", request(b"xy")[:-1], chunked(b"xy")[:-1]])
def test_half_close_in_a_request(engine: Engine, raw: bytes) -> None:
    with Client(engine) as client:
        client.send(raw)
        client.half_close()
        assert client.ended()


@LEAVING
def test_a_client_that_leaves_a_queue(how: str) -> None:
    # Its task leaves the queue, and no worker ever sees it.
    with core() as engine:
        client, other = Client(engine), Client(engine)
        client.send(request(b"gone"))
        engine.wait_until(lambda now: now["remaining"] == 1)
        other.send(request(b"stays"))
        engine.wait_until(lambda now: now["remaining"] == 2)
        getattr(client, how)()
        engine.wait_until(lambda now: now["remaining"] == now["connections"] == 1)
        channel = engine.channel()
        (item,) = channel.take()
        assert bytes(item) == b"stays"
        echo(channel, item)
        with other:
            assert other.answer().body == b"stays"


@LEAVING
def test_a_client_that_leaves_a_worker(how: str) -> None:
    with core() as engine:
        channel = engine.channel()
        client = Client(engine)
        client.send(request(b"gone"))
        (item,) = channel.take()
        assert not channel.is_cancelled(item)
        getattr(client, how)()
        engine.wait_until(lambda now: now["remaining"] == now["connections"] == 0)
        assert channel.is_cancelled(item)
        echo(channel, item)
        engine.wait_until(lambda now: now["late"] == 1)


SENT_BEFORE_LEAVING = {
    "nothing": b"",
    "a piece of the request line": b"POST /infe",
    "a piece of a head": request(b"x")[:-10],
    "a head": request(b"x" * 100)[:-100],
    "a piece of a body": request(b"x" * 100_000)[:-30_000],
    "a piece of a large body": request(bytes(3 * MIB))[:-1],
    "a piece of a chunk's size": chunked(end=b"10"),
    "a piece of a chunk": chunked(b"x" * 100_000)[:-100],
    "a chunked body without its end": chunked(b"x" * 100_000, end=b""),
    "a request": request(b"x"),
    "requests": request(b"x") * 300,
    "requests and a piece": request(b"x") * 3 + request(b"x")[:20],
    "a large request": request(bytes(MIB)),
    "a refused upload": request(bytes(11 * MIB))[:MIB],
    "garbage": b"\x16\x03\x01" * 30_000,
}


@LEAVING
def test_leaving_in_every_phase(engine: Engine, how: str) -> None:
    # serving() checks that no block, task or connection is left.
    for raw in SENT_BEFORE_LEAVING.values():
        for _ in range(5):
            with Client(engine) as client:
                client.send(raw)
                getattr(client, how)()
            with Client(engine) as client:
                client.send(raw)
                barrier(engine)
                getattr(client, how)()
    assert engine.process.poll() is None
    with Client(engine) as client:
        assert client.post(b"x").body == b"x"


@LEAVING
def test_leaving_in_an_answer(how: str) -> None:
    answered = threading.Semaphore(0)

    def large(channel: Channel, item: Any) -> None:
        channel.answer(item, 200, bytes(16 * MIB), BYTES)
        answered.release()

    with serving(large) as engine:
        for reads in (0, 1, 1000, 5 * MIB):
            client = Client(engine)
            client.send(request(b"x"))
            assert answered.acquire(timeout=20)
            while reads > 0:
                reads -= len(client.socket.recv(reads))
            getattr(client, how)()
    # serving() checks that the answers' memory is back


def test_a_storm_of_resets(engine: Engine) -> None:
    for _ in range(10):
        clients = [Client(engine) for _ in range(50)]
        for i, client in enumerate(clients):
            client.send(request(b"%d" % i)[: 10 + i * 3])
        for client in clients:
            client.reset()
    with Client(engine) as client:
        assert client.post(b"x").body == b"x"
