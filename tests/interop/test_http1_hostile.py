"""What two parsers could read differently, other protocols, garbage: one 400, the end, and nothing hidden runs."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import Engine
from tests.http_client import Client, chunked, get, receive_all, request
from tests.http_vectors import REFUSED
from tests.interop.http1 import barrier, echo, serving

HIDDEN = request(b"smuggled")
SEEN: list[bytes] = []


def remember(channel: Channel, item: Any) -> None:
    SEEN.append(bytes(item))
    echo(channel, item)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving(remember) as engine:
        yield engine


def only_refusal(engine: Engine, raw: bytes, *statuses: int) -> None:
    """`raw` gets one answer, which is a refusal that closes, and nothing of it reaches a worker."""
    SEEN.clear()
    with Client(engine) as client:
        answer = client.ask(raw)
        assert answer.status in statuses, raw[:200]
        assert answer.closes
        assert client.ended()
    with Client(engine) as client:
        assert client.post(b"honest").body == b"honest"
    assert SEEN == [b"honest"]


def post(*headers: bytes, body: bytes = b"") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST /inference HTTP/1.1\r\nhost: test\r\n" + lines + b"\r\n" + body


CL = b"Content-Length: 4"
TE = b"Transfer-Encoding: chunked"
CHUNKS = b"4\r\nbody\r\n0\r\n\r\n"
SMUGGLING = {
    "length and coding": post(CL, TE, body=CHUNKS),
    "coding and length": post(TE, CL, body=CHUNKS),
    "lengths that differ": post(CL, b"Content-Length: 5", body=b"body"),
    "lengths that agree": post(CL, CL, body=b"body"),
    "list of lengths": post(b"Content-Length: 4, 4", body=b"body"),
    "length with a sign": post(b"Content-Length: +4", body=b"body"),
    "negative length": post(b"Content-Length: -4", body=b"body"),
    "hexadecimal length": post(b"Content-Length: 0x4", body=b"body"),
    "length with a space in it": post(b"Content-Length: 1 0", body=b"body"),
    "length with a dot": post(b"Content-Length: 4.0", body=b"body"),
    "empty length": post(b"Content-Length:", body=b"body"),
    "length of 20 digits": post(b"Content-Length: 18446744073709551620", body=b"body"),
    "space before the colon": post(b"Content-Length : 4", body=b"body"),
    "coding with a space before the colon": post(b"Transfer-Encoding : chunked", CL, body=CHUNKS),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked", body=CHUNKS),
    "folded header": post(b"x: y\r\n z", CL, body=b"body"),
    "coding in quotes": post(b'Transfer-Encoding: "chunked"', body=CHUNKS),
    "coding twice": post(TE, TE, body=CHUNKS),
    "coding twice on a line": post(b"Transfer-Encoding: chunked, chunked", body=CHUNKS),
    "coding not last": post(b"Transfer-Encoding: chunked, gzip", body=CHUNKS),
    "coding with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=CHUNKS),
    "coding with a comma before": post(b"Transfer-Encoding: , chunked", body=CHUNKS),
    "coding with a parameter": post(b"Transfer-Encoding: chunked;x=y", body=CHUNKS),
    "coding in HTTP/1.0": b"POST /inference HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "bare LF after a header": b"POST /inference HTTP/1.1\r\nhost: test\nContent-Length: 4\r\n\r\nbody",
    "bare LF everywhere": b"POST /inference HTTP/1.1\nhost: test\nContent-Length: 4\n\nbody",
    "bare CR in a value": post(b"x: y\rContent-Length: 4", body=b"body"),
    "NUL in a value": post(b"x: \0", CL, body=b"body"),
    "NUL in a name": post(b"Content-Length\0: 4", body=b"body"),
    "no host": b"POST /inference HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
    "two hosts": post(b"Host: other", CL, body=b"body"),
    "a list of hosts": b"POST /inference HTTP/1.1\r\nhost: a, b\r\nContent-Length: 4\r\n\r\nbody",
    "host with a path": b"POST /inference HTTP/1.1\r\nhost: a/b\r\nContent-Length: 4\r\n\r\nbody",
    "header without a colon": post(b"Content-Length 4", body=b"body"),
    "header without a name": post(b": 4", body=b"body"),
    "two spaces in the request line": b"POST  /inference HTTP/1.1\r\nhost: a\r\nContent-Length: 4\r\n\r\nbody",
    "tab in the request line": b"POST\t/inference HTTP/1.1\r\nhost: a\r\nContent-Length: 4\r\n\r\nbody",
    "space in the target": b"POST /inference x HTTP/1.1\r\nhost: a\r\nContent-Length: 4\r\n\r\nbody",
    "version with junk": b"POST /inference HTTP/1.1x\r\nhost: a\r\nContent-Length: 4\r\n\r\nbody",
    "chunk size with junk": chunked(end=b"4x\r\nbody\r\n0\r\n\r\n"),
    "chunk size that overflows": chunked(end=b"10000000000000004\r\nbody\r\n0\r\n\r\n"),
    "chunk with a bare LF": chunked(end=b"4\nbody\r\n0\r\n\r\n"),
    "chunk longer than it says": chunked(end=b"3\r\nbody\r\n0\r\n\r\n"),
    "chunk shorter than it says": chunked(end=b"5\r\nbody\r\n0\r\n\r\n"),
    "chunk extension with a bare LF": chunked(end=b"4;x\nbody\r\n0\r\n\r\n"),
    "trailer with a bare LF": chunked(b"body", end=b"0\r\nx: y\n\r\n"),
    "end with a bare LF": chunked(b"body", end=b"0\r\n\n"),
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_smuggling(engine: Engine, name: str) -> None:
    only_refusal(engine, SMUGGLING[name] + HIDDEN, 400, 501)


# Refusals of size were made for other limits than core's.
@pytest.mark.parametrize("name", [name for name, (status, _) in REFUSED.items() if status not in (-414, -431)])
def test_each_refused_head_on_a_socket(engine: Engine, name: str) -> None:
    status, raw = REFUSED[name]
    only_refusal(engine, raw, -status)


def test_the_verdict_does_not_depend_on_the_split(engine: Engine) -> None:
    SEEN.clear()
    for name in ("length and coding", "bare LF after a header", "chunk longer than it says", "two hosts"):
        raw = SMUGGLING[name] + HIDDEN
        clients = [Client(engine) for _ in range(1, len(raw))]
        for at, client in enumerate(clients, 1):
            client.send(raw[:at])
        barrier(engine)
        for at, client in enumerate(clients, 1):
            client.send(raw[at:])
        for client in clients:
            with client:
                assert client.answer().status == 400
                assert client.ended()
    assert SEEN == []


def test_bodies_of_refused_requests_are_not_requests(engine: Engine) -> None:
    SEEN.clear()
    with Client(engine) as client:
        for path in ("/nowhere", "/", "/metrics"):
            assert client.ask(request(HIDDEN, path)).status in (404, 405)
        assert client.post(b"honest").body == b"honest"
        assert client.ask(request(HIDDEN * 2000, "/nowhere")).closes  # too long to be waited for
    assert SEEN == [b"honest"]


def test_tls(engine: Engine) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with engine.connect() as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw)
    with engine.connect() as client:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing).do_handshake()
        client.sendall(outgoing.read())
        answer = receive_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"\0",
        b"\x80\x2e\x01\x00\x02",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"EHLO test\r\n",
        b"\xff" * 100,
    ],
)
def test_other_protocols(engine: Engine, raw: bytes) -> None:
    only_refusal(engine, raw, 400)


def test_garbage(engine: Engine) -> None:
    generator = random.Random(400)
    for _ in range(50):
        only_refusal(engine, b"\1" + generator.randbytes(generator.randrange(200_000)), 400)


def test_garbage_after_a_request(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"a") + b"\x16\x03\x01" * 20_000 + HIDDEN)
        assert client.answer().body == b"a"
        assert client.answer().status == 400
        assert client.ended()


def test_what_follows_close_is_not_read(engine: Engine) -> None:
    SEEN.clear()
    with Client(engine) as client:
        client.send(request(b"a", headers="connection: close\r\n") + HIDDEN + get())
        assert client.answer().body == b"a"
        assert client.ended()
    barrier(engine)
    assert SEEN == [b"a"]


def test_nothing_at_all(engine: Engine) -> None:
    for end in (socket.SHUT_WR, socket.SHUT_RDWR):
        with Client(engine) as client:
            client.socket.shutdown(end)
            assert client.ended()
