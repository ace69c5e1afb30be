"""The requests of a soak: each carries an id, by which its answer is known."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from collections.abc import Callable, Collection

import msgpack

Check = Callable[[bytes], bool]


@dataclasses.dataclass(frozen=True)
class Request:
    """What to send, and what is right: `allowed` statuses, and with 200 a body that passes `check`.

    `fault`: "worker" if the request itself ends its worker. `first`: so many bytes of it are sent before the client
    waits for leave to send the rest (RFC 9110 section 10.1.1).
    """

    kind: str
    raw: bytes
    check: Check
    allowed: Collection[int] = (200,)
    fault: str = ""
    first: int = 0


def message(path: str, body: bytes, headers: str = "", *, chunked: bool = False) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: soak\r\n{headers}"
    if not chunked:
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    half = len(body) // 2
    parts = [part for part in (body[:half], body[half:]) if part]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


def as_json(expected: object) -> Check:
    return lambda body: json.loads(body) == expected


def echo(number: int, chance: random.Random) -> Request:
    value = {"id": number, "text": "x" * chance.randrange(2000)}
    raw = message("/echo", json.dumps(value).encode(), chunked=chance.random() < 0.2)
    return Request("echo", raw, as_json(value))


def pipeline(number: int, chance: random.Random) -> Request:
    body = json.dumps({"id": number}).encode()
    return Request("pipeline", message("/pipeline", body), as_json({"id": number, "sum": number * 6000}))


def raw(number: int, chance: random.Random) -> Request:
    size = 1 << chance.randrange(10, 24 if chance.random() < 0.05 else 18)  # to 8 MiB, mostly to 128 KiB
    unit = b"%012d" % number
    body = (unit * (size // len(unit) + 1))[:size]
    chunked = chance.random() < 0.2
    return Request("raw", message("/raw", body, chunked=chunked), lambda got: got == body)


def patient(number: int, chance: random.Random) -> Request:
    """Its body is sent when the service asks for it."""
    body = b"%012d" % number * chance.randrange(1, 100_000)  # to 1.2 MB
    whole = message("/raw", body, "expect: 100-continue\r\n")
    return Request("raw: patient", whole, lambda got: got == body, first=len(whole) - len(body))


def coded(number: int, chance: random.Random) -> Request:
    value = {"id": number, "text": "x" * chance.randrange(5000)}
    body = gzip.compress(json.dumps(value).encode(), 1)
    headers = "content-encoding: gzip\r\n" * (chance.random() < 0.5)
    if not headers:
        body = gzip.decompress(body)
    whole = message("/echo", body, f"{headers}accept-encoding: gzip, identity;q=0\r\n")
    return Request("echo: coded", whole, lambda got: json.loads(gzip.decompress(got)) == value)


def hurried(number: int, chance: random.Random) -> Request:
    """Its client does not wait for long."""
    headers = f"x-request-timeout-ms: {chance.choice([1, 5, 20, 100, 1000])}\r\n"
    raw = message("/pipeline", json.dumps({"id": number}).encode(), headers)
    return Request("pipeline: hurried", raw, as_json({"id": number, "sum": number * 6000}), (200, 408, 503))


def retried(number: int, chance: random.Random) -> Request:
    value = {"id": number, "text": "x" * chance.randrange(2000)}
    return Request("retried", message("/retried", json.dumps(value).encode()), as_json(value))


def packed(number: int, chance: random.Random) -> Request:
    value = {"id": number, "data": b"\0" * chance.randrange(500)}
    return Request("packed", message("/packed", msgpack.packb(value)), lambda got: msgpack.unpackb(got) == value)


def stream(number: int, chance: random.Random) -> Request:
    def check(body: bytes) -> bool:
        data = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
        # A stream that its worker's death cut is an error of its own, which names nobody else's number.
        return data == [f"{number}:{step}" for step in range(20)] or (
            b"event: error" in body and all(item.startswith(f"{number}:") for item in data[:-1])
        )

    return Request("stream", message("/stream", json.dumps({"id": number}).encode()), check)


def faulty(number: int, chance: random.Random) -> Request:
    do = chance.choices(["nothing", "raise", "hang", "exit"], [80, 15, 4, 1])[0]
    value = {"id": number, "do": do}
    # A worker that was asked to exit may take a batch-mate's or a successor's request with it: the fault says so.
    allowed = {"nothing": (200,), "raise": (500,), "hang": (408,), "exit": (500,)}[do]
    fault = "worker" if do == "exit" else ""
    return Request(f"faulty: {do}", message("/faulty", json.dumps(value).encode()), as_json(value), allowed, fault)


def bad(number: int, chance: random.Random) -> Request:
    def never(body: bytes) -> bool:
        return False

    choices = [
        (message("/echo", b"{%d" % number), (400,)),
        (message(f"/{number}", b"x"), (404,)),
        (b"POST /echo HTTP/1.1\r\nhost: soak\r\ncontent-length: x\r\n\r\n", (400,)),
        (b"\x16\x03\x01 \x00garbage\r\n\r\n", (400,)),
        (message("/echo", b"", "content-length: 5\r\n"), (400,)),
        (b"POST /echo HTTP/1.1\r\nhost: soak\r\ncontent-length: 99999999999\r\n\r\n", (413,)),
        (b"POST /echo HTTP/1.1\r\nhost: soak\r\ntransfer-encoding: rot13\r\n\r\n", (400, 501)),
    ]
    bytes_, allowed = chance.choice(choices)
    return Request("bad", bytes_, never, allowed)


def metrics(number: int, chance: random.Random) -> Request:
    return Request("metrics", b"GET /metrics HTTP/1.1\r\nhost: soak\r\n\r\n", lambda body: b"throughput" in body)


KINDS = [echo, pipeline, hurried, raw, patient, coded, retried, packed, stream, faulty, bad, metrics]
WEIGHTS = [350, 200, 60, 100, 40, 60, 60, 100, 60, 60, 40, 5]


def draw(number: int, chance: random.Random) -> Request:
    """The request of that number: any kind, by its weight."""
    return chance.choices(KINDS, WEIGHTS)[0](number, chance)
