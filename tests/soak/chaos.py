"""The faults of a soak, from a thread of their own: a seeded order of kills, each waited out."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time

from tests.service import Service
from tests.soak.ledger import Fault, Ledger

WORKER = re.compile(r"mosec_cy: (\S+) \[(\d+)\]")
DEATHS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]


class Chaos:
    """Faults until `stop` is called; `recoveries`: for each kind the times in s.

    A worker has recovered when its successor is ready, core at the first 200 after it.

    Args:
        pause: s between two faults, in the mean.
        core: core is killed too.
    """

    def __init__(self, service: Service, ledger: Ledger, seed: int, pause: float, *, core: bool) -> None:
        self.service = service
        self.ledger = ledger
        self.pause = pause
        self.recoveries: dict[str, list[float]] = {}
        self.error: BaseException | None = None
        self._chance = random.Random(f"{seed} chaos")
        self._kinds = [self._kill_worker, self._kill_worker, self._stop_worker, *([self._kill_core] if core else [])]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the fault that is under way; raises what went wrong in the thread."""
        self._ended.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._chance.random() * 2 * self.pause):
                self._chance.choice(self._kinds)()
        except BaseException as error:
            self.error = error

    def _victim(self) -> tuple[int, str]:
        workers = sorted((title, pid) for pid, title in self.service.processes().items() if WORKER.search(title))
        title, pid = self._chance.choice(workers)
        return pid, title

    def _kill_worker(self) -> None:
        pid, title = self._victim()
        stage, worker = WORKER.search(title).groups()  # type: ignore[union-attr]  # victims match
        ready = rf"<{stage}\|{worker}> ready"
        # Lines that nobody has waited past may hold another restart of it, by a request that asked for its exit: then
        # this recovery is taken for shorter than it was.
        seen = sum(re.search(ready, line) is not None for line in self.service.lines)
        number = self._chance.choice(DEATHS)
        began = self._kill(pid, "worker", number)
        self._wait_ready(ready, seen + 1)
        self.recoveries.setdefault(f"worker {number.name}", []).append(time.monotonic() - began)

    def _wait_ready(self, ready: str, count: int) -> None:
        with contextlib.suppress(AssertionError):  # a worker that died often waits as long as a test's patience
            return self.service.wait_outputs(ready, count)
        self.service.wait_outputs(ready, count)

    def _kill_core(self) -> None:
        pid = self.service.wait_process("mosec_cy: core")
        began = self._kill(pid, "core", signal.SIGKILL)
        self._wait_served()
        self.recoveries.setdefault("core SIGKILL", []).append(time.monotonic() - began)

    def _kill(self, pid: int, kind: str, number: signal.Signals) -> float:
        began = time.monotonic()
        self.ledger.faults.append(Fault(kind, began))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return began

    def _wait_served(self) -> None:
        """Until a request is answered again."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(Exception), self.service.client(timeout=5) as client:
                if client.post("/echo", json={"id": 0}).status_code == 200:
                    return
            assert time.monotonic() < deadline, "the service does not answer"

    def _stop_worker(self) -> None:
        """Nobody dies of it: its requests wait, those handed to it ahead are served by others."""
        pid, title = self._victim()
        if "Faulty" in title:  # which has a time-out so short that this would be a hang
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._ended.wait(self._chance.random())
            os.kill(pid, signal.SIGCONT)
