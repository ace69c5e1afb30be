"""Decoding as the annotation of `forward` asks for: by msgspec, and by pydantic where that has a part in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from mosec_cy._codecs import pydantic_types
from mosec_cy._codecs.forward_types import ParseTarget, forward_type
from mosec_cy.errors import MosecError, ValidationError

if TYPE_CHECKING:
    from mosec_cy.worker import BaseWorker

Decode = Callable[[Any], Any]

_PLAIN = (dict, list, str, int, float, bool, bytes, type(None))  # what decoding makes without being told
_WAY_OUT = (
    "annotate builtin types, dataclasses, TypedDicts, msgspec.Struct or models of pydantic, and make of them in "
    "`forward` what you need; or override `deserialize`"
)
_PLACE = re.compile(r" - at (`key` in )?`\$(.*)`$", re.DOTALL)  # what msgspec puts last


@dataclass(frozen=True)
class Format:
    """A format of typed requests.

    `decoder`: msgspec's class. `validate`: decodes a body with an adapter of pydantic. `malformed`: what is told of a
    body that is not of this format, and of the decoder's error.
    """

    name: str
    decoder: Callable[..., Any]
    validate: Callable[[Any, Any], Any]
    malformed: Callable[[Any, Exception], MosecError]

    def decode(self, worker: type[BaseWorker], batched: bool) -> Decode:
        """How a body is decoded as one item of the worker's `forward`.

        Raises:
            TypeError: there is no decoding what its annotation asks for.
        """
        item = forward_type(worker, ParseTarget.INPUT, batched)
        try:
            _check_mixture(item)
            read = self._reader(item)
        except (TypeError, NameError, AttributeError) as error:
            raise TypeError(
                f"{worker.__qualname__}.forward cannot be given {item!r}: {error}. For a typed worker, {_WAY_OUT}"
            ) from error

        def decode(body: Any) -> Any:
            try:
                return read(body)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:  # of older releases it is no ValueError
                raise self._refusal(body, error) from error

        return decode

    def _reader(self, item: Any) -> Decode:
        if pydantic_types.is_all_pydantic(item):
            adapter = pydantic_types.adapter(item)
            return lambda body: self.validate(adapter, body)
        adapters = {}
        for cls in _unknown(item):
            if not pydantic_types.has_pydantic(cls):
                raise TypeError(f"{self.name} is not decoded as {cls!r}")
            adapters[cls] = pydantic_types.adapter(cls)
        if not adapters:
            return self.decoder(item).decode
        # Models of pydantic within a Struct: msgspec decodes, and leaves these to pydantic.
        return self.decoder(item, dec_hook=lambda cls, value: adapters[cls].validate_python(value)).decode

    def _refusal(self, body: Any, error: Exception) -> MosecError:
        if pydantic_types.is_refusal(error):
            first: Any = error.errors()[0]  # type: ignore[attr-defined]
            if first["type"] == "json_invalid" and not first["loc"]:
                return self.malformed(body, ValueError(first["msg"]))
            return pydantic_types.refusal(error)
        if not isinstance(error, msgspec.ValidationError):
            return self.malformed(body, error)
        place = _PLACE.search(str(error))
        path = place[2] if place else ""
        if pydantic_types.is_refusal(error.__cause__):
            return pydantic_types.refusal(error.__cause__, path)
        if place and place[1]:
            return ValidationError(f"a key of {pydantic_types.misfit(path, str(error))}")
        return ValidationError(pydantic_types.misfit(path, str(error)))


def _check_mixture(item: Any) -> None:
    """A Struct is decoded by msgspec, which knows nothing of pydantic's constraints and dataclasses, and goes on."""
    if not pydantic_types.has_pydantic(item) or pydantic_types.is_all_pydantic(item):
        return
    for part in pydantic_types.parts(item):
        if pydantic_types.is_pydantic(part):
            if not isinstance(part, type):
                raise TypeError(f"{part!r} is of no effect beside a msgspec.Struct: write msgspec.Meta(...) instead")
            if is_dataclass(part):
                raise TypeError(f"{part!r} is not validated beside a msgspec.Struct: make it a BaseModel")


def _unknown(item: Any) -> Iterator[Any]:
    """The classes in an annotation that msgspec leaves to a hook, and that nothing decoded is an instance of."""
    waiting: list[Any] = [inspect.type_info(item)]
    seen: list[Any] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        elif isinstance(node, inspect.Type | inspect.Field) and not any(node is other for other in seen):
            seen.append(node)
            waiting += [getattr(node, name) for name in node.__struct_fields__]
            if isinstance(node, inspect.CustomType) and not _is_plain(node.cls):
                yield node.cls


def _is_plain(cls: Any) -> bool:
    try:
        return any(issubclass(plain, cls) for plain in _PLAIN)
    except TypeError:  # a protocol that cannot be asked
        return False
