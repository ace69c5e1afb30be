"""One log for all processes of a service: JSON lines on stderr, or text for a person at a terminal."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from mosec_cy import standard_streams
from mosec_cy.log_format import DebugFormatter, JSONFormatter, TextFormatter
from mosec_cy.log_output import STDERR, STDOUT

LEVELS = ("info", "debug", "warning", "error")
FORMATS = ("auto", "json", "text")

_NAME = "mosec_cy"


def get_logger() -> logging.Logger:
    """The service's logger: the same level and format in each process, written to stderr.

    Level and format are `--log-level` and `--log-format` once a `Server` exists; before that MOSEC_LOG_LEVEL and
    MOSEC_LOG_FORMAT hold, or else "info" and "auto". Neither `logging.config` nor `logging.disable` changes it.
    Handlers of the root logger, or of `logging.getLogger("mosec_cy")`, get its records too, but for those that print
    to stdout or stderr.
    """
    return _LOGGER


def configure(level: str, format: str = "auto", who: str = "server") -> None:
    """Set up this process's log.

    Args:
        level: the least that is logged, one of `LEVELS`.
        format: one of `FORMATS`; "auto" is text on a terminal and at level debug, JSON elsewhere.
        who: what lines of text call this process.
    """
    _LINES.setFormatter(_make_formatter(level, format, who))
    _LOGGER.setLevel(getattr(logging, level.upper()))


def is_for_terminal() -> bool:
    """True if a person reads the log: it is text, and goes to a terminal."""
    return not isinstance(_LINES.formatter, JSONFormatter) and _is_terminal()


def on_screen() -> bool:
    """True if the log goes to a terminal that obeys control sequences."""
    return _is_terminal() and os.environ.get("TERM", "dumb") != "dumb"


def _from_environment(name: str, choices: tuple[str, ...]) -> str:
    value = os.environ.get(f"MOSEC_LOG_{name}", "")
    return value if value in choices else choices[0]  # `Server` refuses one that is wrong


def _make_formatter(level: str, format: str, who: str) -> logging.Formatter:
    debugging, on_terminal = level == "debug", _is_terminal()
    if format == "json" or (format == "auto" and not (on_terminal or debugging)):
        return JSONFormatter()
    # As in Mosec, what level debug makes text is coloured wherever it goes.
    coloured = (on_terminal or format == "auto") and not os.environ.get("NO_COLOR")
    return (DebugFormatter if debugging else TextFormatter)(coloured, on_screen(), who)


def _is_terminal() -> bool:
    try:
        return os.isatty(STDERR.number)
    except OSError:
        return False


class _Lines(logging.Handler):
    """Writes the service's own lines: not through `sys.stderr`, which user code may replace by what logs."""

    def emit(self, record: logging.LogRecord) -> None:
        STDERR.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")


class _ServiceLogger(logging.Logger):
    """A logger whose lines appear, whatever the program does to `logging`.

    It is in none of the lists that functions of `logging` go through, and asks neither `logging.disable` nor its own
    `disabled` and `handlers` whether a line may be written.
    """

    def isEnabledFor(self, level: int) -> bool:
        return level >= self.getEffectiveLevel()

    def makeRecord(self, name: str, level: int, fn: str, lno: int, *arguments: Any, **more: Any) -> logging.LogRecord:
        try:
            return super().makeRecord(name, level, fn, lno, *arguments, **more)
        except Exception:  # in the program's own factory of records
            message, values, exc_info, *_ = arguments
            return logging.LogRecord(name, level, fn, lno, message, values, exc_info)

    def __reduce__(self) -> tuple[Callable[[str], logging.Logger], tuple[str]]:
        return _of_name, (self.name,)  # objects that hold it are sent to other processes

    def handle(self, record: logging.LogRecord) -> None:
        if self.filter(record):
            self.callHandlers(record)

    def callHandlers(self, record: logging.LogRecord) -> None:
        _LINES.handle(record)
        if not _handing_on.now:
            _hand_on(record, self)


# ---- handlers of the program's own -----------------------------------------------------------------------


class _HandingOn(threading.local):
    now = False


_handing_on = _HandingOn()
_failed: WeakSet[logging.Handler] = WeakSet()


def _hand_on(record: logging.LogRecord, logger: logging.Logger) -> None:
    """Give a record to the handlers that the program has put on the service's logger, on its own logger of that name,
    or on the root logger; by the rules of `logging`, which hold for them.

    What one of these handlers logs itself is not handed on, and its failure is no failure of the service.
    """
    _handing_on.now = True
    try:
        handlers = [*logger.handlers, *_LOGGER.handlers]
        manager = logging.root.manager
        if record.levelno > manager.disable:
            named = manager.loggerDict.get(_NAME)
            if not isinstance(named, logging.Logger):
                handlers += logging.root.handlers
            elif not named.disabled and record.levelno >= named.level and named.filter(record):
                handlers += named.handlers
                handlers += logging.root.handlers if named.propagate else []
        for handler in dict.fromkeys(handlers):
            _call(handler, record)
    finally:
        _handing_on.now = False


def _call(handler: logging.Handler, record: logging.LogRecord) -> None:
    try:
        if record.levelno >= handler.level and not _prints(handler):
            handler.handle(record)
    except Exception:
        if handler not in _failed:
            _failed.add(handler)
            _LOGGER.exception("the program's log handler %s fails, this is said once", type(handler).__name__)


def _prints(handler: logging.Handler) -> bool:
    """True if it writes to stdout or stderr, where the line is already: a StreamHandler, or one with a rich console."""
    handler = getattr(handler, "target", None) or handler  # a MemoryHandler
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    if stream is None:
        return False
    if any(stream is standard for standard in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
        return True
    try:
        return os.path.sameopenfile(stream.fileno(), 1) or os.path.sameopenfile(stream.fileno(), 2)
    except (AttributeError, OSError, ValueError):  # it is no file, or closed
        return False


# ---- the log of this process -----------------------------------------------------------------------------

standard_streams.open_missing()
_LINES = _Lines()
_MANAGER = logging.Manager(logging.root)  # of a tree of our own, with the loggers that `getChild` makes
_MANAGER.setLoggerClass(_ServiceLogger)
_LOGGER = _MANAGER.getLogger(_NAME)
configure(_from_environment("LEVEL", LEVELS), _from_environment("FORMAT", FORMATS))


def _of_name(name: str) -> logging.Logger:
    return _MANAGER.getLogger(name)


def _say_lost() -> None:
    if STDERR.is_waiting:
        return  # what is said now might be lost as well: it is said when stderr is read again
    for stream, output in (("stdout", STDOUT), ("stderr", STDERR)):
        if count := output.take_lost():
            _LOGGER.warning("%d lines to %s were lost: nothing was reading it", count, stream)


STDOUT.on_recovery = STDERR.on_recovery = _say_lost
