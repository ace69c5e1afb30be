"""MsgpackMixin on its own."""

from typing import Any

import msgpack
import numpy as np
import pytest

from mosec_cy import DecodingError, EncodingError, Worker
from mosec_cy.mixin import MsgpackMixin


class Echo(MsgpackMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


VALUES = [None, True, -1, 2**64 - 1, 1.5, "é", b"\0\xff", [], [1, [2]], {"a": {"b": b"c"}}, {b"k": 1}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_there_and_back(value: Any) -> None:
    worker = Echo()
    assert msgpack.unpackb(worker.serialize(value)) == value
    for kind in (bytes, bytearray, memoryview):
        assert worker.deserialize(kind(msgpack.packb(value))) == value


def test_content_type() -> None:
    assert Echo.resp_mime_type == "application/msgpack"


def test_numpy_in_answers() -> None:
    answer = Echo().serialize({"array": np.arange(4).reshape(2, 2), "scalar": np.float32(0.5), "count": np.int64(3)})
    assert msgpack.unpackb(answer) == {"array": [[0, 1], [2, 3]], "scalar": 0.5, "count": 3}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "incomplete"),
        (b"\xc1", "invalid MessagePack"),  # the one code that means nothing
        (b"\x93\x01", "exceeds"),
        (b"\x01\x02", "extra data"),
        (b"\xa1\xff", "utf-8"),
        (b"\x81\x01\x02", "int is not allowed for map key"),
        (b"\x81\x91\x01\x02", "list is not allowed for map key"),
        (b"\xdd\xff\xff\xff\xff", "exceeds"),
        (b"\x91" * 5000, "invalid MessagePack"),
    ],
)
def test_bad_requests(body: bytes, text: str) -> None:
    with pytest.raises(DecodingError, match=f"(?i){text}"):
        Echo().deserialize(body)


class Lying:
    def tolist(self) -> Any:
        raise RuntimeError("no list today")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (2**64, "out of range"),
        ("\ud800", "surrogates"),
        (Lying(), "no list today"),
        ([None] * 3 + [1j], "complex"),
    ],
)
def test_bad_answers(answer: Any, text: str) -> None:
    with pytest.raises(EncodingError, match=text):
        Echo().serialize(answer)


def test_answer_that_holds_itself() -> None:
    answer: list[Any] = []
    answer.append(answer)
    with pytest.raises(EncodingError):
        Echo().serialize(answer)
