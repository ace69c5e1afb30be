"""A real service for tests: started as a subprocess, driven from outside, and checked to leave nothing behind."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.until import PATIENCE, until

ROOT = Path(__file__).parent.parent
TERMINAL = 40, 100  # lines and columns


class Service:
    """One service: its processes, its log, and a client for it.

    Args:
        script: the program that calls `Server.run`.
        arguments: its command line; `--port 0` is added unless an address or port is given.
        env: added to the environment. All processes get a TMPDIR of their own, which must be empty at the end.
        directory: an empty directory for its files.
        terminal: it is started on a terminal of its own, to which it and its workers write.
    """

    def __init__(
        self,
        script: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        directory: Path,
        python: str = "",
        terminal: bool = False,
    ) -> None:
        self._temporary = directory / "tmp"
        self._temporary.mkdir()
        place = [] if {"--port", "--address"} & set(arguments) else ["--address", "127.0.0.1", "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **(env or {})}
        environment["TMPDIR"] = str(self._temporary)
        ours, theirs = os.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", *TERMINAL, 0, 0))
        self.process = subprocess.Popen(
            [python or sys.executable, str(script), *arguments, *place],
            env=environment,
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(theirs)
        self._stream = os.fdopen(ours, "rb", buffering=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.lines: list[str] = []
        self.address = ""
        self._arrivals: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self.process.poll() is None and kind is None:
                self.stop()
        finally:
            self.discard()
        if kind is None:
            self.assert_nothing_left()

    # ---- its output --------------------------------------------------------------------------------

    @property
    def output(self) -> str:
        """All that it has written to stdout and stderr so far, as far as it was waited for."""
        return "\n".join(self.lines)

    @property
    def messages(self) -> list[str]:
        """The messages of its log records."""
        return [record["fields"]["message"] for record in self.records]

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its log records."""
        return [json.loads(line) for line in self.lines if line.startswith('{"timestamp"')]

    def wait_output(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Wait for a line in which the regular expression is found (also one that has been waited past)."""
        for seen in self.lines:
            if match := re.search(pattern, seen):
                return match
        deadline = time.monotonic() + patience
        while (line := self._next_line(deadline)) is not None:
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"no line with {pattern!r} before its end:\n{self.output}")

    def wait_outputs(self, pattern: str, count: int) -> None:
        """Wait until so many lines of its whole output match the regular expression."""
        deadline = time.monotonic() + PATIENCE
        while sum(re.search(pattern, line) is not None for line in self.lines) < count:
            assert self._next_line(deadline) is not None, f"ended without {count} lines of {pattern!r}:\n{self.output}"

    def _next_line(self, deadline: float) -> str | None:
        try:
            line = self._arrivals.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            raise AssertionError(f"nothing more came in time after:\n{self.output}") from None
        if line is not None:
            self.lines.append(line)
        else:
            self._arrivals.put(None)
        return line

    def _read(self) -> None:
        text = ""
        with contextlib.suppress(OSError):  # a terminal that nobody holds any more
            while data := self._stream.read(1 << 16):
                *lines, text = (text + self._decoder.decode(data)).split("\n")
                for line in lines:
                    self._arrivals.put(line.rstrip("\r"))
        if text:
            self._arrivals.put(text)
        self._arrivals.put(None)

    # ---- its life ----------------------------------------------------------------------------------

    def wait_ready(self, patience: float = PATIENCE) -> Service:
        """Wait until it listens, at most `patience` s; sets `address`."""
        self.address = self.wait_output(r'listening on ([^\s"\x1b]+)', patience)[1]
        return self

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client whose base URL is the service's."""
        if self.address.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.address.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://service", **options)
        return httpx.Client(base_url=f"http://{self.address}", **{"timeout": PATIENCE, **options})

    def connect(self) -> socket.socket:
        """A connection of one's own to a service that listens on TCP."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def wait_end(self) -> int:
        """Its exit status, once it has ended and all its output is read."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        assert self.process.returncode is not None, f"still running {PATIENCE} s later:\n{self.output}"
        deadline = time.monotonic() + PATIENCE
        while self._next_line(deadline) is not None:
            pass
        return self.process.returncode

    def stop(self) -> None:
        """Shut it down in order; it must end with status 0."""
        self.signal(signal.SIGTERM)
        status = self.wait_end()
        assert status == 0, f"ended with {status}:\n{self.output}"

    def discard(self) -> None:
        """Kill whatever of it still runs."""
        for pid in [self.process.pid, *self.processes()]:
            with contextlib.suppress(ProcessLookupError):
                if pid != self.process.pid or self.process.poll() is None:
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        self._stream.close()

    # ---- its processes, from /proc -----------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Pid and title of each of its processes: those of its session, also where the parent has gone."""
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # Fields after the name, which may hold anything: state, parent, group, session.
                state, _, _, session = (directory / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    title = (directory / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
                    found[int(directory.name)] = title.decode(errors="replace")
        return found

    def pids(self, title: str) -> list[int]:
        """Its processes whose title holds `title`, such as "mosec_cy: core"."""
        return sorted(pid for pid, shown in self.processes().items() if title in shown)

    def wait_process(self, title: str) -> int:
        """The pid of its only process with that title, once it has it: a moment after its start."""
        (pid,) = until(lambda: self.pids(title), message=lambda: f"no process {title!r} among {self.processes()}")
        return pid

    @staticmethod
    def descriptors(pid: int) -> dict[int, str]:
        """What the open descriptors of a process refer to."""
        found = {}
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = str(entry.readlink())
        return found

    # ---- what it leaves ----------------------------------------------------------------------------

    def assert_nothing_left(self) -> None:
        """After its end: no process, and no file in its temporary directory. (Its memory has no name to leave.)"""
        # The kernel ends the children a moment after their parent.
        until(lambda: not self.processes(), message=lambda: f"outlived the service: {self.processes()}")
        assert list(self._temporary.iterdir()) == []

    def assert_nothing_named(self) -> None:
        """While it runs: no process has anything in /dev/shm or /tmp open or mapped."""
        for pid, title in self.processes().items():
            named = [*self.descriptors(pid).values(), *_mapped(pid)]
            held = [path for path in named if path.startswith(("/dev/shm", str(self._temporary)))]
            assert held == [], f"{title} holds {held}"


def _mapped(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6:
                yield fields[5]


Serve = Callable[..., Service]
"""The fixture `serve`: starts the service of a source text, with the arguments of `Service`."""
