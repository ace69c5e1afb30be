"""More requests than a service can do: who is refused, when, and with which word on coming back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine import MIB, SECOND, SHUTDOWN, Engine
from tests.http_client import Answer, Client, clients, request
from tests.interop.http1 import core
from tests.interop.slots import TEXT, running
from tests.until import until

MS = 1_000_000
FULL = (429, b"too many request: task queue is full")
HOPELESS = (503, b"service is overloaded: the request would not be answered in time")
NO_ROOM = (503, b"service is out of memory for request bodies (--budget)")
STOPPING = (503, b"gracefully shutting down")
UPLOAD = f"POST /inference HTTP/1.1\r\nhost: test\r\ncontent-length: {100 * MIB}\r\n"
LIMIT = 200 * MIB
STATUS_503 = 18  # place in the counts of a route


def retry_after(answer: Answer) -> int:
    """Seconds, as RFC 9110 section 10.2.3 has them."""
    value = answer.headers["retry-after"]
    assert value.isdecimal(), value
    return int(value)


@contextlib.contextmanager
def waiting(engine: Engine, count: int) -> Iterator[list[Any]]:
    """So many requests in the queue; for the time of the block."""
    with clients(engine, count) as many:
        for client in many:
            client.send_post(b"waits")
        engine.wait_until(lambda stats: stats["remaining"] == count)
        yield many


def measure(client: Client, stages: list[tuple[Any, float]]) -> None:
    """Two requests, as the first does not count, through stages (a slot's channel each) that take so many seconds."""
    for _ in range(2):
        client.send(request(b"measured"))
        for channel, seconds in stages:
            [item] = channel.take()
            time.sleep(seconds)  # what is tested is what core makes of this
            channel.publish(item, [b"x"], 0, TEXT)
        assert client.answer().status == 200


@contextlib.contextmanager
def busy(engine: Engine, seconds: float, count: int) -> Iterator[Any]:
    """A slot whose batches take so long, and so many requests that wait for it while it works; yields its channel."""
    channel = engine.channel()
    with Client(engine) as client:
        measure(client, [(channel, seconds)])
    with waiting(engine, count):
        yield channel


def test_429_comes_before_the_body_and_says_when_to_come_back() -> None:
    with running(capacity=2, max_request_size=LIMIT) as engine, waiting(engine, 2), Client(engine) as client:
        # Nothing of the 100 MB is sent, and the answer is there.
        answer = client.ask(f"{UPLOAD}\r\n".encode())
        assert (answer.outcome, retry_after(answer)) == (FULL, 1)
        assert engine.segment.stats()["charged"] < MIB
        with Client(engine) as other:
            answer = other.ask(f"{UPLOAD}expect: 100-continue\r\n\r\n".encode())
            assert (answer.outcome, retry_after(answer)) == (FULL, 1)


def test_429_at_the_end_of_an_upload() -> None:
    """The queue has filled up since its head was accepted."""
    with running(capacity=2) as engine, Client(engine) as client:
        whole = request(bytes(1000))
        client.send(whole[:-1])
        engine.wait_until(lambda stats: stats["charged"] > 0)
        with waiting(engine, 2):
            client.send(whole[-1:])
            answer = client.answer()
            assert (answer.outcome, retry_after(answer)) == (FULL, 1)


def test_503_of_a_shutdown() -> None:
    with core() as engine, Client(engine) as client:
        channel = engine.channel()
        client.send(request(b"at work"))
        [item] = channel.take()
        engine.order(SHUTDOWN, value=time.monotonic_ns() + 60 * SECOND)
        for late in (request(b"x"), b"GET / HTTP/1.1\r\nhost: test\r\n\r\n", f"{UPLOAD}\r\n".encode()):
            with Client(engine) as other:
                answer = other.ask(late)
                assert (answer.outcome, retry_after(answer)) == (STOPPING, 1)
        channel.answer(item, 200, b"done", TEXT)
        assert client.answer().body == b"done"
        assert engine.process.wait(20) == 0


def test_503_for_want_of_memory() -> None:
    with running(budget=16 * MIB, max_request_size=LIMIT) as engine, Client(engine) as client:
        answer = client.ask(f"{UPLOAD}\r\n".encode())
        assert (answer.outcome, retry_after(answer)) == (NO_ROOM, 1)


def test_503_to_who_would_wait_too_long() -> None:
    """Batches have taken 100 ms; the 20 that wait will take 2 s, so whoever has less than that to spare is refused."""
    patience = 600 * SECOND
    with running(max_request_size=LIMIT, service_timeout_ns=patience) as engine, busy(engine, 0.1, 20) as channel:
        with Client(engine) as client:
            answer = client.ask(request(b"x", headers="x-request-timeout-ms: 1500\r\n"))
            assert answer.outcome == HOPELESS
            assert 2 <= retry_after(answer) <= 600
        with Client(engine) as client:  # before its body is sent
            answer = client.ask(f"{UPLOAD}x-request-timeout-ms: 1500\r\n\r\n".encode())
            assert answer.outcome == HOPELESS
        with Client(engine) as client:  # the service's own time is enough
            client.send(request(b"patient"))
            engine.wait_until(lambda stats: stats["remaining"] == 21)
            bodies = []
            while len(bodies) < 21:
                [item] = channel.take()
                bodies.append(bytes(item))
                channel.publish(item, [b"x"], 0, TEXT)
            assert bodies == [b"waits"] * 20 + [b"patient"]
            assert client.answer().status == 200


def test_503_by_the_services_own_time() -> None:
    """As many are let in as can be done in time; the next one is told, and the refusal is not run later."""
    with running(service_timeout_ns=4 * SECOND) as engine, busy(engine, 0.4, 1) as channel, clients(engine, 30) as many:
        for client in many:
            client.send_post(b"more")
        engine.wait_until(lambda stats: stats["routes"][0][STATUS_503] + stats["remaining"] == 31)
        told = engine.segment.stats()["routes"][0][STATUS_503]
        until(lambda: sum(client.readable() for client in many) == told)
        refused = [client for client in many if client.readable()]
        assert 10 < len(refused) < 30
        assert {client.outcome() for client in refused} == {HOPELESS}
        assert engine.segment.stats()["remaining"] == 31 - len(refused)
        for _ in range(31 - len(refused)):
            [item] = channel.take()
            channel.publish(item, [b"x"], 0, TEXT)
        assert {client.outcome() for client in many if client not in refused} <= {
            (200, b"x"),
            (408, b"inference timeout"),
        }
        assert channel.take_now() == []


def test_a_later_stage_counts_too() -> None:
    with running(stages=2) as engine, Client(engine) as client:
        first, second = engine.channel(1), engine.channel(2)
        measure(client, [(first, 0), (second, 0.1)])
        with waiting(engine, 20) as many:
            for _ in many:  # through the first stage at once
                [item] = first.take()
                first.publish(item, [b"x"], 0, TEXT)
            answer = client.ask(request(b"x", headers="x-request-timeout-ms: 1500\r\n"))
            assert answer.outcome == HOPELESS


def test_a_short_queue_refuses_nobody() -> None:
    """However slow a worker was: what waits no longer than for its next batch is let in, and puts the measure right."""
    with running() as engine, busy(engine, 1.2, 1) as channel, Client(engine) as client:
        client.send(request(b"in a hurry", headers="x-request-timeout-ms: 1100\r\n"))
        bodies = []
        while b"in a hurry" not in bodies:
            [item] = channel.take()
            bodies.append(bytes(item))
            channel.publish(item, [b"x"], 0, TEXT)
        assert client.outcome() == (200, b"x")


@pytest.mark.timeout(120)
def test_many_large_uploads_at_once() -> None:
    """Served or refused, nothing else; core keeps within the budget, and all of it comes back."""
    budget, size = 64 * MIB, 8 * MIB - 1024
    body = bytes(range(256)) * (size // 256)
    answers: list[tuple[int, bytes]] = []

    def upload(engine: Engine) -> None:
        with Client(engine) as client:
            client.socket.settimeout(60)
            whole = memoryview(request(body))
            while whole and not client.readable():  # a refusal comes while it sends
                client.send(whole[:MIB])
                whole = whole[MIB:]
            answer = client.answer()
            if answer.status == 503:
                assert retry_after(answer) == 1
            answers.append(answer.outcome)

    def first_bytes(channel: Any, item: Any) -> None:
        channel.publish(item, [bytes(memoryview(item)[:4])], 0, TEXT)

    with running(budget=budget) as engine, engine.worker(first_bytes):
        most = 0
        threads = [threading.Thread(target=upload, args=(engine,)) for _ in range(200)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, engine.segment.stats()["charged"])
            threads[-1].join(0.01)
            threads = [thread for thread in threads if thread.is_alive()] or threads[:1]
        assert len(answers) == 200
        assert set(answers) == {(200, body[:4]), NO_ROOM}
        assert most <= budget // 2 + 8 * MIB  # answers are charged besides
        assert core_memory(engine) < budget + 32 * MIB
        answers.clear()
        upload(engine)
        assert answers == [(200, body[:4])]


def core_memory(engine: Engine) -> int:
    """Most bytes that core has had resident: its own, and what it has touched of the shared memory."""
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10
