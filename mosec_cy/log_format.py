"""How a record of the log is written: as a line of JSON, as text for a person, or as text for debugging."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_COLOURS = {"DEBUG": "34", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_CLEAR_REST = "\x1b[K"  # of the line: a block that the master shows for a while may be there
_SHORT = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_REPLICA = re.compile(r"<([^<>|]+\|\w+)>:? ")  # how messages about a replica begin


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

    def __init__(self, coloured: bool, on_screen: bool, who: str) -> None:
        super().__init__()
        self._coloured = coloured
        self._line_end = _CLEAR_REST if on_screen else ""
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        text = self._line(record)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        return text.replace("\n", f"{self._line_end}\n") + self._line_end

    def _line(self, record: logging.LogRecord) -> str:
        who, message = self._who, _message(record)
        if replica := _REPLICA.match(message):
            who, message = replica[1], message[replica.end() :]
        time = self._paint("2", datetime.fromtimestamp(record.created).strftime("%H:%M:%S"))
        name = _SHORT.get(record.levelname, record.levelname)
        return f"{time} {self._level(record, f'{name:<5}')} {self._paint('36', f'{who:<9}')}  {message}"

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
