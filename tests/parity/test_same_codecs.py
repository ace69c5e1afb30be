"""Mixins of one program under Mosec and under mosec_cy: the same answers, but for what is listed as different."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from tests.parity.peer import Pair, running
from tests.redis_server import redis_server

pytest.importorskip("numbin", reason="needs the extra 'numbin'")
pytest.importorskip("redis", reason="needs the extra 'redis'")

PROGRAM = """
    import sys
    from typing import List

    import msgspec
    import numpy as np

    from PACKAGE import Server, ValidationError, Worker
    from PACKAGE.mixin import MsgpackMixin, NumBinIPCMixin, RedisShmIPCMixin, TypedMsgPackMixin

    class Request(msgspec.Struct):
        name: str
        data: bytes = b""
        count: int = 1

    class Packed(MsgpackMixin, Worker):
        def forward(self, data):
            return data if data != "object" else object()

    class After(Worker, MsgpackMixin):
        def forward(self, data):
            return data

    class Kinds(MsgpackMixin, Worker):
        def forward(self, data):
            return repr(data)  # the types tell

    class Typed(TypedMsgPackMixin, Worker):
        def forward(self, data: Request):
            return {"name": data.name * data.count, "data": data.data}

    class TypedBatch(TypedMsgPackMixin, Worker):
        def forward(self, data: List[Request]):
            return [item.name for item in data]

    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        name: str

    class TypedStrict(TypedMsgPackMixin, Worker):
        def forward(self, data: Strict):
            return data

    class Decode(NumBinIPCMixin, Worker):
        def forward(self, data):
            if data == "list":
                return [1]
            if data == "error":
                raise ValidationError("no array")
            return np.array(data["values"], data["type"])

    class Double(NumBinIPCMixin, Worker):
        def forward(self, data):
            return data * 2

    class Tell(NumBinIPCMixin, Worker):
        def forward(self, data):
            return [data.tolist(), str(data.dtype), list(data.shape)]

    class Put(RedisShmIPCMixin, Worker):
        def forward(self, data):
            if data == "error":
                raise ValidationError("not put")
            return {"array": np.arange(data), "tuple": (1, "é")}

    class Get(RedisShmIPCMixin, Worker):
        def forward(self, data):
            return [int(item["array"].sum()) for item in data]

    if __name__ == "__main__":
        RedisShmIPCMixin.set_redis_url(sys.argv[1])
        server = Server()
        server.append_worker(Packed, route="/packed")
        server.append_worker(After, route="/after")
        server.append_worker(Kinds, route="/kinds")
        server.append_worker(Typed, route="/typed")
        server.append_worker(TypedBatch, route="/typed-batch", max_batch_size=4, max_wait_time=1)
        server.append_worker(TypedStrict, route="/strict")
        for stage in (Decode, Double, Tell):
            server.append_worker(stage, route="/arrays")
        server.append_worker(Put, route="/redis")
        server.append_worker(Get, route="/redis", max_batch_size=2, max_wait_time=1)
        server.run()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url, running(PROGRAM, tmp_path_factory, url) as pair:
        yield pair


