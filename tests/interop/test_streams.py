"""Streams of events over real sockets: what is on the wire, departures, time-outs, the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mosec_cy._engine.segment import STATUS_CODES
from mosec_cy._engine.worker import Sender
from tests.engine import SECOND, SHUTDOWN, STOPPED, Engine
from tests.http_client import get, receive_all, request
from tests.interop.http1 import barrier
from tests.interop.streams import TIMED_OUT, Gate, Reader, data, streaming


def letters(sender: Sender, item: Any) -> None:
    """An event for each letter of the request."""
    for letter in bytes(item).decode():
        assert sender.send(letter, 0)


def count(engine: Engine, status: int) -> int:
    counts: list[int] = engine.segment.stats()["routes"][0]
    return counts[STATUS_CODES.index(status)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with streaming(letters) as engine:
        yield engine


def test_what_is_on_the_wire(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(request(b"abc", headers="connection: close\r\n"))
        head, _, body = receive_all(client).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert [line for line in lines[1:] if not line.startswith(b"date: ")] == [
        b"server: mosec_cy/test",
        b"content-type: text/event-stream",
        b"transfer-encoding: chunked",
        b"connection: close",
        b"cache-control: no-cache",
        b"x-accel-buffering: no",
    ]
    assert body == b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n9\r\ndata: c\n\n\r\n0\r\n\r\n"


def test_text_of_a_class_of_its_own() -> None:
    """As tokenizers, numpy and enumerations have them."""

    class Token(str):
        __slots__ = ()

    def forward(sender: Sender, _: Any) -> None:
        assert sender.send(Token("token"), 0)
        for wrong in (b"bytes", None, 1):
            with pytest.raises(TypeError, match="text must be a str, but is "):
                sender.send(wrong, 0)  # type: ignore[arg-type]

    with streaming(forward) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.rest_of_stream() == data("token")


def test_http_1_0(engine: Engine) -> None:
    """No chunks; the end is the end of the connection, whatever the client asked for."""
    with engine.connect() as client:
        head = b"POST /inference HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nab"
        client.sendall(head)
        head, _, body = receive_all(client).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"content-length" not in head
    assert b"connection: close" in head.split(b"\r\n")
    assert body == data("a", "b")


def test_one_connection_for_stream_after_stream(engine: Engine) -> None:
    with Reader(engine) as reader:
        for body in (b"a", b"bc", b"d" * 1000):
            reader.begin(body)
            assert reader.rest_of_stream() == data(*body.decode())
        assert reader.ask(get()).body == b"MOSEC service"


def test_pipelined_behind_a_stream(engine: Engine) -> None:
    with Reader(engine) as reader:
        reader.send(request(b"ab") + get() + request(b"c") + get("/inference") + request(b"", path="/inference"))
        reader.answer()
        assert reader.rest_of_stream() == data("a", "b")
        assert reader.answer().body == b"MOSEC service"
        reader.answer()
        assert reader.rest_of_stream() == data("c")
        assert reader.answer().status == 405
        assert reader.answer().body == b"no data provided"


def test_no_stream_without_a_body_or_with_head(engine: Engine) -> None:
    with Reader(engine) as reader:
        assert reader.ask(request(b"")).body == b"no data provided"
        assert reader.ask(get("/inference", method="HEAD"), to_head=True).status == 405


def test_a_client_that_half_closes_gets_its_stream(engine: Engine) -> None:
    with Reader(engine) as reader:
        reader.send(request(b"abc"))
        reader.half_close()
        reader.answer()
        assert reader.rest_of_stream().replace(b":\n\n", b"") == data("a", "b", "c")
        assert reader.ended()


def test_thousands_of_events(engine: Engine) -> None:
    """Each of them, in order, to nobody else."""

    def read(body: bytes) -> None:
        with Reader(engine) as reader:
            reader.begin(body)
            results.append(reader.rest_of_stream() == data(*body.decode()))

    results: list[bool] = []
    bodies = [b"%d" % (10**4000 // (3 + i)) for i in range(4)]
    threads = [threading.Thread(target=read, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_a_client_that_leaves() -> None:
    """`send` says so, and nothing is counted."""
    gate = Gate(["x"])
    with streaming(gate) as engine:
        with Reader(engine) as reader:
            reader.begin()
            assert reader.until(b"\n\n") == data("first")
        barrier(engine)
        engine.wait_until(lambda stats: stats["connections"] == 0)
        gate.go.set()
        assert gate.refused.wait(30) and gate.sent == 0
        assert count(engine, 200) == 0


def test_service_timeout_in_a_stream() -> None:
    gate = Gate(["late"])
    with streaming(gate, service_timeout_ns=SECOND // 5) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.rest_of_stream() == data("first") + TIMED_OUT
        gate.go.set()
        assert gate.refused.wait(30)
        assert (count(engine, 200), count(engine, 408)) == (0, 1)
        assert reader.ask(get()).body == b"MOSEC service"


def test_comments_while_nothing_is_sent() -> None:
    gate = Gate(["x"])
    with streaming(gate, stream_comment_ns=SECOND // 50) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.until(data("first")).replace(b":\n\n", b"") == data("first")  # which may have taken that long
        assert [reader.chunk() for _ in range(3)] == [b":\n\n"] * 3
        gate.go.set()
        assert reader.rest_of_stream().replace(b":\n\n", b"") == data("x")


def test_shutdown_waits_for_the_stream() -> None:
    gate = Gate(["x"])
    with streaming(gate) as engine, Reader(engine) as reader:
        reader.begin()
        with Reader(engine) as idle:
            idle.ask(get())
            engine.order(SHUTDOWN, value=(1 << 63) - 1)
            assert idle.ended()  # core has begun to shut down
        gate.go.set()
        assert reader.rest_of_stream() == data("first", "x")
        assert engine.news()[0] == STOPPED
        assert reader.ended()


def test_many_streams_on_one_slot_by_turns() -> None:
    """Events of one stream go to its client: what a client asked for is in each of its events."""

    def names(sender: Sender, item: Any) -> None:
        name = bytes(item).decode()
        for number in range(200):
            assert sender.send(f"{name}:{number}", 0)

    with streaming(names) as engine, ExitStack() as stack:
        readers = [stack.enter_context(Reader(engine)) for _ in range(30)]
        for round in range(3):
            for i, reader in enumerate(readers):
                reader.send(request(b"%d-%d" % (round, i)))
            for i, reader in enumerate(readers):
                reader.answer()
                assert reader.rest_of_stream() == data(*[f"{round}-{i}:{n}" for n in range(200)])
