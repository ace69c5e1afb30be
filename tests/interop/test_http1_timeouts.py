"""Header, body, write and idle time-outs: each test waits for what core does, never for the clock."""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import MIB, SECOND
from tests.http_client import Client, chunked, get, request
from tests.interop.http1 import BYTES, core, serving

SOON = SECOND // 10
# Where something must happen in each period: long enough for a machine that is busy with other things.
PERIOD = SECOND


def waited(since: float) -> float:
    return time.monotonic() - since


def test_a_head_that_does_not_end() -> None:
    with serving(header_timeout_ns=SOON) as engine:
        start = time.monotonic()
        with Client(engine) as client:
            client.send(get()[:-2])
            answer = client.answer()
            assert (answer.status, answer.closes, answer.body) == (408, True, b"request header timeout")
            assert client.ended()
        assert waited(start) >= 0.1  # late on a busy machine, but never early


def test_a_head_that_drips_has_no_more_time_than_another() -> None:
    with serving(header_timeout_ns=SOON) as engine, Client(engine) as client, Client(engine) as clock:
        client.send(b"GET / HTTP/1.1\r\nhost: test\r\nx: ")
        while not client.readable():
            client.send(b"y")
            clock.ask(get())
        assert client.answer().status == 408
        assert client.ended()


def test_a_connection_that_says_nothing() -> None:
    with serving(header_timeout_ns=SOON) as engine, Client(engine) as client:
        assert client.ended()


def test_an_idle_connection() -> None:
    with serving(idle_timeout_ns=SOON) as engine, Client(engine) as client:
        assert client.post(b"x").body == b"x"
        assert client.ended()


def test_the_second_head_has_its_own_time() -> None:
    # Between requests the idle time-out counts; from the first byte of a head the header's.
    with serving(header_timeout_ns=SOON) as engine, Client(engine) as client:
        client.send(get(method="HEAD") + b"G")
        assert client.answer(to_head=True).status == 200
        answer = client.answer()
        assert (answer.status, answer.body) == (408, b"request header timeout")
        assert client.ended()


@pytest.mark.parametrize("raw", [request(b"x" * 100_000)[:-1], chunked(b"x" * 100_000, end=b""), request(b"xy")[:-2]])
def test_a_body_that_does_not_end(raw: bytes) -> None:
    with serving(body_timeout_ns=SOON) as engine, Client(engine) as client:
        client.send(raw)
        answer = client.answer()
        assert (answer.status, answer.closes, answer.body) == (408, True, b"request body timeout")
        assert client.ended()


def test_a_refused_body_that_does_not_end() -> None:
    with serving(body_timeout_ns=SOON) as engine, Client(engine) as client:
        client.send(request(b"xy", path="/nowhere")[:-1])
        assert client.answer().status == 408
        assert client.ended()


def test_a_body_that_drips_moves_too_little() -> None:
    with serving(body_timeout_ns=PERIOD // 2) as engine, Client(engine) as client:
        client.send(request(bytes(100_000))[:-100_000])
        while not client.readable(0.005):  # its pace: less than 1 KiB a second
            client.send(b"x")
        assert client.answer().body == b"request body timeout"


def test_a_body_that_moves_may_take_longer() -> None:
    with serving(body_timeout_ns=PERIOD) as engine, Client(engine) as client, Client(engine) as clock:
        body = bytes(8 * MIB)
        client.send(request(body)[: -len(body)])
        start = time.monotonic()
        sent = 0
        while waited(start) < 2.2:
            client.send(body[sent : sent + 40])
            sent += 40
            clock.ask(get())
        client.send(body[sent:])
        assert client.answer().body == body


ANSWERED = threading.Event()


def large(channel: Channel, item: Any) -> None:
    channel.answer(item, 200, bytes(32 * MIB), BYTES)
    ANSWERED.set()


def test_a_client_that_does_not_read() -> None:
    ANSWERED.clear()
    with serving(large, write_timeout_ns=SOON) as engine, Client(engine) as client:
        client.send(request(b"x"))
        assert ANSWERED.wait(20)
        # Core ends the connection and gives the answer's memory back, while the client has not closed.
        engine.wait_until(lambda now: now["connections"] == now["charged"] == 0)
        assert engine.segment.blocks() == (0, 0)


def test_a_client_that_reads_slowly_gets_it_all() -> None:
    # A little in each period of the time-out; the rest waits in shared memory.
    with serving(large, write_timeout_ns=PERIOD) as engine, Client(engine) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(request(b"x"))
        got = 0
        start = time.monotonic()
        while waited(start) < 2.2:
            got += len(client.socket.recv(10_000))
            select.select([], [], [], 0.002)  # its pace
        assert engine.segment.stats()["charged"] > 0
        while got < 32 * MIB:
            part = client.socket.recv(1 << 20)
            assert part
            got += len(part)


def test_time_at_work_is_not_the_connections() -> None:
    # The other time-outs do not run while the service works.
    options = dict.fromkeys(("header_timeout_ns", "body_timeout_ns", "write_timeout_ns", "idle_timeout_ns"), SOON)
    with core(**options) as engine, Client(engine) as client:
        client.send(request(b"x"))
        channel = engine.channel()
        (item,) = channel.take()
        with Client(engine) as idle:
            assert idle.ask(get()).status == 200
            assert idle.ended()
        channel.answer(item, 200, b"done", 0)
        assert client.answer().body == b"done"


def test_the_services_own_time_out() -> None:
    with core(service_timeout_ns=PERIOD) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send(request(b"x"))
        (item,) = channel.take()
        answer = client.answer()
        assert (answer.status, answer.closes) == (408, False)
        # The late result goes nowhere; the connection serves on.
        client.send(request(b"y"))
        channel.answer(item, 200, b"late", 0)
        (item,) = channel.take()
        channel.answer(item, 200, b"in time", 0)
        assert client.answer().body == b"in time"
        engine.wait_until(lambda now: now["late"] == 1)


def test_many_time_outs_at_once() -> None:
    with serving(header_timeout_ns=SOON, idle_timeout_ns=SOON) as engine:
        clients = []
        for i in range(200):
            clients.append(Client(engine))
            clients[i].send([b"", b"G", get()][i % 3])
        for i, client in enumerate(clients):
            with client:
                if i % 3:
                    assert client.answer().status == [0, 408, 200][i % 3]
                assert client.ended()


def test_a_refused_client_that_stays() -> None:
    with serving() as engine, Client(engine) as client:
        assert client.ask(b"\x16").status == 400
        assert client.ended()
        engine.wait_until(lambda now: now["connections"] == 0)


def test_a_refused_client_that_never_ends() -> None:
    with serving() as engine, Client(engine) as client:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.send(*[b"\x16" * MIB] * 1024)
        assert engine.segment.blocks() == (0, 0)