VALUES = [{"n": [1, 2.5, None], "raw": b"\0\xff"}, [1, 2], "\u00e9", 2**64 - 1, -(2**63), None, True, b"", {}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_msgpack(pair: Pair, value: Any) -> None:
    theirs, ours = pair.ask("POST", "/packed", content=msgpack.packb(value))
    assert ours == theirs
    assert (ours.status, msgpack.unpackb(ours.body)) == (200, value)


def test_a_mixin_after_worker(pair: Pair) -> None:
    theirs, ours = pair.ask("POST", "/after", content=b'{"a":[1]}')
    assert ours == theirs
    assert (ours.status, ours.body) == (200, {"a": [1]})


KINDS = [
    *(msgpack.packb(value) for value in VALUES),
    msgpack.packb([[1, [2]], {"a": [b"c", "d"]}, {b"k": []}]),
    msgpack.packb({"time": msgpack.Timestamp(1, 2), "other": msgpack.ExtType(5, b"a")}),
    b"\x81\x01\x02",
    b"\x81\x91\x01\x02",
]


@pytest.mark.parametrize("body", KINDS, ids=repr)
def test_types_of_decoded_msgpack(pair: Pair, body: bytes) -> None:
    """Arrays are tuples, texts are str, and keys are texts or bytes."""
    theirs, ours = pair.ask("POST", "/kinds", content=body)
    assert ours.status == theirs.status
    assert ours == theirs or ours.status == 400


REQUESTS = [
    {"name": "\u00e9", "data": b"\0\1", "count": 2},
    {"name": "a"},
    {"name": "a", "more": 1},
    {"name": 1},
    {"name": "a", "count": "2"},
    {},
    [1],
    None,
]


@pytest.mark.parametrize("path", ["/typed", "/typed-batch", "/strict"])
def test_typed_msgpack(pair: Pair, path: str) -> None:
    statuses = []
    for request in REQUESTS:
        theirs, ours = pair.ask("POST", path, content=msgpack.packb(request))
        if ours.status == 422:  # ours puts its own words before those of msgspec
            kind, _, said = theirs.body.partition(b": ")
            assert theirs.status == 422 and ours.body.startswith(kind + b": ") and ours.body.endswith(said)
        else:
            assert ours == theirs
        statuses.append(ours.status)
    assert set(statuses) == {200, 422}
    theirs, ours = pair.ask("POST", path)
    assert ours == theirs.with_type()


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint8", "int64", "bool"])
@pytest.mark.parametrize("values", [[[0, 1], [2, 3]], [], [[[1]]], 3], ids=repr)
def test_numbin(pair: Pair, kind: str, values: Any) -> None:
    theirs, ours = pair.ask("POST", "/arrays", json={"values": values, "type": kind})
    assert ours == theirs
    assert ours.status == 200


def test_numbin_stage_that_raises(pair: Pair) -> None:
    theirs, ours = pair.ask("POST", "/arrays", json="error")
    assert ours == theirs.with_type()
    assert ours.status == 422


def test_redis(pair: Pair) -> None:
    for body in (5, 5000, "error"):
        theirs, ours = pair.ask("POST", "/redis", json=body)
        assert ours == theirs.with_type()
        assert ours.status == (422 if body == "error" else 200)


# ---- on purpose different; both sides are stated ---------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xc1", b"the body is not MessagePack that can be read: "),
        (b"\xa2a", b"the body ends before its MessagePack object does, after 2 bytes: "),
        (b"\x01x", b"the body goes on behind its MessagePack object, at byte 1: "),
        (b"\xa2\xff\xff", b"the body is not MessagePack that can be read"),
        (b"\x81\x01\x02", b"the body is not MessagePack that can be read"),
        (msgpack.packb("object"), b"MessagePack cannot hold object: return dict, "),
    ],
)
def test_errors_say_more(pair: Pair, content: bytes, reason: bytes) -> None:
    theirs, ours = pair.ask("POST", "/packed", content=content)
    assert ours.status == theirs.status
    kind, _, text = ours.body.partition(b": ")
    assert theirs.body == kind + b": " + kind
    assert text.startswith(reason)


@pytest.mark.parametrize("content", [b"\xc1", b"\x81\xa4name\xa1"])
def test_typed_requests_that_are_malformed_differ(pair: Pair, content: bytes) -> None:
    """The client's fault, not the server's."""
    theirs, ours = pair.ask("POST", "/typed", content=content)
    assert (theirs.status, theirs.body) == (500, b"inference internal error")
    assert ours.status == 400 and ours.body.startswith(b"decoding error: ")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("list", b"not list"),
        *(({"values": [1], "type": kind}, b"numbers, not") for kind in ("datetime64[s]", "U3", "O")),
    ],
)
def test_numbin_errors_say_more(pair: Pair, body: Any, reason: bytes) -> None:
    theirs, ours = pair.ask("POST", "/arrays", json=body)
    assert (theirs.status, theirs.body) == (500, b"encoding error: encoding error")
    assert ours.status == 500 and ours.body.startswith(b"encoding error: ") and reason in ours.body
