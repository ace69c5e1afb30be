"""Request bodies of all sizes and framings, up to the limit, over it, with `Expect: 100-continue`, and refused."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator

import pytest

from tests.engine import MIB, SECOND, SHUTDOWN, Engine
from tests.http_client import Client, chunked, get, request
from tests.interop.http1 import barrier, core, serving

LIMIT = 10 * MIB
# Around the bytes read at once, the bytes read in one turn, the first block of a chunked body and its doublings.
SIZES = [1, 2, 3, 63, 64, 65, 4095, 4096, 8191, 8192, 8193, 16383, 16384, 16385, 32768, 65535, 65536, 65537]
SIZES += [131071, 131073, 262143, 262144, 262145, 262144 + 65536, 1_000_003, 4 * MIB, LIMIT - 1, LIMIT]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving() as engine:
        yield engine


@pytest.fixture(scope="module")
def payload() -> bytes:
    return random.Random(1).randbytes(LIMIT)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("size", SIZES)
def test_declared(engine: Engine, payload: bytes, size: int) -> None:
    body = payload[:size]
    with Client(engine) as client:
        assert client.post(body).body == body
        # In two parts with a pause, so that the second goes straight into the block.
        raw = request(body)
        client.send(raw[: -size // 2])
        barrier(engine)
        assert client.ask(raw[-size // 2 :]).body == body


@pytest.mark.parametrize("size", SIZES)
def test_http_request_chunked(engine: Engine, payload: bytes, size: int) -> None:
    body = payload[:size]
    with Client(engine) as client:
        for piece in {size, 65536, max(1, size // 3), max(1, size // 1000)}:
            answer = client.ask(chunked(*pieces(body, piece)))
            assert (answer.status, answer.body == body) == (200, True), piece


def test_the_block_of_a_chunked_body_grows(engine: Engine, payload: bytes) -> None:
    # Chunks that come one by one: each is in memory before the next is sent.
    with Client(engine) as client:
        client.send(chunked(end=b""))
        for piece in pieces(payload[:100_000], 4000):
            client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            barrier(engine)
        assert client.ask(b"0\r\n\r\n").body == payload[:100_000]


def test_chunks_split_at_every_byte(engine: Engine) -> None:
    raw = chunked(b"abc", b"0123456789abcdef", end=b'00;x="y"\r\nTrailer: z\r\n\r\n')
    body = raw.index(b"3\r\nabc")
    clients = [Client(engine) for _ in range(body, len(raw))]
    for at, client in enumerate(clients, body):
        client.send(raw[:at])
    barrier(engine)
    for at, client in enumerate(clients, body):
        client.send(raw[at:])
    for client in clients:
        with client:
            assert client.answer().body == b"abc0123456789abcdef"


@pytest.mark.parametrize("long", [False, True])
def test_chunks_beyond_the_limit(engine: Engine, payload: bytes, long: bool) -> None:
    with Client(engine) as client:
        client.send(chunked(payload[: LIMIT - 1], end=b""))
        barrier(engine)
        answer = client.ask(b"10000\r\n" if long else b"2\r\nxy\r\n")  # a long one is refused before its data
        assert (answer.status, answer.body, answer.closes) == (413, b"request body is too large", True)
        assert client.ended()


@pytest.mark.parametrize("size", [b"ffffffffffffffff", b"8000000000000000", b"a00001"])
def test_a_chunk_that_alone_is_beyond_the_limit(engine: Engine, size: bytes) -> None:
    with Client(engine) as client:
        assert client.ask(chunked(b"x", end=size + b"\r\n")).status == 413
        assert client.ended()


@pytest.mark.parametrize("bad", [b"x\r\n", b"\r\n", b"-1\r\n", b"1 \r\n", b"0x1\r\n", b"1\n", b"00000000000000001\r\n"])
def test_bad_chunk_sizes(engine: Engine, bad: bytes) -> None:
    with Client(engine) as client:
        answer = client.ask(chunked(b"abc", end=bad) + request(b"never"))
        assert (answer.status, answer.closes) == (400, True)
        assert client.ended()


def test_bodies_over_the_memory_budget(payload: bytes) -> None:
    # Half of the budget is for requests; both kinds of body are refused beyond it, and served below it.
    with serving(budget=8 * MIB) as engine:
        for raw in (
            request(payload[: 5 * MIB]),
            chunked(payload[: 5 * MIB]),
            chunked(*pieces(payload[: 5 * MIB], 9999)),
        ):
            with Client(engine) as client:
                answer = client.ask(raw)
                assert (answer.status, answer.closes) == (503, True)
                assert b"--budget" in answer.body
                assert client.ended()
        with Client(engine) as client:
            for raw in (request(payload[:MIB]), chunked(payload[:MIB])):
                assert client.ask(raw).body == payload[:MIB]


EXPECT = "expect: 100-continue\r\n"


@pytest.mark.parametrize("size", [1, 100_000])
def test_expect_is_told_to_continue(engine: Engine, payload: bytes, size: int) -> None:
    body = payload[:size]
    for raw in (request(body, headers=EXPECT), chunked(body, headers=EXPECT)):
        head, _, rest = raw.partition(b"\r\n\r\n")
        with Client(engine) as client:
            for _ in range(2):
                client.send(head + b"\r\n\r\n")
                interim = client.answer(interim=True)
                assert (interim.status, interim.headers) == (100, {})
                client.send(rest)
                final = client.answer(interim=True)
                assert (final.status, final.body) == (200, body)


def test_expect_of_a_body_that_is_there(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"x", headers=EXPECT))
        assert client.answer(interim=True).body == b"x"
        client.send(request(b"", headers=EXPECT))
        assert client.answer(interim=True).body == b"no data provided"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request(b"", headers=EXPECT).replace(b"length: 0", b"length: 10485761"), 413),
        (request(b"", path="/nowhere", headers=EXPECT).replace(b"length: 0", b"length: 5"), 404),
        (request(b"", path="/", headers=EXPECT).replace(b"length: 0", b"length: 5"), 405),
        (chunked(path="/nowhere", headers=EXPECT, end=b""), 404),
    ],
)
def test_expect_is_refused_before_the_body(engine: Engine, raw: bytes, status: int) -> None:
    with Client(engine) as client:
        client.send(raw)
        answer = client.answer(interim=True)
        assert (answer.status, answer.closes) == (status, True)
        assert client.ended()


def test_expect_when_the_queue_is_full() -> None:
    # No worker is ready: the first request waits.
    with core(capacity=1) as engine, Client(engine) as waiting, Client(engine) as client:
        waiting.send(request(b"waits"))
        engine.wait_until(lambda now: now["remaining"] == 1)
        client.send(request(b"", headers=EXPECT).replace(b"length: 0", b"length: 5"))
        answer = client.answer(interim=True)
        assert (answer.status, answer.closes) == (429, True)
        assert client.ended()


def test_a_body_where_none_belongs_is_refused(engine: Engine) -> None:
    # GET of a route that the master answers: its body must not be read as a request.
    hidden = request(b"smuggled")
    for raw in (
        get("/metrics", headers=f"content-length: {len(hidden)}\r\n") + hidden,
        get("/metrics", headers="transfer-encoding: chunked\r\n") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden),
    ):
        with Client(engine) as client:
            answer = client.ask(raw)
            assert (answer.status, answer.closes) == (400, True)
            assert client.ended()


# ---- refused while the client sends --------------------------------------------------------------


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
