"""JSON Schemas (2020-12) of what goes in and out of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mosec_cy import pydantic_types
from mosec_cy.forward_types import ParseTarget, forward_type

if TYPE_CHECKING:
    from mosec_cy.worker import BaseWorker

Schema = dict[str, Any]

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
