"""Exceptions that a worker raises to answer a request with a given HTTP status.

The body of the answer is `msg`, then `: ` and the exception's own text, or `msg` again where the
exception has none. Any exception outside this hierarchy answers 500 `inference internal error`.
"""


class MosecError(Exception):
    """Base of the errors that carry an answer: HTTP status `code` and the text `msg` of the class."""

    code: int = 500
    msg: str = "mosec error"


class ClientError(MosecError):
    """The request is at fault: 400. Raise it in `deserialize` or `forward`."""

    code = 400
    msg = "bad request"


class DecodingError(ClientError):
    """The body cannot be decoded: 400. Raised by `deserialize`."""

    msg = "decoding error"


class ValidationError(MosecError):
    """The body was decoded, but its content is not acceptable: 422."""

    code = 422
    msg = "request validation error"


class ServerError(MosecError):
    """The service is at fault: 500, with a text that the client may see."""

    code = 500
    msg = "internal error"


class EncodingError(ServerError):
    """The result cannot be encoded: 500. Raised by `serialize`."""

    msg = "encoding error"


class MosecTimeoutError(BaseException):
    """`forward` overran the timeout of its stage: 408.

    Raised inside `forward` by the worker's signal handler. It is a BaseException, so that
    `except Exception` in user code does not swallow it.
    """

    code: int = 408
    msg: str = "mosec timeout error"
