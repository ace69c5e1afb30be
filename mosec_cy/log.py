"""One log for all processes of a service: JSON lines on stderr, or text for a person at a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

LEVELS = ("info", "debug", "warning", "error")
FORMATS = ("auto", "json", "text")

_LOGGER = logging.getLogger("mosec_cy")
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_COLOURS = {"DEBUG": "34", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_CLEAR_REST = "\x1b[K"  # of the line: a block that the master shows for a while may be there
_SHORT = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_REPLICA = re.compile(r"<([^<>|]+\|\w+)>:? ")  # how messages about a replica begin


def get_logger() -> logging.Logger:
    """The service's logger: the same level and format in each process, written to stderr.

    Level and format are `--log-level` and `--log-format` once a `Server` exists; before that MOSEC_LOG_LEVEL and
    MOSEC_LOG_FORMAT hold, or else "info" and "auto".
    """
    if not _LOGGER.handlers:
        configure(_from_environment("LEVEL", LEVELS), _from_environment("FORMAT", FORMATS))
    return _LOGGER


def configure(level: str, format: str = "auto", who: str = "server") -> None:
    """Set up this process's log.

    Args:
        level: the least that is logged, one of `LEVELS`.
        format: one of `FORMATS`; "auto" is text on a terminal and at level debug, JSON elsewhere.
        who: what lines of text call this process.
    """
    handler = _StderrHandler()
    handler.setFormatter(_make_formatter(level, format, who))
    _LOGGER.handlers = [handler]
    _LOGGER.setLevel(level.upper())
    _LOGGER.propagate = False


def is_for_terminal() -> bool:
    """True if a person reads the log: it is text, and goes to a terminal."""
    (handler,) = get_logger().handlers
    return not isinstance(handler.formatter, _JSONFormatter) and _is_terminal()


def _from_environment(name: str, choices: tuple[str, ...]) -> str:
    value = os.environ.get(f"MOSEC_LOG_{name}", "")
    return value if value in choices else choices[0]  # `Server` refuses one that is wrong


def _make_formatter(level: str, format: str, who: str) -> logging.Formatter:
    debugging, on_terminal = level == "debug", _is_terminal()
    if format == "json" or (format == "auto" and not (on_terminal or debugging)):
        return _JSONFormatter()
    # As in Mosec, what level debug makes text is coloured wherever it goes.
    coloured = (on_terminal or format == "auto") and not os.environ.get("NO_COLOR")
    return (_DebugFormatter if debugging else _TextFormatter)(coloured, on_terminal, who)


def _is_terminal() -> bool:
    try:
        return os.isatty(2)
    except OSError:
        return False


class _StderrHandler(logging.Handler):
    """Looks `sys.stderr` up at each record: user code and test runners replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")  # one write, so that lines of processes do not mix
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _target(record: logging.LogRecord) -> str:
    owner = "mosec_cy" if record.pathname.startswith(_PACKAGE) else "user"
    return f"{owner}::{record.filename}"


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, str] = {"message": record.getMessage()}
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


class _TextFormatter(logging.Formatter):
    """`12:03:44 INFO  Model_1|2  warm-up done`: local time, level, process, message."""

    def __init__(self, coloured: bool, on_terminal: bool, who: str) -> None:
        super().__init__()
        self._coloured = coloured
        self._line_end = _CLEAR_REST if on_terminal else ""
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        text = self._line(record)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        return text.replace("\n", f"{self._line_end}\n") + self._line_end

    def _line(self, record: logging.LogRecord) -> str:
        who, message = self._who, record.getMessage()
        if replica := _REPLICA.match(message):
            who, message = replica[1], message[replica.end() :]
        time = self._paint("2", datetime.fromtimestamp(record.created).strftime("%H:%M:%S"))
        name = _SHORT.get(record.levelname, record.levelname)
        return f"{time} {self._level(record, f'{name:<5}')} {self._paint('36', f'{who:<9}')}  {message}"

    def _level(self, record: logging.LogRecord, text: str) -> str:
        return self._paint(_COLOURS.get(record.levelname, "0"), text)

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text


class _DebugFormatter(_TextFormatter):
    """Also where in the code, and in which process: for level debug."""

    def _line(self, record: logging.LogRecord) -> str:
        level = self._level(record, f"{record.levelname:>8}")
        place = f"{_target(record)}:{record.lineno} [{record.process}]"
        return f"{_timestamp(record)} {level} {place}: {record.getMessage()}"
