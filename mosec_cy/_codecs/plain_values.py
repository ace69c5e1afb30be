"""Values that codecs do not know: made of builtin types that they do, or told why they cannot be encoded.

The packages that such values come from are looked for among those that the program has imported, and never imported.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any

from mosec_cy.errors import EncodingError

BUILTIN = "dict, list, tuple, str, bytes, int, float, bool or None"
GENERIC = f"return {BUILTIN}, arrays, dataclasses or msgspec.Struct, or override `serialize`"
_SECONDS = {  # of the units of numpy.timedelta64
    "W": Decimal(604800),
    "D": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
} | {unit: Decimal(1).scaleb(-3 * power) for power, unit in enumerate(("ms", "us", "ns", "ps", "fs", "as"), 1)}
_TOO_DEEP = "it holds itself, or is nested too deeply"
_DEEPEST = 200  # steps into a result
_LONGEST_KEY = 60  # characters of it that are quoted


class NotPlain(TypeError):
    """There is no such value of builtin types; the text says what to write instead."""


def plain(obj: Any, dump_mode: str = "json") -> Any:
    """A value of builtin types, or one that is a step nearer to them: its elements may need the same again.

    Args:
        obj: what a codec does not know.
        dump_mode: "json": models of pydantic are dumped as for JSON; "python": bytes and times stay as they are.

    Raises:
        NotPlain: there is none.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(obj, (numpy.ndarray, numpy.generic)):
        return _of_numpy(obj)
    cls = type(obj)
    if hasattr(cls, "__pydantic_serializer__") and hasattr(cls, "model_dump"):
        return _of_model(obj, dump_mode)
    if cls.__module__.partition(".")[0] in ("pydantic", "pydantic_core") and "pydantic_core" in sys.modules:
        return sys.modules["pydantic_core"].to_jsonable_python(obj)  # its addresses, secrets and the like
    if _is(obj, "pandas", "DataFrame") or (cls.__module__.partition(".")[0] == "pandas" and "pandas" in sys.modules):
        return _of_pandas(obj)
    if hasattr(cls, "tolist"):  # tensors, and arrays of others
        return _listed(obj, obj.tolist())
    if isinstance(obj, str):
        return str.__str__(obj)
    if isinstance(obj, float):
        return float.__float__(obj)
    if isinstance(obj, int) and not isinstance(obj, bool):  # a bool comes here as a key; json writes it as "true"
        return int.__int__(obj)
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, Mapping):
        return dict(obj)
    if isinstance(obj, complex):
        raise NotPlain("write [x.real, x.imag]")
    raise NotPlain(GENERIC)


plain_but_bytes = partial(plain, dump_mode="python")
"""The same for a format that has bytes."""


def _is(obj: Any, package: str, name: str) -> bool:
    """Whether it is an instance of a package's class; nothing is of a package that was not imported."""
    return isinstance(obj, getattr(sys.modules.get(package), name, ()))


def _listed(obj: Any, value: Any) -> Any:
    if type(value) is type(obj):
        raise NotPlain(GENERIC)
    return value


# ---- NumPy ------------------------------------------------------------------------------------------


def _of_numpy(obj: Any) -> Any:
    """Of an array or a scalar: also those whose `tolist` leaves out what they say, or says nothing new."""
    kind = obj.dtype.kind
    if kind in "fiub":
        value = obj.tolist()
        # Python has no type for longdouble; readers have nothing wider than float.
        return float(value) if type(value) is type(obj) else value
    if kind == "M":
        return _times(obj)
    if kind == "m":
        return _durations(obj)
    if kind == "c":
        raise NotPlain("write [x.real, x.imag], for an array numpy.stack([x.real, x.imag], -1)")
    if obj.dtype.names is not None:  # records
        if obj.ndim:
            return list(obj)
        return {name: obj[name] for name in obj.dtype.names}
    return obj.tolist()


def _times(array: Any) -> Any:
    """ISO 8601 as precise as the array, in which NaT is None."""
    import numpy as np

    if hasattr(array, "filled"):
        array = array.filled(np.datetime64("NaT"))
    if np.datetime_data(array.dtype)[0] in ("h", "m"):  # few readers take a time without minutes or seconds
        array = array.astype("datetime64[s]")
    return _with_none(np.isnat(array), np.datetime_as_string(array))


def _durations(array: Any) -> Any:
    """ISO 8601, in which NaT is None; of a number without a unit, itself."""
    import numpy as np

    if hasattr(array, "filled"):
        array = array.filled(np.timedelta64("NaT"))
    unit, step = np.datetime_data(array.dtype)
    texts = np.frompyfunc(lambda number: _duration(int(number) * step, unit), 1, 1)(array.astype("int64"))
    return _with_none(np.isnat(array), texts)


def _with_none(missing: Any, texts: Any) -> Any:
    import numpy as np

    either: Any = np.where(missing, None, texts)
    return either.tolist()


def _duration(number: int, unit: str) -> Any:
    if unit == "generic":
        return number
    sign, number = ("-", -number) if number < 0 else ("", number)
    if unit in ("Y", "M"):
        return f"{sign}P{number}{unit}"
    days, seconds = divmod(number * _SECONDS[unit], 86400)
    day_text = f"{days:.0f}D" if days else ""
    return f"{sign}P{day_text}T{seconds.normalize():f}S" if seconds or not days else f"{sign}P{day_text}"


# ---- pydantic, pandas -------------------------------------------------------------------------------


def _of_model(model: Any, mode: str) -> Any:
    """As pydantic dumps it, by the names that clients know (aliases)."""
    try:
        return model.model_dump(mode=mode, by_alias=True)
    except Exception:
        if mode == "python":
            raise
        # It holds what pydantic does not know, such as an array: let the codec look at each field.
        return model.model_dump(by_alias=True)


def _of_pandas(obj: Any) -> Any:
    pandas = sys.modules["pandas"]
    if obj is pandas.NaT or obj is pandas.NA:
        return None
    if isinstance(obj, pandas.DataFrame):
        if not obj.columns.is_unique:
            raise NotPlain("its columns must have different names, since each row becomes a dict by column")
        return obj.to_dict("records")
    if isinstance(obj, pandas.Timestamp | pandas.Timedelta):
        return obj.isoformat()
    if isinstance(obj, pandas.Period):
        return str(obj)
    if hasattr(type(obj), "tolist"):  # Series, Index, and the arrays in them
        return _listed(obj, obj.tolist())
    raise NotPlain(GENERIC)


# ---- what cannot be encoded: of which type the part is that cannot, where it is, what to do --------------


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
