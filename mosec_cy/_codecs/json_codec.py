"""The default codec: JSON by msgspec, and by the standard library where msgspec is the stricter of the two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from mosec_cy._codecs.plain_values import encoding_error, plain
from mosec_cy.errors import DecodingError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=plain).encode


def decode(data: Buffer) -> Any:
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


def malformed(data: Any, error: object) -> DecodingError:
    """What is told of a body that is not JSON: where it ceases to be, and behind that what the decoder says."""
    if isinstance(error, RecursionError):
        return DecodingError("the body is nested too deeply")
    body = bytes(data)
    place = ""
    try:
        json.loads(body)
    except UnicodeDecodeError as fault:
        place = f", at byte {fault.start}"
    except json.JSONDecodeError as fault:
        before = len(fault.doc[: fault.pos].encode(json.detect_encoding(body), "surrogatepass"))
        place = f", at byte {before}" + (", where it ends" if before == len(body) else "")
    except RecursionError:
        return DecodingError("the body is nested too deeply")
    return DecodingError(f"the body is not JSON{place}: {error}")


def _decode_leniently(data: Buffer, first: Exception) -> Any:
    """The standard library takes NaN, Infinity, a byte order mark, UTF-16 and -32, and lone surrogates."""
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise malformed(data, first) from first


def _encode_leniently(obj: Any, first: Exception) -> bytes:
    """The standard library takes None and bool as keys, and escapes lone surrogates."""
    try:
        return _encode_by_json(obj)
    except Exception:
        raise encoding_error(obj, "JSON", _encode_by_json) from first


def _encode_by_json(obj: Any) -> bytes:
    tree = msgspec.to_builtins(obj, enc_hook=plain)
    try:
        text = _dumps(tree)
    except ValueError:  # NaN, which json can only refuse or misspell: read its spelling back as None
        text = _dumps(json.loads(json.dumps(tree), parse_constant=lambda _: None))
    return text.encode("ascii")


def _dumps(tree: Any) -> str:
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))
