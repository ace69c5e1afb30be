"""Annotations that pydantic has a part in. Only the program imports pydantic: without that, nothing here does."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any

import msgspec

from mosec_cy.errors import ValidationError

_MOST_TOLD = 10  # errors of one request


def has_pydantic(annotation: Any) -> bool:
    """Whether it is, or somewhere within it has, a model, a type or a constraint of pydantic."""
    return "pydantic" in sys.modules and any(map(is_pydantic, parts(annotation)))


def is_all_pydantic(annotation: Any) -> bool:
    """Whether it has pydantic in it and is left to pydantic: what holds a msgspec.Struct is not, as it refuses that."""
    structs = (isinstance(part, type) and issubclass(part, msgspec.Struct) for part in parts(annotation))
    return has_pydantic(annotation) and not any(structs)


def is_pydantic(part: Any) -> bool:
    """Whether a class, or the metadata of an Annotated, says something to pydantic that other codecs do not read."""
    cls = part if isinstance(part, type) else type(part)
    return (
        hasattr(cls, "__get_pydantic_core_schema__")
        or hasattr(cls, "__pydantic_core_schema__")  # its dataclasses
        or any(_package(base) in ("pydantic", "pydantic_core", "annotated_types") for base in cls.__mro__)
    )


def adapter(annotation: Any) -> Any:
    """A `TypeAdapter`, which can be used at once.

    Raises:
        TypeError: pydantic cannot make one.
    """
    import pydantic

    for part in parts(annotation):
        if isinstance(part, type) and _is_of_version_1(part, pydantic):
            raise TypeError(f"{part.__qualname__} is a model of pydantic 1: derive it from the BaseModel of pydantic 2")
    try:
        made: Any = pydantic.TypeAdapter(annotation)
        made.validate_json(b"")  # what is not defined in full is noticed only now
    except pydantic.ValidationError:
        return made
    except Exception as error:
        raise TypeError(str(error).partition("\n")[0].rstrip(".")) from error
    return made


def schemas(annotation: Any, mode: str, ref_template: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON Schema of an annotation, and by name the components that it refers to.

    Args:
        annotation: what pydantic can read.
        mode: "validation" (of what comes in) or "serialization" (of what goes out).
        ref_template: how to refer to a component, with `{name}` for its name.
    """
    from pydantic import TypeAdapter

    template = ref_template.format(name="{model}")
    made, rest = TypeAdapter.json_schemas([(0, mode, adapter(annotation))], ref_template=template)  # type: ignore[list-item]
    return next(iter(made.values())), rest.get("$defs", {})


# ---- what is wrong with a request -------------------------------------------------------------------


def is_refusal(error: object) -> bool:
    """Whether it is pydantic's ValidationError."""
    return _package(type(error)) == "pydantic_core" and hasattr(error, "errors")


def refusal(error: Any, path: str = "") -> ValidationError:
    """What is told of pydantic's ValidationError: each field that is wrong, and behind that what pydantic says.

    Args:
        error: the error.
        path: where in the body the value lies that was validated.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    (first, text), *others = [(path + _path(fault["loc"]), fault["msg"]) for fault in found[:_MOST_TOLD]]
    told = "".join(f"; {field(place)}: {said}" for place, said in others)
    more = f"; and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return ValidationError(f"{misfit(first, text)}{told}{more}")


def misfit(path: str, said: str) -> str:
    """The sentence for one field that is wrong: where it is, and what the validating library says."""
    return f"{field(path)} is not what the annotation asks for: {said}"


def field(path: str) -> str:
    """What the place in a body is called, such as `items[0].x`; "" is the body itself."""
    name = path.removeprefix(".")
    return f'the field "{name}"' if name else "the body"


def _path(loc: Sequence[Any]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)


# ---- what an annotation is made of ------------------------------------------------------------------


def parts(annotation: Any) -> Iterator[Any]:
    """The annotation, what it is made of, and what the fields of its classes are annotated with.

    What is within pydantic's own classes is left to pydantic.
    """
    seen: dict[int, Any] = {}
    waiting = [annotation]
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            seen[id(part)] = part
            yield part
            waiting += _inner(part)


def _inner(part: Any) -> list[Any]:
    origin = typing.get_origin(part)
    if origin is typing.Annotated:
        return [part.__origin__, *part.__metadata__]
    if origin is typing.Literal:
        return []
    if origin is not None:
        return [origin, *typing.get_args(part)]
    if isinstance(part, list):  # parameters of a Callable
        return part
    if isinstance(part, typing.TypeVar):
        return [part.__bound__, *part.__constraints__]
    if isinstance(part, type):
        return _field_types(part) if _has_fields(part) and not is_pydantic(part) else []
    return [getattr(part, name) for name in ("__value__", "__supertype__") if hasattr(part, name)]  # named types


def _has_fields(cls: type) -> bool:
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    attributes = hasattr(cls, "__attrs_attrs__")
    return is_dataclass(cls) or issubclass(cls, msgspec.Struct) or typing.is_typeddict(cls) or named_tuple or attributes


def _field_types(cls: type) -> list[Any]:
    try:
        return list(typing.get_type_hints(cls, include_extras=True).values())
    except Exception:  # a name that leads nowhere: the codec says so
        return []


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _is_of_version_1(cls: type, pydantic: Any) -> bool:
    if any(base.__module__.startswith("pydantic.v1.") for base in cls.__mro__):
        return True
    return bool(pydantic.VERSION.startswith("1.") and any(_package(base) == "pydantic" for base in cls.__mro__))
