"""Requests that are checked against the annotations of `forward`, by msgspec."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import msgspec

from mosec_cy import replica
from mosec_cy.codec_marks import checked_by, reads_in_place
from mosec_cy.errors import DecodingError, EncodingError, ValidationError
from mosec_cy.forward_types import ParseTarget, forward_type
from mosec_cy.json_codec import plain
from mosec_cy.worker import BaseWorker


def _decoder(worker: Any, batched: bool) -> Callable[[Any], Any]:
    """Decodes one item as its annotated type; raises TypeError if there is no decoding that."""
    item = forward_type(worker, ParseTarget.INPUT, batched)
    try:
        return worker._decoder_class(item).decode
    except TypeError as error:
        raise TypeError(f"{worker.__qualname__}.forward cannot be given {item!r}: {error}") from error


class _TypedMixin(BaseWorker):
    """What the typed codecs share. Each names msgspec's decoder for its format."""

    _decoder_class: ClassVar[Callable[[Any], Any]]

    @cached_property
    def _decode(self) -> Callable[[Any], Any]:
        return _decoder(type(self), replica.of(self).max_batch_size > 1)

    @checked_by(_decoder)
    @reads_in_place
    def deserialize(self, data: Any) -> Any:
        """Decode a request's body as the annotated type of one item.

        Raises:
            DecodingError: the body is malformed: the request is answered 400.
            ValidationError: it is not of that type: 422, with the path of the first field that is wrong.
            TypeError: there is no decoding the annotated type. (`Server.run` says so before it starts anything.)
        """
        decode = self._decode
        try:
            return decode(data)
        except msgspec.ValidationError as error:
            raise ValidationError(str(error)) from error
        except (msgspec.DecodeError, ValueError, RecursionError) as error:  # of older releases it is no ValueError
            raise DecodingError(str(error)) from error


class TypedMsgPackMixin(_TypedMixin):
    """Requests in MessagePack, checked against the annotation of `forward`; answers in MessagePack.

    `def forward(self, data: Request)`, and `data: list[Request]` where `max_batch_size` is above 1. A field annotated
    `memoryview` looks into the request's body instead of being copied.
    """

    req_mime_type = "application/msgpack"
    resp_mime_type = "application/msgpack"
    _decoder_class = msgspec.msgpack.Decoder

    def serialize(self, data: Any) -> Any:
        """Encode an answer.

        Raises:
            EncodingError: MessagePack cannot hold the result: the request is answered 500.
        """
        try:
            return _encode(data)
        except Exception as error:  # whatever the object's own attributes raise
            raise EncodingError(str(error) or "not encodable as MessagePack") from error


class TypedJSONMixin(_TypedMixin):
    """Requests in JSON, checked against the annotation of `forward`; answers in JSON, as by default.

    `def forward(self, data: Request)`, and `data: list[Request]` where `max_batch_size` is above 1.
    """

    _decoder_class = msgspec.json.Decoder


_encode = msgspec.msgpack.Encoder(enc_hook=plain).encode
