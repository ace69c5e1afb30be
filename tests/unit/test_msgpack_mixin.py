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


VALUES = [None, True, -1, 2**64 - 1, 1.5, "é", b"\0\xff", (), (1, (2,)), {"a": {"b": b"c"}}, {b"k": 1}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_there_and_back(value: Any) -> None:
    """Arrays are tuples."""
    worker = Echo()
    for kind in (bytes, bytearray, memoryview):
        assert worker.deserialize(kind(worker.serialize(value))) == value


def test_content_type() -> None:
    assert Echo.resp_mime_type == "application/msgpack"


def test_numpy_in_answers() -> None:
    answer = Echo().serialize({"array": np.arange(4).reshape(2, 2), "scalar": np.float32(0.5), "count": np.int64(3)})
    assert msgpack.unpackb(answer) == {"array": [[0, 1], [2, 3]], "scalar": 0.5, "count": 3}


UNREADABLE = "the body is not MessagePack that can be read"  # its reader says at which byte, in newer releases


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body ends before its MessagePack object does, after 0 bytes: "),
        (b"\xa5ab", "the body ends before its MessagePack object does, after 3 bytes: "),
        (b"\x01\x02", "the body goes on behind its MessagePack object, at byte 1: "),
        (b"\x92\x01\xc1", UNREADABLE),  # the one code that means nothing
        (b"\xa1\xff", UNREADABLE),
        (b"\x81\x01\x02", UNREADABLE),  # a number as a key
        (b"\xdd\xff\xff\xff\xff", UNREADABLE),  # longer than the body: no memory is taken for it
        (b"\x91" * 5000, "the body is nested too deeply"),
    ],
)
def test_bad_requests(body: bytes, text: str) -> None:
    for kind in (bytes, memoryview):
        with pytest.raises(DecodingError) as caught:
            Echo().deserialize(kind(body))
        assert str(caught.value).startswith(text)
        assert str(caught.value).endswith(str(caught.value.__cause__))


class Lying:
    def tolist(self) -> Any:
        raise RuntimeError("no list today")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (object(), "object: return dict, "),
        ([2**64], "int at [0]: it takes more than 64 bits: write str(x)"),
        ({"a": "\ud800"}, "str at ['a']: it has half of a surrogate pair"),
        ([None] * 3 + [1j], "complex at [3]: write [x.real, x.imag]"),
    ],
)
def test_bad_answers(answer: Any, text: str) -> None:
    with pytest.raises(EncodingError) as caught:
        Echo().serialize(answer)
    assert str(caught.value).startswith(f"MessagePack cannot hold {text}")


def test_an_answer_that_fails_by_itself() -> None:
    with pytest.raises(EncodingError, match=r"MessagePack cannot hold .*\.Lying: return dict.*no list today"):
        Echo().serialize(Lying())


def test_answer_that_holds_itself() -> None:
    answer: list[Any] = []
    answer.append(answer)
    with pytest.raises(EncodingError, match="it holds itself, or is nested too deeply"):
        Echo().serialize(answer)
