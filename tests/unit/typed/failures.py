"""Errors of a user's own, and those of the package."""

from mosec_cy import ClientError, DecodingError, EncodingError, MosecError, MosecTimeoutError, ServerError, Worker
from mosec_cy.errors import ValidationError


class Teapot(ClientError):
    code = 418
    msg = "teapot"


class Busy(MosecError):
    code: int = 429
    msg: str = "busy"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds} s")


class Fragile(Worker):
    def deserialize(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodingError(str(error)) from error

    def forward(self, data: str) -> str:
        try:
            if data == "tea":
                raise Teapot
            if not data:
                raise ValidationError("nothing")
        except MosecTimeoutError as timeout:
            raise Busy(timeout.code / 100) from timeout
        except MosecError as error:
            raise ServerError(error.msg) from error
        return data

    def serialize(self, data: str) -> bytes:
        if not data.isascii():
            raise EncodingError
        return data.encode()
