"""TypedMsgPackMixin and TypedJSONMixin on their own."""

from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

from mosec_cy import DecodingError, EncodingError, ValidationError, Worker, replica
from mosec_cy.forward_types import ParseTarget
from mosec_cy.mixin import TypedJSONMixin, TypedMsgPackMixin

REF = "#/components/schemas/{name}"


class Point(msgspec.Struct):
    name: str
    at: tuple[float, float] = (0.0, 0.0)
    weight: Annotated[int, msgspec.Meta(ge=0)] = 1


class Result(msgspec.Struct):
    distance: float


class Packed(TypedMsgPackMixin, Worker):
    def forward(self, data: Point) -> Result:
        return Result(0.0)


class PackedBatch(TypedMsgPackMixin, Worker):
    def forward(self, data: list[Point]) -> list[Result]:
        return [Result(0.0)] * len(data)


class Json(TypedJSONMixin, Worker):
    def forward(self, data: Point) -> Result:
        return Result(0.0)


class JsonBatch(TypedJSONMixin, Worker):
    def forward(self, data: list[Point]) -> list[Result]:
        return [Result(0.0)] * len(data)


class Untyped(TypedMsgPackMixin, Worker):
    def forward(self, data):  # type: ignore[no-untyped-def]
        return data


FORMATS = {Packed: msgspec.msgpack, PackedBatch: msgspec.msgpack, Json: msgspec.json, JsonBatch: msgspec.json}
BATCH_SIZES = {Packed: 1, PackedBatch: 4, Json: 1, JsonBatch: 4}
TYPED = pytest.mark.parametrize("kind", FORMATS)


def made(kind: Any) -> Any:
    worker = kind()
    worker.max_batch_size = BATCH_SIZES[kind]
    return worker


@TYPED
def test_one_item_is_decoded_as_its_type(kind: Any) -> None:
    worker = made(kind)
    body = FORMATS[kind].encode({"name": "a", "at": [1, 2.5]})
    for bytes_like in (bytes, bytearray, memoryview):
        assert worker.deserialize(bytes_like(body)) == Point("a", (1.0, 2.5))


WRONG: list[tuple[Any, str]] = [
    ({"name": 1}, "Expected `str`, got `int` - at `$.name`"),
    ({}, "Object missing required field `name`"),
    ({"name": "a", "at": [1, "x"]}, "Expected `float`, got `str` - at `$.at[1]`"),
    ({"name": "a", "weight": -1}, "Expected `int` >= 0 - at `$.weight`"),
    ([], "Expected `object`, got `array`"),
]


@TYPED
@pytest.mark.parametrize(("body", "text"), WRONG)
def test_wrong_type_names_the_field(kind: Any, body: Any, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made(kind).deserialize(FORMATS[kind].encode(body))
    assert str(caught.value) == text


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa4name", b"\x81\xa4name\xa1a\0", b"\x81\xa4name\xa1\xff"])
def test_malformed_msgpack(body: bytes) -> None:
    with pytest.raises(DecodingError, match="truncated|malformed|utf-8"):
        Packed().deserialize(body)


@pytest.mark.parametrize("body", [b"", b"{", b'{"name": NaN}', b'{"name": "a"}}', b'{"name": "\xff"}'])
def test_malformed_json(body: bytes) -> None:
    with pytest.raises(DecodingError, match="truncated|malformed|utf-8"):
        Json().deserialize(body)


def test_nested_too_deeply() -> None:
    with pytest.raises(DecodingError, match="recursion|Stack overflow"):  # the latter in Python 3.14
        Untyped().deserialize(b"\x91" * 100_000)


def test_the_decoder_is_built_once() -> None:
    worker = Packed()
    assert worker._decode is worker._decode


def test_without_annotations_everything_is_let_through() -> None:
    assert Untyped().deserialize(msgspec.msgpack.encode([1, {"a": b"b"}])) == [1, {"a": b"b"}]


def test_annotation_that_does_not_fit_batches() -> None:
    class Wrong(TypedMsgPackMixin, Worker):
        def forward(self, data: Point) -> Result:
            return Result(0.0)

    worker = Wrong()
    worker.max_batch_size = 2
    with pytest.raises(TypeError, match="annotate it with list"):
        worker.deserialize(b"\x80")


def test_a_memoryview_field_is_not_copied() -> None:
    class Image(msgspec.Struct):
        pixels: memoryview

    class Takes(TypedMsgPackMixin, Worker):
        def forward(self, data: Image) -> None: ...

    body = bytearray(msgspec.msgpack.encode({"pixels": b"123"}))
    image = Takes().deserialize(body)
    body[-1] = ord("4")
    assert bytes(image.pixels) == b"124"


def test_answers() -> None:
    value = {"result": Result(0.5), "array": np.arange(2), "scalar": np.float32(1.5), "raw": b"\0"}
    plain = {"result": {"distance": 0.5}, "array": [0, 1], "scalar": 1.5, "raw": b"\0"}
    assert Packed.resp_mime_type == "application/msgpack"
    assert msgspec.msgpack.decode(Packed().serialize(value)) == plain
    assert Json.resp_mime_type == "application/json"
    assert msgspec.json.decode(Json().serialize(value)) == plain | {"raw": "AA=="}


@pytest.mark.parametrize("kind", [Packed, Json])
@pytest.mark.parametrize("answer", [object(), {"a": 1j}], ids=repr)
def test_bad_answers(kind: Any, answer: Any) -> None:
    with pytest.raises(EncodingError, match="object|complex"):
        kind().serialize(answer)


@TYPED
def test_schemas(kind: Any) -> None:
    with replica.described(BATCH_SIZES[kind]):
        described = {end: kind.get_forward_json_schema(end, REF) for end in ParseTarget}
    schema, components = described[ParseTarget.INPUT]
    assert schema == {"$ref": "#/components/schemas/Point"}
    assert set(components) == {"Point"}
    assert components["Point"]["required"] == ["name"]
    assert components["Point"]["properties"]["weight"] == {"type": "integer", "minimum": 0, "default": 1}
    schema, components = described[ParseTarget.RETURN]
    assert schema == {"$ref": "#/components/schemas/Result"}
    assert components["Result"]["properties"] == {"distance": {"type": "number"}}


def test_schema_without_annotations() -> None:
    assert Untyped.get_forward_json_schema(ParseTarget.INPUT, REF) == ({}, {})
