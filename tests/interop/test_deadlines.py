"""Deadlines that clients set by `x-request-timeout-ms`: answered in time, in any order, and never run too late."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.engine import MIB, SECOND, Engine
from tests.http_client import Client, chunked, clients, get, request
from tests.interop.http1 import core, serving
from tests.interop.slots import TEXT, running, shared_memory, stopped

MS = 1_000_000
EXPIRED = (408, b"inference timeout")
MALFORMED = b"bad request: x-request-timeout-ms must be a whole number of milliseconds from 1 on"
LONG = 60_000  # ms; longer than any test
STATUS_400 = 2  # place in the counts of a route


def within(timeout: object, body: bytes = b"x") -> bytes:
    return request(body, headers=f"x-request-timeout-ms: {timeout}\r\n")


def answer_next(channel: Any, body: bytes) -> None:
    [item] = channel.take()
    assert bytes(item) == body
    channel.publish(item, [body], 0, TEXT)


def serve_one(engine: Engine, channel: Any, body: bytes) -> None:
    """The worker's next request is this one, whatever was sent before."""
    with Client(engine) as client:
        client.send(request(body))
        answer_next(channel, body)
        assert client.outcome() == (200, body)


def test_in_the_queue() -> None:
    with running() as engine, Client(engine) as client:
        assert client.ask(within(50, b"too late")).outcome == EXPIRED
        serve_one(engine, engine.channel(), b"in time")


def test_in_the_queue_of_a_later_stage() -> None:
    with running(stages=2) as engine, Client(engine) as client:
        first = engine.channel(1)
        client.send(within(200, b"x"))
        answer_next(first, b"x")
        assert client.outcome() == EXPIRED
        assert engine.channel(2).take_now() == []


def test_in_a_workers_ring() -> None:
    """Dispatched, but not started: the worker finds it there and must not run it."""
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        assert client.ask(within(50, b"too late")).outcome == EXPIRED
        assert channel.take_now() == []
        serve_one(engine, channel, b"in time")


def test_dispatched_ahead_behind_others() -> None:
    """The ring of a busy worker holds it while its deadline passes; batch-mates without one are run."""
    with running(stage={"max_batch_size": 3, "max_wait_ns": 10 * SECOND}) as engine, clients(engine, 3) as three:
        channel = engine.channel()
        three[0].send(within(100, b"too late"))
        for client in three[1:]:
            client.send_post(b"in time")
        assert three[0].outcome() == EXPIRED
        items = channel.take()
        assert [bytes(item) for item in items] == [b"in time"] * 2
        for item, client in zip(items, three[1:], strict=True):
            channel.publish(item, [b"x"], 0, TEXT)
            assert client.outcome() == (200, b"x")


def test_at_work() -> None:
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        client.send(within(100, b"slow"))
        [item] = channel.take()
        assert not channel.is_cancelled(item)
        assert client.outcome() == EXPIRED
        assert channel.is_cancelled(item)
        channel.publish(item, [b"late"], 0, TEXT)
        serve_one(engine, channel, b"in time")
        assert engine.segment.stats()["late"] == 1


def test_a_stream() -> None:
    """An answer that has begun cannot have another status: the stream ends with the error."""
    with running(streams=True) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send(within(100, b"slow"))
        [item] = channel.take()
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += client.socket.recv(1 << 16)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"event: error\ndata: SSE inference error: 408: Request Timeout: inference timeout\n\n" in got
        assert channel.is_cancelled(item)
        channel.publish_end(item)


def test_each_has_its_own() -> None:
    """Whatever the order of their arrival, they expire in the order of their deadlines; those without one last."""
    timeouts = [400, 100, None, 300, 500, 200, None]
    with running(service_timeout_ns=700 * MS) as engine, clients(engine, len(timeouts)) as many:
        started = time.monotonic()
        for timeout, client in zip(timeouts, many, strict=True):
            client.send(within(timeout) if timeout else request(b"x"))
        waiting = [(timeout or 700, client) for timeout, client in zip(timeouts, many, strict=True)]
        for timeout, client in sorted(waiting, key=lambda pair: pair[0]):
            assert client.outcome() == EXPIRED
            assert time.monotonic() >= started + timeout / 1000  # late on a busy machine, but never early


