"""A core with an echoing worker, for tests of HTTP/1.1 over real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import Engine
from tests.http_client import Client, get
from tests.service import Service

JSON = 1
BYTES = 2
LEAVING = pytest.mark.parametrize("how", ["leave", "reset"])  # names of methods of Client


def echo(channel: Channel, item: Any) -> None:
    channel.answer(item, 200, bytes(item), BYTES)


def barrier(engine: Engine | Service) -> None:
    """Core has handled all that was sent before: events come out of epoll in the order of their arrival."""
    with Client(engine) as client:
        assert client.ask(get()).status == 200


def settled(engine: Engine) -> None:
    """Waits until core holds nothing any more; call it when all clients are closed."""
    engine.wait_until(lambda now: now["connections"] == now["remaining"] == now["charged"] == 0)
    assert engine.segment.blocks() == (0, 0)


@contextlib.contextmanager
def core(**options: Any) -> Iterator[Engine]:
    """A core without a worker; at the end nothing may be left in it."""
    engine = Engine(**options)
    try:
        yield engine
        if engine.process.poll() is None:
            settled(engine)
    finally:
        engine.close()


@contextlib.contextmanager
def serving(answer: Callable[[Channel, Any], None] = echo, **options: Any) -> Iterator[Engine]:
    """A core with a worker; at the end nothing may be left in it."""
    with core(**options) as engine, engine.worker(answer):
        yield engine
