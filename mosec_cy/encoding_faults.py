"""What is told of a result that cannot be encoded: of which type the part is that cannot, where it is, what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from mosec_cy.errors import EncodingError
from mosec_cy.plain_values import GENERIC, NotPlain, plain

_TOO_DEEP = "it holds itself, or is nested too deeply"
_DEEPEST = 200  # steps into a result
_LONGEST_KEY = 60  # characters of it that are quoted


def encoding_error(result: Any, form: str, encode: Callable[[Any], object]) -> EncodingError:
    """The error of a result that `encode` has refused.

    Args:
        result: what `forward` returned.
        form: the name of the format.
        encode: the codec, which is asked again, of ever smaller parts.
    """
    part, path = result, ""
    for _ in range(_DEEPEST):
        inner = next(((step, child) for step, child in _children(part) if _fault(child, encode)), None)
        if inner is None:
            break
        path, part = path + inner[0], inner[1]
    else:
        return EncodingError(f"{form} cannot hold the result: {_TOO_DEEP}")
    place = f" at {path}" if path else ""
    key = _bad_key(part, encode)
    if key:
        return EncodingError(f"{form} cannot hold a dict{place} with a key of type {key}: write str(key)")
    return EncodingError(f"{form} cannot hold {_name(part)}{place}: {_way_out(part, _fault(part, encode))}")


def _way_out(part: Any, fault: Exception | None) -> str:
    if isinstance(part, int):
        return "it takes more than 64 bits: write str(x)"
    if isinstance(part, str):
        return "it has half of a surrogate pair, which UTF-8 cannot express: leave it out"
    if isinstance(fault, NotPlain):
        return str(fault)
    if isinstance(fault, RecursionError):
        return _TOO_DEEP
    return f"{GENERIC}. ({fault!r})"


def _fault(value: Any, encode: Callable[[Any], object]) -> Exception | None:
    try:
        encode(value)
    except Exception as error:  # whatever the object's own attributes raise
        return error
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, and how to write the way to it."""
    if isinstance(value, dict):
        yield from ((f"[{repr(key)[:_LONGEST_KEY]}]", child) for key, child in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{place}]", child) for place, child in zip(count(), value))
    elif value is None or isinstance(value, type | str | bytes | int | float):
        return
    elif names := _fields(value):
        yield from ((f".{name}", getattr(value, name, None)) for name in names)
    else:
        try:
            nearer = plain(value)
        except Exception:
            return
        yield "", nearer


def _fields(value: Any) -> tuple[str, ...]:
    """Names of the fields that codecs read by themselves."""
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    cls = type(value)  # an object may say that it has any attribute
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(attribute.name for attribute in cls.__attrs_attrs__)
    return tuple(getattr(cls, "__struct_fields__", ()))


def _bad_key(value: Any, encode: Callable[[Any], object]) -> str:
    """The type of the first key that cannot be encoded; "": it is no dict, or all can."""
    if not isinstance(value, Mapping):
        return ""
    return next((_name(key) for key in value if _fault({key: None}, encode)), "")


def _name(value: Any) -> str:
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"{name} of {value.dtype}" if hasattr(cls, "dtype") and getattr(value, "ndim", None) else name
