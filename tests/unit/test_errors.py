"""The exceptions and what they say to the client."""

import pytest

import mosec_cy
from mosec_cy import errors


@pytest.mark.parametrize(
    ("name", "base", "code", "msg"),
    [
        ("MosecError", Exception, 500, "mosec error"),
        ("ClientError", errors.MosecError, 400, "bad request"),
        ("DecodingError", errors.ClientError, 400, "decoding error"),
        ("ValidationError", errors.MosecError, 422, "request validation error"),
        ("ServerError", errors.MosecError, 500, "internal error"),
        ("EncodingError", errors.ServerError, 500, "encoding error"),
        ("MosecTimeoutError", BaseException, 408, "mosec timeout error"),
    ],
)
def test_hierarchy(name: str, base: type, code: int, msg: str) -> None:
    cls = getattr(mosec_cy, name)
    assert cls is getattr(errors, name)
    assert cls.__bases__ == (base,)
    assert (cls.code, cls.msg) == (code, msg)


def test_a_timeout_passes_handlers_of_user_code() -> None:
    assert not issubclass(errors.MosecTimeoutError, Exception)
