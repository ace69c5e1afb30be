"""Pipelined and split requests: answers come in order, however the bytes fall."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mosec_cy._channel import Channel
from tests.engine import Engine, request
from tests.interop.http1 import Client, barrier, chunked, core, echo, get, serving


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving() as engine:
        yield engine


# Request, answer's status, answer's body (None: to HEAD).
MIXED: list[tuple[bytes, int, bytes | None]] = [
    (request(b"first"), 200, b"first"),
    (get(), 200, b"MOSEC service"),
    (chunked(b"in", b" pieces", headers="x: y\r\n"), 200, b"in pieces"),
    (get(method="HEAD"), 200, None),
    (b"\r\n" + request(b"refused", path="/nowhere"), 404, b"not found"),
    (get("/inference"), 405, b"method not allowed"),
    (chunked(b"GET / HTTP/1.1\r\n\r\n", end=b"0;last\r\nTrailer: x\r\n\r\n"), 200, b"GET / HTTP/1.1\r\n\r\n"),
    (get("*", method="OPTIONS"), 204, b""),
    (request(b""), 200, b"no data provided"),
    (request(b"last", path="/%69nference?q"), 200, b"last"),
]
STREAM = b"".join(raw for raw, _, _ in MIXED)


def check(client: Client) -> None:
    for raw, status, body in MIXED:
        answer = client.answer(to_head=body is None)
        assert (answer.status, answer.body) == (status, body or b""), raw


def test_mixed_requests_in_one_segment(engine: Engine) -> None:
    with Client(engine) as client:
        for _ in range(3):
            client.send(STREAM)
            check(client)


def test_split_at_every_byte(engine: Engine) -> None:
    clients = [Client(engine) for _ in range(len(STREAM) - 1)]
    for at, client in enumerate(clients, 1):
        client.send(STREAM[:at])
    barrier(engine)  # core has read each of the first parts
    for at, client in enumerate(clients, 1):
        client.send(STREAM[at:])
    for client in clients:
        with client:
            check(client)


def test_byte_by_byte(engine: Engine) -> None:
    with Client(engine) as client, Client(engine) as other:
        for at in range(len(STREAM)):
            client.send(STREAM[at : at + 1])
            assert other.ask(get()).status == 200  # core has read that byte
        check(client)


def test_random_pieces(engine: Engine) -> None:
    generator = random.Random(9112)
    for _ in range(40):
        cuts = sorted(generator.sample(range(1, len(STREAM)), 6))
        with Client(engine) as client:
            for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
                client.send(STREAM[start:end])
                if generator.random() < 0.5:
                    barrier(engine)
            check(client)


def test_a_bad_request_ends_the_pipeline(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"a") + get() + b"GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n" + request(b"never"))
        assert client.answer().body == b"a"
        assert client.answer().body == b"MOSEC service"
        refusal = client.answer()
        assert (refusal.status, refusal.closes) == (400, True)
        assert client.ended()


@pytest.mark.parametrize("n", [1000, 5000])
def test_a_long_pipeline_of_small_requests(engine: Engine, n: int) -> None:
    # More than core reads at once, and more than it keeps for a connection.
    with Client(engine) as client:
        sender = threading.Thread(target=client.send, args=(b"".join(request(b"%d" % i) for i in range(n)),))
        sender.start()
        assert [client.answer().body for _ in range(n)] == [b"%d" % i for i in range(n)]
        sender.join()


def test_a_long_pipeline_of_large_requests(engine: Engine) -> None:
    bodies = [bytes([i]) * size for i, size in enumerate([1, 70_000, 65_536, 300_000, 2, 262_144, 1_000_000, 3])]
    with Client(engine) as client:
        sender = threading.Thread(target=client.send, args=(b"".join(map(request, bodies)),))
        sender.start()
        assert [client.answer().body for _ in bodies] == bodies
        sender.join()


def test_the_second_waits_for_the_first() -> None:
    # Two workers are free for it: still the second is not begun before the first is answered.
    seen: list[bytes] = []
    begun, gate = threading.Event(), threading.Event()

    def answer(channel: Channel, item: Any) -> None:
        seen.append(bytes(item))
        if bytes(item) == b"1":
            begun.set()
            assert gate.wait(20)
        echo(channel, item)

    with core(rows=2) as engine, engine.worker(answer, 1), engine.worker(answer, 2), Client(engine) as client:
        client.send(request(b"1") + request(b"2"))
        assert begun.wait(20)
        with Client(engine) as other:
            assert other.post(b"x").body == b"x"
        assert seen == [b"1", b"x"]
        gate.set()
        assert [client.answer().body, client.answer().body] == [b"1", b"2"]


def test_answers_of_core_do_not_overtake_the_workers(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"slow") + get() * 50 + request(b"slow too") + get("/nowhere"))
        assert client.answer().body == b"slow"
        assert {client.answer().body for _ in range(50)} == {b"MOSEC service"}
        assert client.answer().body == b"slow too"
        assert client.answer().status == 404


def test_more_heads_than_one_turn_takes(engine: Engine) -> None:
    """Tiny requests by the thousand, bodies among them, are answered in order over many turns."""
    with Client(engine) as client:
        client.send(b"".join(get() * 100 + request(b"%d" % i) for i in range(20)))
        for i in range(20):
            assert {client.answer().body for _ in range(100)} == {b"MOSEC service"}
            assert client.answer().body == b"%d" % i
