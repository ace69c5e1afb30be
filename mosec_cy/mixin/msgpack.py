"""MessagePack instead of JSON."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec

from mosec_cy._codecs.plain_values import NotPlain, encoding_error, plain_but_bytes
from mosec_cy.errors import DecodingError
from mosec_cy.worker import BaseWorker, reads_in_place


class MsgpackMixin(BaseWorker):
    """Requests and answers in MessagePack: builtin types and `bytes`; maps have `str` or `bytes` as keys.

    Arrays of a request become tuples. In answers NumPy arrays become arrays of numbers. Where an array is large, answer
    `array.tobytes()` and its shape.
    """

    req_mime_type = "application/msgpack"
    resp_mime_type = "application/msgpack"

    @reads_in_place
    def deserialize(self, data: Any) -> Any:
        """Decode a request's body, one MessagePack object.

        Raises:
            DecodingError: it is not one: the request is answered 400.
        """
        try:
            return msgpack.unpackb(data, use_list=False)
        except Exception as error:  # of a dozen kinds, all about the data
            raise malformed(data, error) from error

    def serialize(self, data: Any) -> Any:
        """Encode an answer.

        Raises:
            EncodingError: MessagePack cannot hold the result: the request is answered 500.
        """
        try:
            return _encode(data)
        except Exception as error:  # whatever the object's own attributes raise
            raise encoding_error(data, "MessagePack", _encode) from error


def _encode(data: Any) -> Any:
    return msgpack.packb(data, default=_packable)


def _packable(obj: Any) -> Any:
    try:
        return plain_but_bytes(obj)
    except NotPlain:  # unless msgspec knows it: times, sets, dataclasses and more
        return msgspec.to_builtins(obj, builtin_types=(bytes, bytearray, memoryview), enc_hook=plain_but_bytes)


def malformed(data: Any, error: Exception) -> DecodingError:
    """What is told of a body that is not MessagePack: where it ceases to be, and behind that what the decoder says."""
    if isinstance(error, RecursionError | msgpack.StackError):
        return DecodingError("the body is nested too deeply")
    said = str(error) or type(error).__name__
    reader = msgpack.Unpacker(use_list=False, max_buffer_size=len(data) or 1)
    reader.feed(data)
    try:
        reader.unpack()
    except msgpack.OutOfData:
        return DecodingError(f"the body ends before its MessagePack object does, after {len(data)} bytes: {said}")
    except Exception:
        place = f", at byte {reader.tell()}" if reader.tell() else ""  # older releases do not know it
        return DecodingError(f"the body is not MessagePack that can be read{place}: {said}")
    if reader.tell() < len(data):
        return DecodingError(f"the body goes on behind its MessagePack object, at byte {reader.tell()}: {said}")
    return DecodingError(f"the body is not MessagePack that can be read: {said}")
