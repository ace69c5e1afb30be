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
from tests.until import until

WORKER = re.compile(r"mosec_cy: (\S+) \[(\d+)\]")
ROUTES = {"Make": "pipeline", "Double": "pipeline", "Sum": "pipeline", "Count": "stream"}  # of other stages: its name
BACK = "core is back after"
ROLLED = "rolling restart (done|stopped)"
MOST_CORES = 5  # deaths of core within WINDOW that a service survives
WINDOW = 32.0  # s; a little more than the service's
DEATHS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]


class Chaos:
    """Faults until `stop` is called; `recoveries`: for each kind the times in s.

    A worker has recovered when its successor is ready, core at the first 200 after it.

    Args:
        pause: s between two faults, in the mean.
        core: core is killed too, no oftener than a service survives.
        roll: workers are replaced in rolling restarts too, during which the other faults go on.
    """

    def __init__(
        self, service: Service, ledger: Ledger, seed: int, pause: float, *, core: bool, roll: bool = False
    ) -> None:
        self.service = service
        self.ledger = ledger
        self.pause = pause
        self.recoveries: dict[str, list[float]] = {}
        self.error: BaseException | None = None
        self.rolls = 0  # that were asked for
        self._chance = random.Random(f"{seed} chaos")
        self._kinds = [self._kill_worker, self._kill_worker, self._stop_worker]
        self._kinds += [self._kill_core] * core + [self._roll] * roll
        self._cores: list[float] = []  # when core was killed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the fault that is under way, and a rolling restart; raises what went wrong in the thread."""
        self._ended.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        self._wait(ROLLED, self.rolls)

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
        # Or who was killed had a successor already, or was one that had yet to take over.
        ready = rf"<{stage}\|{worker}> (ready|replaced:|did not get ready)"
        # Who starts anyway meanwhile, in a rolling restart or by a request that asked for its worker's exit, makes this
        # recovery look shorter than it was.
        with contextlib.suppress(AssertionError):
            self.service.wait_output("(?!)", 0)  # reads what is there
        seen = sum(re.search(ready, line) is not None for line in self.service.lines)
        number = self._chance.choice(DEATHS)
        name = stage.rpartition("_")[0]
        began = self._kill(pid, number, Fault("worker", time.monotonic(), ROUTES.get(name, name.lower())))
        self._wait(ready, seen + 1)
        self.recoveries.setdefault(f"worker {number.name}", []).append(time.monotonic() - began)

    def _wait(self, line: str, count: int) -> None:
        with contextlib.suppress(AssertionError):  # a worker that died often waits as long as a test does
            return self.service.wait_outputs(line, count)
        self.service.wait_outputs(line, count)

    def _kill_core(self) -> None:
        recent = [at for at in self._cores if at > time.monotonic() - WINDOW]
        if len(recent) >= MOST_CORES:
            return
        pid = self.service.wait_process("mosec_cy: core")
        began = self._kill(pid, signal.SIGKILL, Fault("core", time.monotonic()))
        self._cores.append(began)
        self.service.wait_outputs(BACK, len(self._cores))
        self._wait_served()
        self.recoveries.setdefault("core SIGKILL", []).append(time.monotonic() - began)

    def _roll(self) -> None:
        """Begins one, which goes on during the faults that follow."""
        self._wait(ROLLED, self.rolls)
        self.service.signal(signal.SIGHUP)
        self.rolls += 1

    def _kill(self, pid: int, number: signal.Signals, fault: Fault) -> float:
        self.ledger.faults.append(fault)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return fault.at

    def _wait_served(self) -> None:
        """Until a request is answered again."""

        def served() -> bool:
            assert self.service.process.poll() is None, "the service has ended"
            with contextlib.suppress(Exception), self.service.client(timeout=5) as client:
                return client.post("/echo", json={"id": 0}).status_code == 200
            return False

        until(served, message="the service does not answer")

    def _stop_worker(self) -> None:
        """No worker dies of it: its requests wait, those dispatched to it ahead are served by others."""
        pid, title = self._victim()
        if "Faulty" in title:  # which has a time-out so short that this would be a hang
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._ended.wait(self._chance.random())
            os.kill(pid, signal.SIGCONT)
