"""One log for all processes of a service: JSON lines on stderr, or text for a person at a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from weakref import WeakSet

from mosec_cy._base.output import STDERR, STDOUT, open_missing

LEVELS = ("info", "debug", "warning", "error")
FORMATS = ("auto", "json", "text")

_NAME = "mosec_cy"
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_COLOURS = {"DEBUG": "34", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_CLEAR_REST = "\x1b[K"  # of the line: a block that the master shows for a while may be there
_SHORT = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_REPLICA = re.compile(r"<([^<>|]+\|\w+)>:? ")  # how messages about a replica begin


def get_logger() -> logging.Logger:
    """The service's logger: the same level and format in each process, written to stderr.

    Level and format are `--log-level` and `--log-format` once a `Server` exists; before that MOSEC_LOG_LEVEL and
    MOSEC_LOG_FORMAT hold, or else "info" and "auto". Neither `logging.config` nor `logging.disable` changes it.
    Handlers of the root logger, or of `logging.getLogger("mosec_cy")`, get its records too, but for those that print
    to stdout or stderr.
    """
    return _LOGGER


def configure(level: str, format: str = "auto", sender: str = "server") -> None:
    """Set up this process's log.

    Args:
        level: the least that is logged, one of `LEVELS`.
        format: one of `FORMATS`; "auto" is text on a terminal and at level debug, JSON elsewhere.
        sender: what lines of text call this process.
    """
    _LINES.setFormatter(_make_formatter(level, format, sender))
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


def _make_formatter(level: str, format: str, sender: str) -> logging.Formatter:
    debugging, on_terminal = level == "debug", _is_terminal()
    if format == "json" or (format == "auto" and not (on_terminal or debugging)):
        return JSONFormatter()
    # As in Mosec, what level debug makes text is coloured wherever it goes.
    coloured = (on_terminal or format == "auto") and not os.environ.get("NO_COLOR")
    return (DebugFormatter if debugging else TextFormatter)(coloured, on_screen(), sender)


def _is_terminal() -> bool:
    try:
        return os.isatty(STDERR.number)
    except OSError:
        return False


# ---- how a record is written -----------------------------------------------------------------------------


def is_own(path: str) -> bool:
    """Whether that file is one of this package's, and what it logs a line of the service's own."""
    return path.startswith(_PACKAGE)


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, str] = {"message": _message(record)}
        if record.exc_info:
            fields["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack_info"] = self.formatStack(record.stack_info)
        line = {
            "timestamp": _timestamp(record),
            "level": record.levelname,
            "fields": fields,
            "target": f"{_target(record)}:{record.funcName}",
        }
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """`12:03:44 INFO  Model_1|2  ready after 2.1 s`: local time, level, process, message."""

    def __init__(self, coloured: bool, on_screen: bool, sender: str) -> None:
        super().__init__()
        self._coloured = coloured
        self._line_end = _CLEAR_REST if on_screen else ""
        self._sender = sender

    def format(self, record: logging.LogRecord) -> str:
        text = self._line(record)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        return text.replace("\n", f"{self._line_end}\n") + self._line_end

    def _line(self, record: logging.LogRecord) -> str:
        sender, message = self._sender, _message(record)
        if replica := _REPLICA.match(message):
            sender, message = replica[1], message[replica.end() :]
        time = self._paint("2", datetime.fromtimestamp(record.created).strftime("%H:%M:%S"))
        name = _SHORT.get(record.levelname, record.levelname)
        return f"{time} {self._level(record, f'{name:<5}')} {self._paint('36', f'{sender:<9}')}  {message}"

    def _level(self, record: logging.LogRecord, text: str) -> str:
        return self._paint(_COLOURS.get(record.levelname, "0"), text)

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text


class DebugFormatter(TextFormatter):
    """Also where in the code, and in which process: for level debug."""

    def _line(self, record: logging.LogRecord) -> str:
        level = self._level(record, f"{record.levelname:>8}")
        place = f"{_target(record)}:{record.lineno} [{record.process}]"
        return f"{_timestamp(record)} {level} {place}: {_message(record)}"


def _message(record: logging.LogRecord) -> str:
    """The text; for a record that cannot be formatted, that it cannot, and its parts."""
    try:
        if is_own(record.pathname):  # the program's own class of records may format in another style
            return logging.LogRecord.getMessage(record)
        return record.getMessage()
    except Exception:
        reason = sys.exc_info()[1]
        return f"{record.msg!r:.1000} cannot be formatted with {type(record.args).__name__}: {type(reason).__name__}"


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _target(record: logging.LogRecord) -> str:
    owner = "mosec_cy" if is_own(record.pathname) else "user"
    return f"{owner}::{record.filename}"


# ---- the logger ------------------------------------------------------------------------------------------


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

open_missing()
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
