"""Models of pydantic in answers, and in the OpenAPI description."""

import datetime
import uuid
from typing import Any

import msgpack
import msgspec
import numpy as np
import openapi_spec_validator
import pydantic
import pytest
from pydantic import BaseModel, Field

from mosec_cy import EncodingError, Runtime, Worker
from mosec_cy.mixin import MsgpackMixin, TypedJSONMixin, TypedMsgPackMixin
from tests.unit.descriptions import bodies, describe_runtimes
from tests.unit.pydantic_models import Envelope, Holder, Item, Order, Pet, Point, Tags, typed


class Everything(BaseModel):
    at: datetime.datetime
    id: uuid.UUID
    raw: bytes
    tags: set[str]
    secret: pydantic.SecretStr


EVERYTHING = Everything(
    at=datetime.datetime(2026, 1, 2),
    id=uuid.UUID(int=1),
    raw=b"\xff",
    tags={"a"},
    secret="s",  # type: ignore[arg-type]
)


class Loose(BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    array: Any
    tolist: int = 3


ANSWERS: list[tuple[Any, Any]] = [
    (Item(x=1), {"x": 1.0, "kind": "cat"}),
    ([Item(x=1)], [{"x": 1.0, "kind": "cat"}]),
    ({"a": (Item(x=1), np.arange(2))}, {"a": [{"x": 1.0, "kind": "cat"}, [0, 1]]}),
    (Order(items=[], no=2), {"items": [], "no": 2}),
    (Tags(["a"]), ["a"]),
    (Point(1), {"x": 1}),
    (Holder(Item(x=1)), {"item": {"x": 1.0, "kind": "cat"}}),
    (Envelope(Item(x=1)), {"item": {"x": 1.0, "kind": "cat"}, "more": []}),
    (Loose(array=np.arange(2)), {"array": [0, 1], "tolist": 3}),
    (Loose(array={"a": [Item(x=1), np.float32(2)]}), {"array": {"a": [{"x": 1.0, "kind": "cat"}, 2.0]}, "tolist": 3}),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS, ids=[repr(case[0]) for case in ANSWERS])
def test_answers(answer: Any, expected: Any) -> None:
    class Plain(Worker):
        def forward(self, data: Any) -> Any: ...

    class Packed(MsgpackMixin, Worker):
        def forward(self, data: Any) -> Any: ...

    assert msgspec.json.decode(Plain().serialize(answer)) == expected
    assert msgspec.json.decode(typed(TypedJSONMixin, Any)().serialize(answer)) == expected
    assert msgpack.unpackb(Packed().serialize(answer)) == expected
    assert msgpack.unpackb(typed(TypedMsgPackMixin, Any)().serialize(answer)) == expected


def test_values_of_a_model() -> None:
    text = {"at": "2026-01-02T00:00:00", "id": str(uuid.UUID(int=1)), "tags": ["a"], "secret": "**********"}
    json = msgspec.json.decode(typed(TypedJSONMixin, Any)().serialize(EVERYTHING))
    assert {name: value for name, value in json.items() if name != "raw"} == text
    assert msgpack.unpackb(typed(TypedMsgPackMixin, Any)().serialize(EVERYTHING)) == text | {"raw": b"\xff"}


@pytest.mark.parametrize("mixin", [TypedJSONMixin, TypedMsgPackMixin])
def test_what_a_model_holds_is_named_where_it_cannot_be_encoded(mixin: Any) -> None:
    with pytest.raises(EncodingError, match=r" cannot hold object at \['m'\]\['array'\]\[0\]: return dict"):
        typed(mixin, Any)().serialize({"m": Loose(array=[object()])})


# ---- the description -------------------------------------------------------------------------------


def described(annotation: Any, result: Any, batched: bool = False) -> tuple[Any, Any, Any]:
    size = 4 if batched else 1
    runtime = Runtime(typed(TypedJSONMixin, annotation, result, batched), max_batch_size=size, start_method="fork")
    description = describe_runtimes({"/a": [runtime]})
    openapi_spec_validator.validate(description)
    request, answer = bodies(description, "/a")
    (request,), (answer,) = request.values(), answer.values()
    return request["schema"], answer["schema"], description["components"]["schemas"]


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def test_models_are_components() -> None:
    request, answer, components = described(Order, list[Item])
    assert (request, answer) == (ref("Order"), {"type": "array", "items": ref("Item")})
    assert components["Order"]["properties"]["items"]["items"] == ref("Item")
    assert components["Order"]["properties"]["no"]["minimum"] == 1
    assert components["Order"]["required"] == ["items"]
    assert components["Item"]["required"] == ["x"]
    assert components["Kind"]["enum"] == ["cat"]


def test_a_batch_is_described_by_its_items() -> None:
    request, answer, components = described(list[Order], list[Tags], batched=True)
    assert (request, answer) == (ref("Order"), ref("Tags"))
    assert components["Tags"]["items"] == {"type": "string"}


def test_unions_and_what_is_no_model() -> None:
    request, answer, components = described(Pet, dict[str, pydantic.PositiveInt])
    assert request["oneOf"] == [ref("Cat"), ref("Dog")]
    assert request["discriminator"]["mapping"] == {"cat": ref("Cat")["$ref"], "dog": ref("Dog")["$ref"]}
    assert answer["additionalProperties"] == {"type": "integer", "exclusiveMinimum": 0}
    assert set(components) == {"Cat", "Dog"}


def test_models_within_a_struct() -> None:
    request, answer, components = described(Envelope, Item | None)
    assert request == ref("Envelope")
    assert components["Envelope"]["properties"]["item"] == ref("Item")
    assert components["Item"]["properties"]["x"]["type"] == "number"
    assert {part.get("$ref", part.get("type")) for part in answer["anyOf"]} == {"null", ref("Item")["$ref"]}


def test_answers_are_described_as_they_are_sent() -> None:
    class Answer(BaseModel):
        inner: int = Field(alias="outer")

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return 2 * self.inner

    _, answer, components = described(Any, Answer)
    assert answer == ref("Answer")
    assert set(components["Answer"]["properties"]) == {"outer", "twice"}
    assert msgspec.json.decode(typed(TypedJSONMixin, Any)().serialize(Answer(outer=1))) == {"outer": 1, "twice": 2}
