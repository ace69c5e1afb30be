"""What the annotations of a worker's `forward` say: types of one item and of its result, their JSON Schemas, and how a
body is decoded as such a type; by msgspec, and by pydantic where that has a part in it.

Only the program imports pydantic: without that, nothing here does.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect as kinds

from mosec_cy.errors import MosecError, ValidationError

if TYPE_CHECKING:
    from mosec_cy.worker import BaseWorker

Schema = dict[str, Any]
Decode = Callable[[Any], Any]


class ParseTarget(enum.Enum):
    """Which end of `forward` is meant."""

    INPUT = "INPUT"
    RETURN = "RETURN"


# Which method takes an item and no batch, by the `forward` that a class has in its place.
_takes_items: dict[Callable[..., Any], str] = {}


def takes_items_by(name: str, forward: Callable[..., Any]) -> None:
    """Classes whose `forward` is this function get their items by the method `name`, one by one."""
    _takes_items[forward] = name


def forward_type(worker: type[BaseWorker], target: ParseTarget, batched: bool) -> Any:
    """The annotated type of one item (INPUT) or of its result (RETURN); Any where there is no annotation.

    Args:
        worker: the class; inherited annotations count.
        target: which end of `forward`.
        batched: `forward` takes and returns lists of items, whose element is meant: `list[Request]` gives `Request`.
            (Of a `StepWorker` the input is what `start` takes, one item in any case, and there is no result's type.)

    Raises:
        TypeError: an annotation names what cannot be found, or is no list although `forward` gets one.
    """
    takes_items = _takes_items.get(worker.forward) if isinstance(worker.forward, FunctionType) else None
    if takes_items:
        if target is ParseTarget.RETURN:  # no method returns it alone
            return Any
        return _hints(worker, takes_items).get(_first(worker, takes_items), Any)
    name = "return" if target is ParseTarget.RETURN else _first(worker, "forward")
    annotation = _hints(worker, "forward").get(name, Any)
    return _element(worker, annotation) if batched else annotation


def _hints(worker: type[BaseWorker], method: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(getattr(worker, method), include_extras=True)
    except (NameError, AttributeError) as error:
        raise TypeError(
            f"the annotations of {worker.__qualname__}.{method} cannot be read: {error}. "
            "What they name must be there when the program runs, not only under TYPE_CHECKING or in a function"
        ) from error


def _first(worker: type[BaseWorker], method: str) -> str:
    parameters = list(inspect.signature(getattr(worker, method)).parameters)
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


# ---- JSON Schemas --------------------------------------------------------------------------------------

_MODES = {ParseTarget.INPUT: "validation", ParseTarget.RETURN: "serialization"}
_CODECS = {ParseTarget.INPUT: "deserialize", ParseTarget.RETURN: "serialize"}


def forward_schema(
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
    if _is_all_pydantic(item):
        return _pydantic_schemas(item, mode, ref_template)
    others: dict[str, Schema] = {}  # components of models of pydantic within a Struct

    def unknown(part: Any) -> Schema:
        """Of what msgspec does not know, such as an array, there is only the name; it would not take {}."""
        if not _has_pydantic(part):
            return {"title": getattr(part, "__name__", str(part))}
        schema, components = _pydantic_schemas(part, mode, ref_template)
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


# ---- decoding ------------------------------------------------------------------------------------------

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
        if _is_all_pydantic(item):
            adapter = _pydantic_adapter(item)
            return lambda body: self.validate(adapter, body)
        adapters = {}
        for cls in _unknown(item):
            if not _has_pydantic(cls):
                raise TypeError(f"{self.name} is not decoded as {cls!r}")
            adapters[cls] = _pydantic_adapter(cls)
        if not adapters:
            return self.decoder(item).decode
        # Models of pydantic within a Struct: msgspec decodes, and leaves these to pydantic.
        return self.decoder(item, dec_hook=lambda cls, value: adapters[cls].validate_python(value)).decode

    def _refusal(self, body: Any, error: Exception) -> MosecError:
        if _is_pydantic_refusal(error):
            first: Any = error.errors()[0]  # type: ignore[attr-defined]
            if first["type"] == "json_invalid" and not first["loc"]:
                return self.malformed(body, ValueError(first["msg"]))
            return _refusal_of_pydantic(error)
        if not isinstance(error, msgspec.ValidationError):
            return self.malformed(body, error)
        place = _PLACE.search(str(error))
        path = place[2] if place else ""
        if _is_pydantic_refusal(error.__cause__):
            return _refusal_of_pydantic(error.__cause__, path)
        if place and place[1]:
            return ValidationError(f"a key of {_misfit(path, str(error))}")
        return ValidationError(_misfit(path, str(error)))


def _check_mixture(item: Any) -> None:
    """A Struct is decoded by msgspec, which knows nothing of pydantic's constraints and dataclasses, and goes on."""
    if not _has_pydantic(item) or _is_all_pydantic(item):
        return
    for part in _parts(item):
        if _is_pydantic(part):
            if not isinstance(part, type):
                raise TypeError(f"{part!r} is of no effect beside a msgspec.Struct: write msgspec.Meta(...) instead")
            if is_dataclass(part):
                raise TypeError(f"{part!r} is not validated beside a msgspec.Struct: make it a BaseModel")


def _unknown(item: Any) -> Iterator[Any]:
    """The classes in an annotation that msgspec leaves to a hook, and that nothing decoded is an instance of."""
    waiting: list[Any] = [kinds.type_info(item)]
    seen: list[Any] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        elif isinstance(node, kinds.Type | kinds.Field) and not any(node is other for other in seen):
            seen.append(node)
            waiting += [getattr(node, name) for name in node.__struct_fields__]
            if isinstance(node, kinds.CustomType) and not _is_plain(node.cls):
                yield node.cls


def _is_plain(cls: Any) -> bool:
    try:
        return any(issubclass(plain, cls) for plain in _PLAIN)
    except TypeError:  # a protocol that cannot be asked
        return False


# ---- what is told of a body that is not of its type ----------------------------------------------------

_MOST_TOLD = 10  # errors of one request


def _is_pydantic_refusal(error: object) -> bool:
    """Whether it is pydantic's ValidationError."""
    return _package(type(error)) == "pydantic_core" and hasattr(error, "errors")


def _refusal_of_pydantic(error: Any, path: str = "") -> ValidationError:
    """What is told of pydantic's ValidationError: each field that is wrong, and behind that what pydantic says.

    Args:
        error: the error.
        path: where in the body the value lies that was validated.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    (first, text), *others = [(path + _path(fault["loc"]), fault["msg"]) for fault in found[:_MOST_TOLD]]
    told = "".join(f"; {_field(place)}: {said}" for place, said in others)
    more = f"; and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return ValidationError(f"{_misfit(first, text)}{told}{more}")


def _misfit(path: str, said: str) -> str:
    """The sentence for one field that is wrong: where it is, and what the validating library says."""
    return f"{_field(path)} is not what the annotation asks for: {said}"


def _field(path: str) -> str:
    """What the place in a body is called, such as `items[0].x`; "" is the body itself."""
    name = path.removeprefix(".")
    return f'the field "{name}"' if name else "the body"


def _path(loc: Sequence[Any]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)


# ---- pydantic's part -----------------------------------------------------------------------------------


def _has_pydantic(annotation: Any) -> bool:
    """Whether it is, or somewhere within it has, a model, a type or a constraint of pydantic."""
    return "pydantic" in sys.modules and any(map(_is_pydantic, _parts(annotation)))


def _is_all_pydantic(annotation: Any) -> bool:
    """Whether it has pydantic in it and is left to pydantic: what holds a msgspec.Struct is not, as it refuses that."""
    structs = (isinstance(part, type) and issubclass(part, msgspec.Struct) for part in _parts(annotation))
    return _has_pydantic(annotation) and not any(structs)


def _is_pydantic(part: Any) -> bool:
    """Whether a class, or the metadata of an Annotated, says something to pydantic that other codecs do not read."""
    cls = part if isinstance(part, type) else type(part)
    return (
        hasattr(cls, "__get_pydantic_core_schema__")
        or hasattr(cls, "__pydantic_core_schema__")  # its dataclasses
        or any(_package(base) in ("pydantic", "pydantic_core", "annotated_types") for base in cls.__mro__)
    )


def _pydantic_adapter(annotation: Any) -> Any:
    """A `TypeAdapter`, which can be used at once.

    Raises:
        TypeError: pydantic cannot make one.
    """
    import pydantic

    for part in _parts(annotation):
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


def _pydantic_schemas(annotation: Any, mode: str, ref_template: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON Schema of an annotation, and by name the components that it refers to.

    Args:
        annotation: what pydantic can read.
        mode: "validation" (of what comes in) or "serialization" (of what goes out).
        ref_template: how to refer to a component, with `{name}` for its name.
    """
    from pydantic import TypeAdapter

    template = ref_template.format(name="{model}")
    made, rest = TypeAdapter.json_schemas([(0, mode, _pydantic_adapter(annotation))], ref_template=template)  # type: ignore[list-item]
    return next(iter(made.values())), rest.get("$defs", {})


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _is_of_version_1(cls: type, pydantic: Any) -> bool:
    if any(base.__module__.startswith("pydantic.v1.") for base in cls.__mro__):
        return True
    return bool(pydantic.VERSION.startswith("1.") and any(_package(base) == "pydantic" for base in cls.__mro__))


# ---- what an annotation is made of ---------------------------------------------------------------------


def _parts(annotation: Any) -> Iterator[Any]:
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
        return _field_types(part) if _has_fields(part) and not _is_pydantic(part) else []
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
