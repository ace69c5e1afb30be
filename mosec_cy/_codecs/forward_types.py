"""What the annotations of a worker's `forward` say of one item and of its result: types, and JSON Schemas (2020-12)."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mosec_cy._codecs import pydantic_types

if TYPE_CHECKING:
    from mosec_cy.worker import BaseWorker


Schema = dict[str, Any]


class ParseTarget(enum.Enum):
    """Which end of `forward` is meant."""

    INPUT = "INPUT"
    RETURN = "RETURN"


def forward_type(worker: type[BaseWorker], target: ParseTarget, batched: bool) -> Any:
    """The annotated type of one item (INPUT) or of its result (RETURN); Any where there is no annotation.

    Args:
        worker: the class; inherited annotations count.
        target: which end of `forward`.
        batched: `forward` takes and returns lists of items, whose element is meant: `list[Request]` gives `Request`.

    Raises:
        TypeError: an annotation names what cannot be found, or is no list although `forward` gets one.
    """
    try:
        hints = typing.get_type_hints(worker.forward, include_extras=True)
    except (NameError, AttributeError) as error:
        raise TypeError(
            f"the annotations of {worker.__qualname__}.forward cannot be read: {error}. "
            "What they name must be there when the program runs, not only under TYPE_CHECKING or in a function"
        ) from error
    annotation = hints.get(_name(worker, target), Any)
    return _element(worker, annotation) if batched else annotation


def _name(worker: type[BaseWorker], target: ParseTarget) -> str:
    if target is ParseTarget.RETURN:
        return "return"
    parameters = list(inspect.signature(worker.forward).parameters)
    return parameters[1] if len(parameters) > 1 else ""  # after self


def _element(worker: type[BaseWorker], annotation: Any) -> Any:
    if annotation is Any:
        return Any
    origin = typing.get_origin(annotation) or annotation
    if not (isinstance(origin, type) and issubclass(origin, Sequence)) or issubclass(origin, (str, bytes)):
        raise TypeError(
            f"{worker.__qualname__}.forward gets and returns lists when max_batch_size > 1: "
            f"annotate it with list[...], not {annotation!r}"
        )
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else Any


# ---- JSON Schemas ----------------------------------------------------------------------------------------

_MODES = {ParseTarget.INPUT: "validation", ParseTarget.RETURN: "serialization"}
_CODECS = {ParseTarget.INPUT: "deserialize", ParseTarget.RETURN: "serialize"}


def of_forward(
    worker: type[BaseWorker], target: ParseTarget, batched: bool, ref_template: str
) -> tuple[Schema, dict[str, Schema]]:
    """What the annotations of `forward` say of a body: a schema, and by name the components that it refers to.

    Raises:
        TypeError: an annotation cannot be read, or is no list although `forward` gets one.
    """
    if not codec_is_ours(worker, target):
        return {}, {}
    item = forward_type(worker, target, batched)
    mode = _MODES[target]
    if pydantic_types.is_all_pydantic(item):
        return pydantic_types.schemas(item, mode, ref_template)
    others: dict[str, Schema] = {}  # components of models of pydantic within a Struct

    def unknown(part: Any) -> Schema:
        """Of what msgspec does not know, such as an array, there is only the name; it would not take {}."""
        if not pydantic_types.has_pydantic(part):
            return {"title": getattr(part, "__name__", str(part))}
        schema, components = pydantic_types.schemas(part, mode, ref_template)
        others.update(components)
        return schema

    try:
        (schema,), components = msgspec.json.schema_components([item], schema_hook=unknown, ref_template=ref_template)
    except TypeError:  # a union of what it does not know and something else, for example
        return {}, {}
    return schema, components | others


def codec_is_ours(worker: type[BaseWorker], target: ParseTarget) -> bool:
    """A body is what `forward` takes or returns; an own `deserialize` or `serialize` may make it anything else."""
    home = getattr(getattr(worker, _CODECS[target]), "__module__", "")
    return home.partition(".")[0] == __name__.partition(".")[0]
