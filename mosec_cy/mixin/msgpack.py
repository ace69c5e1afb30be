"""MessagePack instead of JSON."""

from __future__ import annotations

from typing import Any

import msgpack

from mosec_cy.codec_marks import reads_in_place
from mosec_cy.errors import DecodingError, EncodingError
from mosec_cy.json_codec import plain
from mosec_cy.worker import BaseWorker


class MsgpackMixin(BaseWorker):
    """Requests and answers in MessagePack: builtin types and `bytes`; maps have `str` or `bytes` as keys.

    In answers NumPy arrays become arrays of numbers. Where an array is large, answer `array.tobytes()` and its shape.
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
            return msgpack.unpackb(data)
        except Exception as error:  # of a dozen kinds, all about the data
            raise DecodingError(str(error) or "invalid MessagePack") from error

    def serialize(self, data: Any) -> Any:
        """Encode an answer.

        Raises:
            EncodingError: MessagePack cannot hold the result: the request is answered 500.
        """
        try:
            return msgpack.packb(data, default=plain)
        except Exception as error:  # whatever the object's own attributes raise
            raise EncodingError(str(error) or "not encodable as MessagePack") from error
