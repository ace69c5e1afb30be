"""Forked processes that are waited for or killed, never left."""

import os
import signal
import traceback
from collections.abc import Callable


class Processes:
    """Forked processes. `start` returns a pid; `finish` and `kill` reap it."""

    def __init__(self) -> None:
        self._running: set[int] = set()

    def start(self, work: Callable[[], object]) -> int:
        """Run `work` in a child, which exits with 0, or 1 and a traceback if it raised."""
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        self._running.add(pid)
        return pid

    def finish(self, pid: int) -> None:
        """Wait for a child, which must exit well."""
        self._running.remove(pid)
        assert os.waitpid(pid, 0)[1] == 0

    def kill(self, pid: int) -> None:
        """Kill a child, which must have been alive until then."""
        os.kill(pid, signal.SIGKILL)
        self._running.remove(pid)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL

    def alive(self, pid: int) -> bool:
        """Whether a child runs; it stays for `finish` or `kill` to reap."""
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def close(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
