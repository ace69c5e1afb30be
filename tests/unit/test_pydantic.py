"""Models of pydantic in typed workers: their requests are validated by pydantic itself."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import msgpack
import msgspec
import numpy as np
import pydantic
import pytest
from pydantic import BaseModel, Field

from mosec_cy import DecodingError, ValidationError
from mosec_cy.mixin import TypedJSONMixin, TypedMsgPackMixin
from tests.unit.pydantic_models import Cat, Dog, Envelope, Holder, Item, Order, Page, Pair, Pet, Point, Row, Tags, typed

MISFIT = "not what the annotation asks for: "

FORMATS: dict[Any, Callable[[Any], Any]] = {TypedJSONMixin: msgspec.json.encode, TypedMsgPackMixin: msgpack.packb}
EACH = pytest.mark.parametrize("mixin", FORMATS)

CAT = {"kind": "cat", "lives": 9}
GOOD: list[tuple[Any, Any, Any]] = [
    (Item, {"x": 1}, Item(x=1)),
    (Item, {"x": "1.5", "kind": "cat"}, Item(x=1.5)),  # as pydantic takes it
    (list[Item], [{"x": 1}, {"x": 2}], [Item(x=1), Item(x=2)]),
    (Item | None, None, None),
    (Item | int, 3, 3),
    (dict[str, Item], {"a": {"x": 1}}, {"a": Item(x=1)}),
    (tuple[Item, int], [{"x": 1}, 2], (Item(x=1), 2)),
    (Order, {"items": [{"x": 1}], "no": 2}, Order(items=[Item(x=1)], no=2)),
    (Pet, CAT, Cat(kind="cat", lives=9)),
    (list[Pet], [CAT, {"kind": "dog", "tricks": []}], [Cat(kind="cat", lives=9), Dog(kind="dog", tricks=[])]),
    (Page[Item], {"rows": [{"x": 1}]}, Page[Item](rows=[Item(x=1)])),
    (Tags, ["a"], Tags(["a"])),
    (Point, {"x": 1}, Point(1)),
    (list[Point], [{"x": 1}], [Point(1)]),
    (Holder, {"item": {"x": 1}}, Holder(Item(x=1))),
    (Row, {"item": {"x": 1}}, {"item": Item(x=1)}),
    (Pair, [{"x": 1}, None], Pair(Item(x=1), None)),
    (pydantic.PositiveInt, 3, 3),
    (dict[str, Annotated[int, Field(gt=0)]], {"a": 1}, {"a": 1}),
    (Envelope, {"item": {"x": 1}, "more": [{"x": 2}]}, Envelope(Item(x=1), [Item(x=2)])),
    (list[Envelope], [{"item": {"x": 1}}], [Envelope(Item(x=1))]),
]


@EACH
@pytest.mark.parametrize(("annotation", "body", "expected"), GOOD, ids=[repr(case[0]) for case in GOOD])
def test_requests(mixin: Any, annotation: Any, body: Any, expected: Any) -> None:
    encoded = FORMATS[mixin](body)
    for kind in (bytes, bytearray, memoryview):
        assert typed(mixin, annotation)().deserialize(kind(encoded)) == expected
    assert typed(mixin, list[annotation], batched=True)().deserialize(encoded) == expected


BAD: list[tuple[Any, Any, list[str]]] = [
    (Item, [], ["the body"]),
    (Item, {}, ['the field "x"']),
    (Item, {"x": "a", "kind": "cow"}, ['the field "x"', 'the field "kind"']),
    (list[Item], [{"x": 1}, {"x": None}], ['the field "[1].x"']),
    (dict[str, Item], {"a": {}}, ['the field "a.x"']),
    (Order, {"items": [{"x": 1}, {"x": "b"}], "no": 0}, ['the field "items[1].x"', 'the field "no"']),
    (Pet, {"kind": "cow"}, ["the body"]),
    (Pet, {"kind": "cat"}, ['the field "cat.lives"']),
    (Point, {"x": 0}, ['the field "x"']),
    (pydantic.PositiveInt, -1, ["the body"]),
    (dict[str, Annotated[int, Field(gt=0)]], {"a": 0}, ['the field "a"']),
    (Envelope, {"item": {}}, ['the field "item.x"']),
    (Envelope, {"item": {"x": 1}, "more": [{"x": 1}, {"x": "b"}]}, ['the field "more[1].x"']),
    (Envelope, {}, ["the body"]),
]


@EACH
@pytest.mark.parametrize(("annotation", "body", "places"), BAD, ids=[f"{case[0]!r}-{case[1]}" for case in BAD])
def test_refused_requests(mixin: Any, annotation: Any, body: Any, places: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        typed(mixin, annotation)().deserialize(FORMATS[mixin](body))
    text = str(caught.value)
    assert text.startswith(f"{places[0]} is {MISFIT}")
    assert all(f"; {place}: " in text for place in places[1:])
    assert "\n" not in text and "http" not in text


def test_errors_without_end_are_counted() -> None:
    with pytest.raises(ValidationError, match=r'the field "\[0\]\.x" is .*; the field "\[9\]\.x": .*; and 90 more$'):
        typed(TypedJSONMixin, list[Item])().deserialize(msgspec.json.encode([{}] * 100))


def test_malformed_bodies() -> None:
    with pytest.raises(DecodingError, match="^the body is not JSON, at byte 7, where it ends: "):
        typed(TypedJSONMixin, Item)().deserialize(b'{"x": 1')
    with pytest.raises(DecodingError, match="^the body is not JSON, at byte 6: "):
        typed(TypedJSONMixin, Item)().deserialize(b'{"x": y}')
    with pytest.raises(DecodingError, match="^the body is nested too deeply$"):
        typed(TypedJSONMixin, list[Item])().deserialize(b"[" * 100_000)
    with pytest.raises(DecodingError, match="^the body ends before its MessagePack object does, after 2 bytes: "):
        typed(TypedMsgPackMixin, Item)().deserialize(b"\x81\xa1")


def test_an_error_of_the_model_itself_is_told_to_the_client() -> None:
    class Even(BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def check(cls, n: int) -> int:
            if n % 2:
                raise ValueError("odd today")
            return n

    with pytest.raises(ValidationError, match=f'^the field "n" is {MISFIT}.*odd today'):
        typed(TypedJSONMixin, Even)().deserialize(b'{"n": 1}')


# ---- what cannot be served -------------------------------------------------------------------------


class Unfinished(BaseModel):
    other: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


class Limited(msgspec.Struct):
    n: pydantic.PositiveInt


class WithPoint(msgspec.Struct):
    point: Point | None


class WithArray(msgspec.Struct):
    item: Item
    array: np.ndarray  # type: ignore[type-arg]


@dataclasses.dataclass
class HoldsArray:
    item: Item
    array: np.ndarray  # type: ignore[type-arg]


@EACH
@pytest.mark.parametrize(
    "annotation", [Unfinished, list[Unfinished], Limited, WithPoint, WithArray, HoldsArray], ids=repr
)
def test_what_neither_can_read_is_an_error_before_any_request(mixin: Any, annotation: Any) -> None:
    with pytest.raises(TypeError) as caught:
        typed(mixin, annotation)
    assert f"Model.forward cannot be given {annotation!r}: " in str(caught.value)
    assert "override `deserialize`" in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # of pydantic on new Pythons
def test_models_of_pydantic_1_are_refused() -> None:
    old = pytest.importorskip("pydantic.v1", exc_type=Exception)

    class Old(old.BaseModel):  # type: ignore[misc,name-defined]
        x: int

    for annotation in (Old, list[Old], Old | None):
        with pytest.raises(TypeError, match="Old is a model of pydantic 1: derive it from the BaseModel of pydantic 2"):
            typed(TypedJSONMixin, annotation)
