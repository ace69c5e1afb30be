"""Requests that are checked against the annotations of `forward`."""

from __future__ import annotations

from typing import Any

import msgspec

from mosec_cy._base import replica
from mosec_cy._codecs import json_codec
from mosec_cy._codecs.annotations import Decode, Format
from mosec_cy._codecs.plain_values import encoding_error, plain_but_bytes
from mosec_cy.mixin import msgpack as untyped
from mosec_cy.worker import BaseWorker, checked_by, reads_in_place

_unpack = msgspec.msgpack.Decoder().decode
_pack = msgspec.msgpack.Encoder(enc_hook=plain_but_bytes).encode

MSGPACK = Format(
    name="MessagePack",
    decoder=msgspec.msgpack.Decoder,
    validate=lambda adapter, body: adapter.validate_python(_unpack(body)),
    malformed=untyped.malformed,
)
JSON = Format(
    name="JSON",
    decoder=msgspec.json.Decoder,
    validate=lambda adapter, body: adapter.validate_json(bytes(body)),
    malformed=json_codec.malformed,
)


def _decoder(worker: BaseWorker, form: Format) -> Decode:
    """Made once for a worker. It is not kept in the object, whose attributes are its class's own."""
    this = replica.of(worker)
    if this.decoder is None or this.decoder[0] is not type(worker) or this.decoder[1] is not form:
        this.decoder = type(worker), form, form.decode(type(worker), this.max_batch_size > 1)
    return this.decoder[2]


class TypedMsgPackMixin(BaseWorker):
    """Requests in MessagePack, checked against the annotation of `forward`; answers in MessagePack.

    `def forward(self, data: Request)`, and `data: list[Request]` where `max_batch_size` is above 1. A field annotated
    `memoryview` looks into the request's body instead of being copied. Models of pydantic are validated by pydantic.
    """

    req_mime_type = "application/msgpack"
    resp_mime_type = "application/msgpack"

    @checked_by(MSGPACK.decode)
    @reads_in_place
    def deserialize(self, data: Any) -> Any:
        """Decode a request's body as the annotated type of one item.

        Raises:
            DecodingError: the body is malformed: the request is answered 400.
            ValidationError: it is not of that type: 422, with the path of the field that is wrong.
            TypeError: there is no decoding the annotated type. (`Server.append_worker` says so.)
        """
        return _decoder(self, MSGPACK)(data)

    def serialize(self, data: Any) -> Any:
        """Encode an answer.

        Raises:
            EncodingError: MessagePack cannot hold the result: the request is answered 500.
        """
        try:
            return _pack(data)
        except Exception as error:  # whatever the object's own attributes raise
            raise encoding_error(data, "MessagePack", _pack) from error


class TypedJSONMixin(BaseWorker):
    """Requests in JSON, checked against the annotation of `forward`; answers in JSON, as by default.

    `def forward(self, data: Request)`, and `data: list[Request]` where `max_batch_size` is above 1. Models of pydantic
    are validated by pydantic.
    """

    @checked_by(JSON.decode)
    @reads_in_place
    def deserialize(self, data: Any) -> Any:
        """Decode a request's body as the annotated type of one item.

        Raises:
            DecodingError: the body is malformed: the request is answered 400.
            ValidationError: it is not of that type: 422, with the path of the field that is wrong.
            TypeError: there is no decoding the annotated type. (`Server.append_worker` says so.)
        """
        return _decoder(self, JSON)(data)
