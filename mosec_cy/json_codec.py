"""The default codec: JSON by msgspec, and by the standard library where msgspec is the stricter of the two."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mosec_cy.errors import DecodingError, EncodingError


def plain(obj: Any) -> Any:
    """What msgspec does not know: NumPy arrays and scalars (by `tolist`), subclasses of str, int and float."""
    tolist = getattr(obj, "tolist", None)
    if tolist is not None:
        return tolist()
    if isinstance(obj, str):
        return str.__str__(obj)
    if isinstance(obj, float):
        return float.__float__(obj)
    if isinstance(obj, int) and not isinstance(obj, bool):  # a bool comes here as a key; json writes it as "true"
        return int.__int__(obj)
    raise TypeError(f"Object of type {type(obj).__name__} is not JSON serializable")


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=plain).encode


def decode(data: bytes | bytearray | memoryview) -> Any:
    """Decode a JSON document; raises DecodingError, with the place of the fault, if it is none."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # of older releases it is no ValueError
        return _decode_leniently(data, error)


def encode(obj: Any) -> bytes:
    """Encode as compact JSON, NaN and infinities as null; raises EncodingError for what JSON cannot hold."""
    try:
        return _encode(obj)
    except Exception as error:  # whatever the object's own attributes raise
        return _encode_leniently(obj, error)


def _decode_leniently(data: bytes | bytearray | memoryview, first: Exception) -> Any:
    """The standard library takes NaN, Infinity, a byte order mark, UTF-16 and -32, and lone surrogates."""
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise DecodingError(str(first)) from first


def _encode_leniently(obj: Any, first: Exception) -> bytes:
    """The standard library takes None and bool as keys, and escapes lone surrogates."""
    try:
        try:
            text = _dumps(obj)
        except ValueError:  # NaN, which json can only refuse or misspell: read its spelling back as None
            text = _dumps(json.loads(json.dumps(obj, default=_builtins), parse_constant=lambda _: None))
    except Exception:
        raise EncodingError(str(first)) from first
    return text.encode("ascii")


def _dumps(obj: Any) -> str:
    return json.dumps(obj, default=_builtins, allow_nan=False, separators=(",", ":"))


def _builtins(obj: Any) -> Any:
    return msgspec.to_builtins(obj, enc_hook=plain)
