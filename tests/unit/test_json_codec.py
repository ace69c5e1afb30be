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

from mosec_cy._codecs.json_codec import decode, encode
from mosec_cy.errors import DecodingError, EncodingError


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


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"", "the body is not JSON, at byte 0, where it ends: "),
        (b"{", "the body is not JSON, at byte 1, where it ends: "),
        (b'{"x":}', "the body is not JSON, at byte 5: "),
        ('{"é": x}'.encode(), "the body is not JSON, at byte 7: "),
        ('{"é": x}'.encode("utf-16"), "the body is not JSON, at byte 14: "),
        (b'\xef\xbb\xbf{"x": y', "the body is not JSON, at byte 9: "),
        (b'"\xff"', "the body is not JSON, at byte 1: "),
        (b"{} {}", "the body is not JSON, at byte 3: "),
        (b"\x00", "the body is not JSON, at byte 0: "),
    ],
)
def test_says_where_a_document_is_not_json(document: bytes, fault: str) -> None:
    for kind in (bytes, bytearray, memoryview):
        with pytest.raises(DecodingError) as caught:
            decode(kind(document))
        assert str(caught.value) == fault + str(caught.value.__cause__)


def test_says_that_a_document_is_nested_too_deeply() -> None:
    with pytest.raises(DecodingError, match="^the body is nested too deeply$"):
        decode(b"[" * 100_000)


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
        ({None: 0, np.int64(1): 2, np.str_("a"): 3, Colour.RED: 4}, b'{"null":0,"1":2,"a":3,"red":4}'),
        ("\ud800", b'"\\ud800"'),
    ],
)
def test_encodes_what_only_the_standard_library_takes(value: object, document: bytes) -> None:
    assert encode(value) == document
    json.loads(document)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "object: return dict, "),
        ({(1, 2): 3}, "a dict with a key of type tuple: write str(key)"),
        ([{"a": {object(): 3}}], "a dict at [0]['a'] with a key of type object: write str(key)"),
        ({"x": [1, object()]}, "object at ['x'][1]: return dict, "),
        ({None: object()}, "object at [None]: return dict, "),
        (Point(1j), "complex at .x: write [x.real, x.imag]"),  # type: ignore[arg-type]
        ([Struct([Point(3), Point(range(2))])], "range at [0].y[1].x: return dict, "),  # type: ignore[arg-type]
    ],
)
def test_says_what_json_cannot_hold_and_where_it_is(value: object, told: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode(value)
    assert str(caught.value).startswith(f"JSON cannot hold {told}")


def test_refuses_a_cycle() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(EncodingError, match="^JSON cannot hold the result: it holds itself, or is nested too deeply$"):
        encode(cycle)
