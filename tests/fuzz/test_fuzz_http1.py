"""Whole conversations with core, corrupt at random: it lives, its accounting balances, however the bytes are cut."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine import Engine
from tests.fuzz.examples import examples
from tests.http_client import Client, chunked, get, request
from tests.interop.http1 import barrier, serving

STREAM = b"".join(
    [
        request(b"first"),
        get(headers="connection: keep-alive\r\n"),
        chunked(b"hello", b"world", end=b"0;x\r\nTrailer: y\r\n\r\n"),
        get(method="HEAD"),
        request(b"nowhere", path="/nowhere"),
        request(b"large" * 20_000),
        get("*", method="OPTIONS"),
        b"POST http://a/%69nference HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nold",
        request(b"expected", headers="expect: 100-continue\r\n"),
        request(b"last", headers="connection: close\r\n"),
    ]
)
GRAMMAR = [
    b"\r\n", b"\r", b"\n", b"\0", b" ", b":", b",", b";", b"%", b"\xff", b"0", b"9", b"HEAD", b"HTTP/1.0", b"HTTP/2.0",
    b"content-length: 5\r\n", b"content-length: 99999999\r\n", b"transfer-encoding: chunked\r\n", b"host: a\r\n",
    b"accept-encoding: zstd;q=0.5, *\r\n", b"content-encoding: gzip\r\n", b"content-encoding: br, \r\n",
    b"connection: close\r\n", b"expect: 100-continue\r\n", b"0\r\n\r\n", b"ffff\r\n", b"GET /nowhere HTTP/1.1\r\n",
]  # fmt: skip
PLACES = st.integers(0, 700) | st.integers(0, len(STREAM))
CHANGES = st.lists(st.tuples(PLACES, st.integers(0, 40), st.sampled_from(GRAMMAR) | st.binary(max_size=30)), max_size=5)
CUTS = st.lists(PLACES, max_size=5)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving(codings=["gzip", "zstd"]) as engine:  # at the end no block, task or connection may be left
        yield engine


def corrupt(changes: list[tuple[int, int, bytes]]) -> bytes:
    data = STREAM
    for at, length, new in changes:
        data = data[:at] + new + data[at + length :]
    return data


def conversation(engine: Engine, pieces: list[bytes]) -> bytes:
    """All that core says, with the dates and interim responses taken out."""
    said = []
    with engine.connect() as client:
        try:
            for piece in pieces[:-1]:
                client.sendall(piece)
                barrier(engine)
            client.sendall(pieces[-1])
            client.shutdown(socket.SHUT_WR)
        except OSError:  # core has closed: what it said is still to be read
            pass
        try:
            while part := client.recv(1 << 20):
                said.append(part)
        except ConnectionResetError:
            pass
    everything = b"".join(said).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    return re.sub(rb"\r\ndate: [^\r]+", b"", everything)


@given(CHANGES, CUTS)
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_conversations_do_not_depend_on_how_they_are_cut(
    engine: Engine, changes: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    data = corrupt(changes)
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    whole = conversation(engine, [data])
    assert whole == b"" or whole.startswith(b"HTTP/1.1 ")
    assert conversation(engine, pieces) == whole
    with Client(engine) as client:
        assert client.post(b"honest").body == b"honest"


@given(st.binary(max_size=2000), st.booleans())
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(engine: Engine, data: bytes, leaves: bool) -> None:
    with Client(engine) as client:
        client.send(data)
        if not leaves:
            client.half_close()
            said = b""
            while part := client.socket.recv(1 << 16):
                said += part
            assert said == b"" or re.match(rb"HTTP/1.1 [1-5]\d\d ", said)
    assert engine.process.poll() is None


@given(CHANGES, PLACES, st.sampled_from([socket.SHUT_RD, socket.SHUT_RDWR, None]))
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_leaving_anywhere(engine: Engine, changes: list[tuple[int, int, bytes]], at: int, how: int | None) -> None:
    with Client(engine) as client:
        client.send(corrupt(changes)[:at])
        if how is not None:
            client.socket.shutdown(how)
    with Client(engine) as client:
        assert client.post(b"honest").body == b"honest"