def test_a_client_that_leaves_takes_its_deadline_along() -> None:
    with running() as engine, clients(engine, 30) as many:
        for number, client in enumerate(many):
            client.send(within(200 + number * 7 % 30))
        engine.wait_until(lambda stats: stats["remaining"] == 30)
        for client in many[::2]:
            client.reset()
        engine.wait_until(lambda stats: stats["remaining"] == 15)
        assert {client.outcome() for client in many[1::2]} == {EXPIRED}


def test_an_answer_in_time_ends_the_deadline() -> None:
    with serving() as engine, Client(engine) as client:
        for number in range(50):
            body = b"%d" % number
            assert client.ask(within(LONG, body)).outcome == (200, body)
        assert engine.segment.stats()["remaining"] == 0


@pytest.mark.parametrize("timeout", [51, 1000, "9" * 18])
def test_more_than_the_services_is_the_services(timeout: object) -> None:
    with core(service_timeout_ns=50 * MS) as engine, Client(engine) as client:
        assert client.ask(within(timeout)).outcome == EXPIRED


@pytest.mark.parametrize("lines", [["0"], ["-5"], [""], ["1.5"], ["1s"], ["9" * 19], ["5", "6"], ["5", ""], ["5,5"]])
def test_malformed(lines: list[str]) -> None:
    """Refused before the body is there, and the connection is good for another request."""
    headers = "".join(f"X-Request-Timeout-Ms: {line}\r\n" for line in lines)
    with serving() as engine, Client(engine) as client:
        head = f"POST /inference HTTP/1.1\r\nhost: test\r\ncontent-length: {100 * MIB}\r\n{headers}\r\n"
        assert client.ask(head.encode()).outcome == (400, MALFORMED)
        with Client(engine) as other:
            assert other.ask(request(b"x", headers=headers)).outcome == (400, MALFORMED)
            assert other.post(b"x").outcome == (200, b"x")
        assert engine.segment.stats()["routes"][0][STATUS_400] == 2


def test_repeated_and_agreed() -> None:
    with serving() as engine, Client(engine) as client:
        headers = f"x-request-timeout-ms: {LONG}\r\nX-REQUEST-TIMEOUT-MS:\t0{LONG} \r\n"
        assert client.post(b"x", headers=headers).status == 200


def test_where_no_work_waits_it_means_nothing() -> None:
    with serving() as engine, Client(engine) as client:
        assert client.ask(get(headers="x-request-timeout-ms: never\r\n")).status == 200


@pytest.mark.parametrize("kind", ["declared", "chunked"])
def test_the_upload_counts(kind: str) -> None:
    """The time runs from the head: what is complete too late is told so, and no worker sees it."""
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        header = "x-request-timeout-ms: 50\r\n"
        whole = chunked(b"late", headers=header) if kind == "chunked" else request(b"late", headers=header)
        client.send(whole[:-7] if kind == "chunked" else whole[:-1])
        engine.wait_until(lambda stats: stats["charged"] > 0)
        time.sleep(0.1)  # what is tested is that this time counts
        client.send(whole[-7:] if kind == "chunked" else whole[-1:])
        assert client.outcome() == EXPIRED
        serve_one(engine, channel, b"in time")


def test_the_round_that_frees_a_worker_finds_the_deadline_passed() -> None:
    """Core learns of both at once: the freed worker must not even see it, or it might start it at that moment."""
    with running() as engine, clients(engine, 2) as two:
        channel = engine.channel()
        two[0].send_post(b"at work")
        [item] = channel.take()
        two[1].send(within(10, b"too late"))
        engine.wait_until(lambda stats: stats["remaining"] == 2)
        with stopped(engine):
            channel.publish(item, [b"x"], 0, TEXT)
            time.sleep(0.02)  # what is tested is that the deadline passes meanwhile
        assert two[0].outcome() == (200, b"x")
        assert two[1].outcome() == EXPIRED
        submit = engine.segment.layout()["rings"][1][0]
        dispatched = shared_memory(engine)[submit : submit + 8]
        assert int.from_bytes(dispatched, "little") == 1  # the one that was at work
        assert channel.take_now() == []
