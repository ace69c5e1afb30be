"""Mistakes of the program that uses the package: told in one sentence, where a traceback of ours would hide it.

The exceptions stay what they are for a program that catches them.
"""

from __future__ import annotations

import sys
import threading
import traceback
from multiprocessing import process as multiprocessing_process
from pathlib import Path
from types import TracebackType
from typing import Any

from mosec_cy.errors import ServerError
from mosec_cy.log import get_logger


class ResultError(ServerError):
    """`forward` has returned, or yielded, what it must not. The text says what would be right."""


class MissingResultsError(Exception):
    """`forward` has returned another number of results, or none at all. The text is for the log.

    Clients read what Mosec tells them, `inference internal error`.
    """


_KINDS = (OSError, RuntimeError, TypeError, ValueError, MissingResultsError, ResultError)
_OURS = str(Path(__file__).parent.parent)
# Between our code and the user's when a worker process imports the program.
_STARTERS = (str(Path(multiprocessing_process.__file__).parent), "<frozen runpy>", "<frozen importlib", "<string>")
_RUNPY = "runpy.py"  # Python 3.10

_log = get_logger()


class OneSentence:
    """Errors that leave this context say all in their text: should one end the program, that is what is shown."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, _KINDS):
            error._says_all = True  # type: ignore[union-attr]
            _show_sentences()


def says_all(error: BaseException | None) -> bool:
    """The error needs no traceback."""
    return getattr(error, "_says_all", False)


def sentence(error: BaseException) -> str:
    """The text of such an error."""
    return str((isinstance(error, OSError) and error.strerror) or error)


def user_traceback(error: BaseException) -> TracebackType | None:
    """The error's traceback from the first frame of user code on; None if there is none."""
    at = error.__traceback__
    while at is not None and _leads_to_user_code(at.tb_frame.f_code.co_filename):
        at = at.tb_next
    return at


def describe(error: BaseException) -> str:
    """The error with its traceback, as far as user code is concerned; ends with a line break."""
    return "".join(traceback.format_exception(type(error), error, user_traceback(error)))


def as_message(error: BaseException) -> dict[str, Any]:
    """What a worker process or a dry run says to the master of such an error, or of one of user code."""
    if says_all(error):
        return {"failed": sentence(error), "final": True}
    return {"failed": describe(error)}


def _leads_to_user_code(file: str) -> bool:
    return file.startswith((_OURS, *_STARTERS)) or file.endswith(_RUNPY)


def _show_sentences() -> None:
    """In place of Python's own report of such errors; a program that has set a hook of its own keeps that."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _on_end_of_program
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _on_end_of_thread


def _on_end_of_program(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    if says_all(error):
        _log.error("%s%s", sentence(error), _place(at))
    else:
        sys.__excepthook__(kind, error, at)


def _on_end_of_thread(end: Any) -> None:
    if says_all(end.exc_value):
        _log.error("%s%s", sentence(end.exc_value), _place(end.exc_traceback))
    else:
        threading.__excepthook__(end)


def _place(at: TracebackType | None) -> str:
    """The last line of the program that led to the error."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(at)]
    for file, line in reversed(frames):
        if not file.startswith(_OURS):
            return f" ({file}, line {line})"
    return ""
