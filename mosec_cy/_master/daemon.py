"""A process of the user's own that lives and ends with the server."""

from __future__ import annotations

import multiprocessing.process
import subprocess
from typing import TypeAlias

DaemonProcess: TypeAlias = "subprocess.Popen[bytes] | subprocess.Popen[str] | multiprocessing.process.BaseProcess"


class Daemon:
    """`name` and pid of a started `process`; TypeError or ValueError if it is not one."""

    def __init__(self, name: str, process: DaemonProcess) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, but is {name!r}")
        if not isinstance(process, subprocess.Popen | multiprocessing.process.BaseProcess):
            raise TypeError(f"process must be a subprocess.Popen or multiprocessing.Process, but is {process!r}")
        if process.pid is None:
            raise ValueError(f"process of daemon {name!r} must have been started: call its start() first")
        self.name = name
        self.pid = process.pid
        self._process = process

    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def terminate(self) -> None:
        if self.returncode() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self.returncode() is None:
            self._process.kill()

    def wait(self) -> int:
        """The exit status, once it has ended."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.wait()
        self._process.join()
        status = self._process.exitcode
        assert status is not None
        return status
