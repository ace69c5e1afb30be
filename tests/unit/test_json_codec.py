"""JSON: fast where msgspec does it, and still right where it refuses."""

import dataclasses
import datetime
import enum
import json
import math
import uuid

import msgspec
import numpy as np
import pytest

from mosec_cy.errors import DecodingError, EncodingError
from mosec_cy.json_codec import decode, encode


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Struct(msgspec.Struct):
    y: int


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decodes_each_kind_of_buffer(kind: type) -> None:
    assert decode(kind(b'{"x": [1, 2.5, null, true, "\xc3\xa9"]}')) == {"x": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b"\xef\xbb\xbf{}", {}),
        ('{"a": 1}'.encode("utf-16"), {"a": 1}),
        (b"[Infinity, -Infinity]", [math.inf, -math.inf]),
        (b'"\\ud800"', "\ud800"),
        (b"1" + b"0" * 40, 10**40),
    ],
)
def test_decodes_what_the_standard_library_takes(document: bytes, value: object) -> None:
    assert decode(document) == value


def test_decodes_nan() -> None:
    assert math.isnan(decode(b"NaN"))


@pytest.mark.parametrize("document", [b"", b"{", b'{"x":}', b'"\xff"', b"[" * 100_000, b"{} {}", b"\x00"])
def test_refuses_what_is_not_json(document: bytes) -> None:
    with pytest.raises(DecodingError) as caught:
        decode(document)
    assert str(caught.value)


@pytest.mark.parametrize(
    ("value", "document"),
    [
        ({"x": 2}, b'{"x":2}'),
        ([1.5, None, True, "é"], '[1.5,null,true,"é"]'.encode()),
        (math.nan, b"null"),
        ([math.inf, -math.inf], b"[null,null]"),
        (np.arange(4, dtype=np.float32).reshape(2, 2), b"[[0.0,1.0],[2.0,3.0]]"),
        ([np.float32(1.5), np.int64(3), np.bool_(True), np.str_("a")], b'[1.5,3,true,"a"]'),
        (np.array([np.nan]), b"[null]"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), b'"2026-01-02T03:04:05"'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Point(1), b'{"x":1}'),
        (Struct(2), b'{"y":2}'),
        (Colour.RED, b'"red"'),
        ([Text("a"), Number(3), Real(0.5)], b'["a",3,0.5]'),
        ({Text("k"): 1, 2: 3}, b'{"k":1,"2":3}'),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_encodes(value: object, document: bytes) -> None:
    assert encode(value) == document


@pytest.mark.parametrize(
    ("value", "document"),
    [
        ({None: 1}, b'{"null":1}'),
        ({True: 1, False: 2}, b'{"true":1,"false":2}'),
        ({None: math.nan}, b'{"null":null}'),
        ({None: np.arange(2), True: Point(1)}, b'{"null":[0,1],"true":{"x":1}}'),
        ("\ud800", b'"\\ud800"'),
    ],
)
def test_encodes_what_only_the_standard_library_takes(value: object, document: bytes) -> None:
    assert encode(value) == document
    json.loads(document)


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, {"x": [object()]}, {None: object()}, 1j])
def test_refuses_what_json_cannot_hold(value: object) -> None:
    with pytest.raises(EncodingError) as caught:
        encode(value)
    assert str(caught.value)


def test_refuses_a_cycle() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(EncodingError):
        encode(cycle)
