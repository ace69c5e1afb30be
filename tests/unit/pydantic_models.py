"""Models of pydantic, and typed workers that take them."""

import dataclasses
import enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
import pydantic
from pydantic import BaseModel, Field
from pydantic import dataclasses as pydantic_dataclasses
from typing_extensions import TypedDict

from mosec_cy.worker import check_first_stage

T = TypeVar("T")


class Kind(enum.Enum):
    CAT = "cat"


class Item(BaseModel):
    x: float
    kind: Kind = Kind.CAT


class Order(BaseModel):
    items: list[Item]
    number: int = Field(1, ge=1, alias="no")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Page(BaseModel, Generic[T]):
    rows: list[T]


class Tags(pydantic.RootModel[list[str]]):
    pass


@pydantic_dataclasses.dataclass
class Point:
    x: int = pydantic.Field(gt=0)


@dataclasses.dataclass
class Holder:
    item: Item


class Row(TypedDict):
    item: Item


class Pair(NamedTuple):
    first: Item
    second: Item | None


class Envelope(msgspec.Struct):
    item: Item
    more: list[Item] = []


def typed(mixin: Any, annotation: Any, result: Any = None, batched: bool = False) -> Any:
    """A typed worker that is given what the annotation says."""

    class Model(mixin):
        def __init__(self) -> None:
            self.max_batch_size = 4 if batched else 1

        def forward(self, data):  # type: ignore[no-untyped-def]
            return data

    Model.forward.__annotations__.update({"data": annotation} | ({"return": result} if result else {}))
    check_first_stage(Model, batched)
    return Model
