"""Streams of events over real sockets: what is on the wire, slow readers, departures and time-outs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from mosec_cy._channel import Channel
from mosec_cy._segment import STATUS_CODES
from mosec_cy._sender import Sender
from tests.engine import SECOND, SHUTDOWN, STOPPED, Engine, receive_all, request
from tests.interop.http1 import barrier, core, get
from tests.interop.rows import stopped
from tests.interop.streams import WINDOW, Reader, streaming

TIMED_OUT = b"event: error\ndata: SSE inference error: 408: Request Timeout: inference timeout\n\n"
BIG = "x" * (WINDOW // 4)


def letters(sender: Sender, item: Any) -> None:
    """An event for each letter of the request."""
    for letter in bytes(item).decode():
        assert sender.send(letter, 0)


def data(*texts: str) -> bytes:
    return b"".join(b"data: %s\n\n" % text.encode() for text in texts)


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
    ]
    assert body == b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n9\r\ndata: c\n\n\r\n0\r\n\r\n"


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


class Gate:
    """A worker that sends one event, waits to be told, and goes on as long as it may."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.go = threading.Event()
        self.sent = 0
        self.refused = threading.Event()

    def __call__(self, sender: Sender, item: Any) -> None:
        sender.send("first", 0)
        assert self.go.wait(30)
        for text in self.texts:
            if not sender.send(text, 0):
                self.refused.set()
                return
            self.sent += 1


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


def test_a_client_that_reads_nothing() -> None:
    """The worker waits, core holds no more than the window and its framing; when the client reads, all of it comes."""
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate) as engine, Reader(engine) as reader:
        reader.begin()
        engine.wait_until(lambda stats: stats["charged"] >= WINDOW // 2)  # the kernel takes no more
        with engine.connect() as other:  # the loop serves others meanwhile
            other.sendall(get(headers="connection: close\r\n"))
            assert b"MOSEC service" in receive_all(other)
        assert engine.segment.stats()["charged"] <= 4 * WINDOW
        assert gate.sent < 100
        expected = data("first", *[BIG] * 100)
        got = b""
        while len(got) < len(expected):
            got += reader.chunk()
            assert engine.segment.stats()["charged"] <= 4 * WINDOW
        assert got == expected
        assert reader.chunk() == b"" and gate.sent == 100


def test_a_client_that_leaves_while_the_worker_waits() -> None:
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate) as engine:
        with Reader(engine) as reader:
            reader.begin()
            engine.wait_until(lambda stats: stats["charged"] >= WINDOW // 2)
        assert gate.refused.wait(30) and gate.sent < 100


def test_a_client_that_never_reads_is_cut_off() -> None:
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate, write_timeout_ns=SECOND // 5) as engine, Reader(engine) as reader:
        reader.begin()
        assert gate.refused.wait(30) and gate.sent < 100
        engine.wait_until(lambda stats: stats["connections"] == 0)


def test_one_event_may_be_larger_than_the_window() -> None:
    text = "x" * (5 * WINDOW)
    gate = Gate([text, text])
    gate.go.set()
    with streaming(gate) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.rest_of_stream() == data("first", text, text)


def test_service_timeout_in_a_stream() -> None:
    gate = Gate(["late"])
    with streaming(gate, service_timeout_ns=SECOND // 5) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.rest_of_stream() == data("first") + TIMED_OUT
        gate.go.set()
        assert gate.refused.wait(30)
        assert (count(engine, 200), count(engine, 408)) == (0, 1)
        assert reader.ask(get()).body == b"MOSEC service"


def test_service_timeout_while_the_worker_waits_for_the_client() -> None:
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate, service_timeout_ns=SECOND // 2) as engine, Reader(engine) as reader:
        reader.begin()
        assert gate.refused.wait(30)
        assert reader.rest_of_stream() == data("first", *[BIG] * gate.sent) + TIMED_OUT


def test_comments_while_nothing_is_sent() -> None:
    gate = Gate(["x"])
    with streaming(gate, stream_comment_ns=SECOND // 50) as engine, Reader(engine) as reader:
        reader.begin()
        assert [reader.chunk() for _ in range(4)] == [*[data("first")], *[b":\n\n"] * 3]
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


def test_many_streams_on_one_row_by_turns() -> None:
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


def test_core_is_behind_and_not_the_client() -> None:
    """A batch of two whose worker has sent more than the window before core gets to see any of it."""
    taken, behind, done = threading.Event(), threading.Event(), threading.Event()
    texts = [BIG] * 5

    def serve(channel: Channel) -> None:
        sender = Sender(channel)
        items = channel.take()
        assert len(items) == 2
        taken.set()
        assert behind.wait(30)
        for text in texts:
            sent.extend(sender.send(text, index) for index in range(2))
            if len(sent) == 6:
                done.set()  # three quarters of each window; the next but one has to wait for core
        for item in items:
            channel.publish_end(item)
        assert channel.take() is None

    sent: list[bool] = []
    stage = {"max_batch_size": 2, "max_wait_ns": 60 * SECOND}
    with core(streams=True, stage=stage) as engine, ExitStack() as stack:
        thread = threading.Thread(target=serve, args=(engine.channel(),))
        thread.start()
        readers = [stack.enter_context(Reader(engine)) for _ in range(2)]
        for reader in readers:
            reader.begin()
        assert taken.wait(30)
        with stopped(engine):
            behind.set()
            assert done.wait(30)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(Reader.rest_of_stream, readers)) == [data(*texts)] * 2
        assert sent == [True] * 10
        engine.segment.stop_row(1)
        thread.join()
