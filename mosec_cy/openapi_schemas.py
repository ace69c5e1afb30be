"""The schemas of a service's workers, gathered as the components of one OpenAPI document."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mosec_cy import json_codec, replica
from mosec_cy.forward_types import ParseTarget
from mosec_cy.json_schema import Schema
from mosec_cy.log import get_logger
from mosec_cy.runtime import Runtime

_PLACE = "#/components/schemas/"
_REF_TEMPLATE = _PLACE + "{name}"
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # OpenAPI 3.1.1, section 4.8.7.2


class Schemas:
    """Asks workers for their schemas; `components` is what these refer to, by name.

    Components of several workers may have one name: those that are equal are shared, others get a number.
    """

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._encoded: dict[str, bytes] = {}
        self._known: dict[tuple[int, ParseTarget, bool], Schema] = {}  # by id: not every class has a hash

    def of(self, runtime: Runtime, target: ParseTarget) -> Schema:
        """The schema of one item, or of its result. A worker that cannot say gets {}, and a line in the log."""
        key = (id(runtime.worker), target, runtime.max_batch_size > 1)
        if key not in self._known:
            try:
                self._known[key] = self._add(*_asked(runtime, target))
            except (Exception, SystemExit):  # from the user's own method
                get_logger().warning(
                    "no schema of what %s.forward %s: the OpenAPI description admits anything there",
                    runtime.worker.__name__,
                    "takes" if target is ParseTarget.INPUT else "returns",
                    exc_info=True,
                )
                self._known[key] = {}
        return self._known[key]

    def _add(self, schema: Schema, components: Mapping[str, Schema]) -> Schema:
        for number in itertools.count(1):
            ending = "" if number == 1 else f"_{number}"
            places = {_PLACE + name: _PLACE + name + ending for name in components}
            named = {name + ending: _moved(component, places) for name, component in components.items()}
            encoded = {name: json_codec.encode(component) for name, component in named.items()}
            if all(self._encoded.get(name, text) == text for name, text in encoded.items()):
                self.components.update(named)
                self._encoded.update(encoded)
                return _moved(schema, places)
        raise AssertionError("there is always a next number")


def _asked(runtime: Runtime, target: ParseTarget) -> tuple[Schema, dict[str, Schema]]:
    """What the worker says, checked: a broken description is of no use to any route."""
    with replica.described(runtime.max_batch_size):
        answer = runtime.worker.get_forward_json_schema(target, _REF_TEMPLATE)
    if not isinstance(answer, tuple) or [isinstance(part, dict) for part in answer] != [True, True]:
        raise TypeError(f"get_forward_json_schema must return (schema, components), two dicts, but returned {answer!r}")
    schema, components = answer
    for name, component in components.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(component, dict):
            raise TypeError(
                f"components must be dicts by names of letters, digits, '.', '_' and '-', not {name!r}: {component!r}"
            )
    json_codec.encode([schema, components])
    for reference in _references([schema, components]):
        if reference.removeprefix(_PLACE).partition("/")[0] not in components:
            raise ValueError(
                f"{reference!r} refers to none of the components: {', '.join(components) or 'there are none'}"
            )
    return schema, components


def _moved(value: Any, places: Mapping[str, str]) -> Any:
    """A copy in which references lead to new places. (msgspec also lists some of them by tag, as plain strings.)"""
    if isinstance(value, dict):
        return {key: _moved(item, places) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_PLACE):
            yield reference
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _references(item)
