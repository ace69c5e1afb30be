"""Descriptors 0 to 2, and `sys.stdout` and `sys.stderr`, as the service needs them: open, and never in the way."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

from mosec_cy.log_output import STDERR, STDOUT, Output


def open_missing() -> None:
    """Put /dev/null where the program was started without stdin, stdout or stderr.

    Else the next socket or memory that is opened gets that number, and what is printed goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    for stream, output in ((sys.__stdout__, STDOUT), (sys.__stderr__, STDERR)):
        if stream is None:
            output.avoid()  # a file of the program's own that has got the number already
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open("w")  # noqa: SIM115  for as long as the process runs
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def guard() -> None:
    """Have what is printed go the way of the log, so that `print` does not wait for a reader either.

    What user code has put in their place stays.
    """
    _guard("stdout", STDOUT)
    _guard("stderr", STDERR)


def flush() -> None:
    """Flush both; user code may have put anything in their place."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def finish() -> None:
    """Write what is still to be written: the process is about to end without Python's own exit."""
    flush()
    STDOUT.finish()
    STDERR.finish()


def _guard(name: str, output: Output) -> None:
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper) or not output.may_stall:
        return
    flush()
    raw = _Raw(output, stream.name)
    guarded = io.TextIOWrapper(
        raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw),  # PYTHONUNBUFFERED: raw
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, guarded)


class _Raw(io.RawIOBase):
    mode = "wb"

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self.name = name

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = bytes(data)
        self._output.write(written)
        return len(written)

    def fileno(self) -> int:
        return self._output.number

    def isatty(self) -> bool:
        return os.isatty(self._output.number)
