"""What an exception of user code means: whose answer it is, and which."""

from __future__ import annotations

from typing import Any

from mosec_cy import content_coding
from mosec_cy.errors import MosecError, MosecTimeoutError

INTERNAL_ERROR = "inference internal error"
FATAL = (SystemExit, KeyboardInterrupt)
"""What ends a worker process, as it ends any program. All else that is raised fails what was being worked on, also
from outside `Exception`: a library's way to cancel (`asyncio.CancelledError`) is no reason to load a model again."""


def answer_for(error: BaseException) -> tuple[int, str]:
    """HTTP status and text with which an exception of user code answers a request."""
    if isinstance(error, content_coding.BodyTooLarge):
        return error.code, error.msg
    if isinstance(error, (MosecError, MosecTimeoutError)):
        try:
            status = int(error.code) if 400 <= error.code <= 599 else 500
            return status, f"{error.msg}: {str(error) or error.msg}".replace("\n", " - ")
        except FATAL:
            raise
        except BaseException:  # a class of the user's may have any attributes
            return 500, INTERNAL_ERROR
    return 500, INTERNAL_ERROR


def error_in_place(value: Any) -> BaseException | None:
    """The error that `forward` has returned in the place of an item's result; None: it is a result.

    As after `raise`, a class stands for an instance made without arguments.
    """
    if isinstance(value, BaseException):
        return value
    if isinstance(value, type) and issubclass(value, BaseException):
        try:
            return value()
        except Exception as error:
            return error
    return None
