"""One log for all processes of a service: JSON lines on stderr, or coloured text at level debug."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

_LOGGER = logging.getLogger("mosec_cy")
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_COLOURS = {"DEBUG": "34", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


def get_logger() -> logging.Logger:
    """The service's logger: the same level and format in each process, written to stderr.

    The level is `--log-level` once a `Server` exists, and info before.
    """
    if not _LOGGER.handlers:
        configure("info")
    return _LOGGER


def configure(level: str) -> None:
    """Set level ("debug", "info", "warning" or "error") and format of this process's log."""
    handler = _StderrHandler()
    handler.setFormatter(_TextFormatter() if level == "debug" else _JSONFormatter())
    _LOGGER.handlers = [handler]
    _LOGGER.setLevel(level.upper())
    _LOGGER.propagate = False


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
    def format(self, record: logging.LogRecord) -> str:
        colour = _COLOURS.get(record.levelname, "0")
        text = (
            f"{_timestamp(record)} \x1b[{colour}m{record.levelname:>8}\x1b[0m "
            f"{_target(record)}:{record.lineno} [{record.process}]: {record.getMessage()}"
        )
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        return text
