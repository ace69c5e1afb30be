"""TypedMsgPackMixin and TypedJSONMixin on their own."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
import pytest

from mosec_cy import DecodingError, EncodingError, ValidationError, Worker
from mosec_cy._base import replica
from mosec_cy._codecs.annotations import ParseTarget
from mosec_cy.mixin import TypedJSONMixin, TypedMsgPackMixin
from mosec_cy.worker import check_first_stage

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
    ({"name": 1}, 'the field "name"'),
    ({}, "the body"),
    ({"name": "a", "at": [1, "x"]}, 'the field "at[1]"'),
    ({"name": "a", "weight": -1}, 'the field "weight"'),
    ([], "the body"),
]


@TYPED
@pytest.mark.parametrize(("body", "place"), WRONG)
def test_wrong_type_names_the_field(kind: Any, body: Any, place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made(kind).deserialize(FORMATS[kind].encode(body))
    said = str(caught.value.__cause__)
    assert said and str(caught.value) == f"{place} is not what the annotation asks for: {said}"


class Nested(TypedJSONMixin, Worker):
    def forward(self, data: dict[str, dict[int, list[Point]]]) -> None: ...


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"[]", "the body is"),
        (b'{"a": 1}', 'the field "[...]" is'),
        (b'{"a": {"b": []}}', 'a key of the field "[...]" is'),
        (b'{"a": {"1": [{}]}}', 'the field "[...][...][0]" is'),
        (b'{"a": {"1": [{"name": "a"}, {"name": null}]}}', 'the field "[...][...][1].name" is'),
    ],
)
def test_the_way_to_what_is_wrong(body: bytes, place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Nested().deserialize(body)
    assert str(caught.value).startswith(f"{place} not what the annotation asks for: ")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "the body ends before its MessagePack object does, after 0 bytes: "),
        (b"\xc1", "the body is not MessagePack that can be read: "),
        (b"\x81\xa4name", "the body ends before its MessagePack object does, after 6 bytes: "),
        (b"\x81\xa4name\xa1a\0", "the body goes on behind its MessagePack object, at byte 8: "),
    ],
)
def test_malformed_msgpack(body: bytes, fault: str) -> None:
    with pytest.raises(DecodingError) as caught:
        Packed().deserialize(body)
    assert str(caught.value) == fault + str(caught.value.__cause__)


def test_malformed_msgpack_within() -> None:
    with pytest.raises(DecodingError, match=r"^the body is not MessagePack that can be read(, at byte 7)?: "):
        Packed().deserialize(b"\x81\xa4name\xa1\xff")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "the body is not JSON, at byte 0, where it ends: "),
        (b"{", "the body is not JSON, at byte 1, where it ends: "),
        (b'{"name": NaN}', "the body is not JSON: "),
        (b'{"name": "a"}}', "the body is not JSON, at byte 13: "),
        (b'{"name": "\xff"}', "the body is not JSON, at byte 10: "),
    ],
)
def test_malformed_json(body: bytes, fault: str) -> None:
    with pytest.raises(DecodingError) as caught:
        Json().deserialize(body)
    assert str(caught.value) == fault + str(caught.value.__cause__)


class UntypedJson(TypedJSONMixin, Worker):
    def forward(self, data):  # type: ignore[no-untyped-def]
        return data


@pytest.mark.parametrize(("kind", "body"), [(Untyped, b"\x91"), (UntypedJson, b"[")])
def test_nested_too_deeply(kind: Any, body: bytes) -> None:
    with pytest.raises(DecodingError, match=r"^the body is nested too deeply$"):
        kind().deserialize(body * 100_000)


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


FORMAT_NAMES = {Packed: "MessagePack", Json: "JSON"}


@pytest.mark.parametrize("kind", FORMAT_NAMES)
@pytest.mark.parametrize(
    ("answer", "told"),
    [(object(), "cannot hold object: return dict"), ({"a": 1j}, r"cannot hold complex at \['a'\]: write \[x.real")],
)
def test_bad_answers(kind: Any, answer: Any, told: str) -> None:
    with pytest.raises(EncodingError, match=f"^{FORMAT_NAMES[kind]} {told}"):
        kind().serialize(answer)


@dataclasses.dataclass
class Image:
    pixels: list[np.ndarray]  # type: ignore[type-arg]


class Nameless(msgspec.Struct):
    inner: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


class Shape(Protocol):
    side: float


class HasItsOwn(Packed):
    def _decode(self) -> None: ...

    _decoder = _format = None


def test_names_of_the_program_are_its_own() -> None:
    assert HasItsOwn().deserialize(msgspec.msgpack.encode({"name": "a"})) == Point("a")


UNREADABLE = [np.ndarray, Image, Nameless, Shape, complex, Path, list[int] | tuple[int, ...], Callable[[int], int]]


@pytest.mark.parametrize("mixin", [TypedJSONMixin, TypedMsgPackMixin])
@pytest.mark.parametrize("annotation", UNREADABLE, ids=repr)
def test_an_annotation_that_cannot_be_read_is_an_error_before_any_request(mixin: Any, annotation: Any) -> None:
    class Model(mixin):
        def forward(self, data):  # type: ignore[no-untyped-def]
            return data

    Model.forward.__annotations__["data"] = annotation
    with pytest.raises(TypeError) as caught:
        check_first_stage(Model, False)
    told = str(caught.value)
    assert "Model.forward cannot be given " + repr(annotation) in told
    assert "annotate builtin types, dataclasses, TypedDicts, msgspec.Struct or models of pydantic" in told
    assert "or override `deserialize`" in told


@pytest.mark.parametrize(
    "annotation", [Any, object, Hashable, Iterable[int], Mapping[str, int], float | None], ids=repr
)
def test_what_decoded_values_are_instances_of_is_readable(annotation: Any) -> None:
    class Model(TypedJSONMixin, Worker):
        def forward(self, data):  # type: ignore[no-untyped-def]
            return data

    Model.forward.__annotations__["data"] = annotation
    check_first_stage(Model, False)


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
