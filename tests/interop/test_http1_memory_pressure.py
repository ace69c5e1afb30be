"""Little memory, and clients that hold much of it for long: they make way for others, and only when others come."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import MIB, SECOND, Engine
from tests.http_client import Client, chunked, request
from tests.interop.http1 import BYTES, barrier, core, serving
from tests.until import until

NO_ROOM = b"service is out of memory for request bodies (--budget)"
SMALL = 64 * MIB  # half of it is for requests
WATCHED = 0.5  # s; an eighth of the time-outs here


@contextlib.contextmanager
def small(**options: Any) -> Iterator[Engine]:
    timeouts = dict.fromkeys(("body_timeout_ns", "write_timeout_ns"), 4 * SECOND)
    with serving(budget=SMALL, **timeouts, **options) as engine:
        yield engine


def hoard(engine: Engine, stack: contextlib.ExitStack, raw: bytes, count: int = 4) -> list[Client]:
    """Clients that hold 8 MiB each and send nothing more."""
    clients = [stack.enter_context(Client(engine)) for _ in range(count)]
    for client in clients:
        client.send(raw)
    engine.wait_until(lambda now: now["charged"] >= count * 8 * MIB)
    return clients


def post_until_accepted(engine: Engine, body: bytes) -> None:
    """Refused while those who hold the memory are still being watched; then there is room."""

    def accepted() -> bool:
        with Client(engine) as client:
            answer = client.post(body)
        assert answer.outcome in ((200, body), (503, NO_ROOM))
        return answer.status == 200

    until(accepted, message="never accepted")


DECLARED = request(bytes(8 * MIB - 64))
HOARDED = {
    "declared": DECLARED[: -(8 * MIB - 64)],
    "begun": DECLARED[: -(8 * MIB - 64) + 1000],
    "chunked": chunked(bytes(5 * MIB), end=b""),
}


@pytest.mark.parametrize("kind", HOARDED)
def test_uploads_that_stand_still_make_way(kind: str) -> None:
    with small() as engine, contextlib.ExitStack() as stack:
        clients = hoard(engine, stack, HOARDED[kind])
        post_until_accepted(engine, bytes(5 * MIB))
        # One was enough; it is told, long before its time-out.
        gone = [client for client in clients if client.readable()]
        assert len(gone) == 1
        answer = gone[0].answer()
        assert (answer.status, answer.closes, answer.body) == (503, True, NO_ROOM)


def test_uploads_that_move_stay() -> None:
    with small() as engine, contextlib.ExitStack() as stack:
        clients = hoard(engine, stack, HOARDED["declared"])
        body = DECLARED[-(8 * MIB - 64) :]
        half = len(body) // 2
        for client in clients:
            client.send(body[:half])
        barrier(engine)
        select.select([], [], [], 2 * WATCHED)  # half of it within that time is a good pace
        with Client(engine) as other:
            assert other.post(bytes(5 * MIB)).status == 503
        for client in clients:
            client.send(body[half:])
            assert client.answer().body == body


def test_no_more_make_way_than_must() -> None:
    """What is missing counts, not what is asked for: here it is 1 MiB of 5."""
    with small() as engine, contextlib.ExitStack() as stack:
        little = request(bytes(MIB - 64))[: -(MIB - 64)]
        clients = [stack.enter_context(Client(engine)) for _ in range(20)]
        for client in clients:
            client.send(little)
        barrier(engine)
        hoard(engine, stack, HOARDED["declared"], 1)
        engine.wait_until(lambda now: now["charged"] == 28 * MIB)
        post_until_accepted(engine, bytes(5 * MIB))
        assert sum(client.readable() for client in clients) == 1


def test_nobody_makes_way_for_what_never_fits() -> None:
    with small(max_request_size=64 * MIB) as engine, contextlib.ExitStack() as stack:
        clients = hoard(engine, stack, HOARDED["begun"])
        select.select([], [], [], 2 * WATCHED)
        with Client(engine) as other:
            assert other.ask(request(bytes(33 * MIB))[:1000]).status == 503
        for client in clients:
            client.send(DECLARED[-(8 * MIB - 64) + 1000 :])
            assert client.answer().status == 200


def test_a_chunked_body_asks_for_what_it_needs() -> None:
    """While it moves to a larger block it is charged for both; room for what may still come is not asked for."""
    body = bytes(5 * MIB)
    with serving(budget=20 * MIB) as engine, Client(engine) as client:
        assert client.ask(chunked(*[body[: 1 << 14]] * 320)).body == body


def test_readers_that_stand_still_make_way() -> None:
    def large(channel: Channel, item: Any) -> None:
        channel.answer(item, 200, bytes(item) if len(item) > 1 else bytes(15 * MIB), BYTES)

    with core(budget=SMALL, write_timeout_ns=4 * SECOND) as engine, engine.worker(large):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(engine)) for _ in range(2)]
            for client in clients:
                client.send(request(b"x"))
            engine.wait_until(lambda now: now["charged"] == 2 * 16 * MIB and now["remaining"] == 0)
            post_until_accepted(engine, bytes(5 * MIB))
            assert engine.segment.stats()["connections"] <= 2
