"""A client whose upload is refused while it sends gets the whole refusal, and no reset before it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.engine import MIB, SECOND, SHUTDOWN, Engine
from tests.http_client import Client, chunked, request
from tests.interop.http1 import core, serving

UPLOAD = bytes(40 * MIB)
DECLARED = f"POST /inference HTTP/1.1\r\nhost: test\r\ncontent-length: {len(UPLOAD)}\r\n\r\n".encode()
CHUNKED = chunked(end=b"")
CHUNK = b"100000\r\n" + bytes(MIB) + b"\r\n"


def upload(client: Client, kind: str) -> None:
    """All of it, before anything is read."""
    if kind == "declared":
        client.send(DECLARED, UPLOAD)
    else:
        client.send(CHUNKED, *[CHUNK] * 40, b"0\r\n\r\n")


@contextlib.contextmanager
def full_queue() -> Iterator[Engine]:
    """A core whose queue is full."""
    # No worker is ready: what comes waits.
    with core(capacity=1, max_request_size=64 * MIB) as engine, Client(engine) as client:
        client.send(request(b"waits"))
        engine.wait_until(lambda now: now["remaining"] == 1)
        yield engine


@contextlib.contextmanager
def small_budget() -> Iterator[Engine]:
    with serving(budget=8 * MIB, max_request_size=64 * MIB) as engine:
        yield engine


@contextlib.contextmanager
def stopping() -> Iterator[Engine]:
    """A core that was told to stop, with a request at work."""
    with core(max_request_size=64 * MIB) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send(request(b"at work"))
        (item,) = channel.take()
        engine.order(SHUTDOWN, value=time.monotonic_ns() + 60 * SECOND)
        with Client(engine) as other:
            assert other.post(b"too late").status == 503
        yield engine
        channel.answer(item, 200, b"done", 0)
        assert client.answer().body == b"done"


@pytest.mark.parametrize("kind", ["declared", "chunked"])
@pytest.mark.parametrize(
    ("refusing", "status"), [(serving, 413), (full_queue, 429), (small_budget, 503), (stopping, 503)]
)
def test_the_refusal_is_read_whole(refusing: contextlib.AbstractContextManager[Engine], status: int, kind: str) -> None:
    with refusing() as engine:  # type: ignore[operator]
        for half_close in (False, True):
            with Client(engine) as client:
                upload(client, kind)
                if half_close:
                    client.half_close()
                answer = client.answer()
                assert (answer.status, answer.closes) == (status, True)
                assert client.ended()


def test_the_refusal_comes_while_the_upload_goes_on() -> None:
    with serving() as engine, Client(engine) as client:
        client.send(DECLARED, UPLOAD[:MIB])
        assert client.answer().status == 413
        client.send(UPLOAD[MIB:])
        assert client.ended()


def test_a_small_refused_body_costs_no_connection() -> None:
    with serving() as engine, Client(engine) as client:
        for size in (1, 1000, 65536):
            answer = client.ask(request(bytes(size), path="/nowhere"))
            assert (answer.status, answer.closes) == (404, False)
        assert client.ask(request(bytes(65537), path="/nowhere")).closes
        assert client.ended()


def test_refused_bytes_are_not_kept() -> None:
    # However much a refused client sends, none of it stays in memory.
    with serving() as engine, Client(engine) as client:
        client.send(DECLARED, UPLOAD)
        assert client.answer().status == 413
        assert engine.segment.stats()["charged"] == 0
        assert engine.segment.blocks() == (0, 0)
