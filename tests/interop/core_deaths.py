"""Core is killed, and clients that do not give up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from tests.service import Service
from tests.until import until

CORE = "mosec_cy: core"
BACK = r"core is back after (\d+) ms"

PIPELINE = """
    import os, signal, sys
    from mosec_cy import Server, Worker, get_logger
    from mosec_cy._master import core

    class Stage(Worker):
        def __init__(self):
            get_logger().info("loading the model of %s", self.stage)

        def forward(self, data):
            return [*data, os.getpid()]

    class First(Stage):
        pass

    class Second(Stage):
        pass

    class Third(Stage):
        pass

    def fail(number, frame):
        sys.executable = os.environ["NO_PYTHON"]
        core.START_TIMEOUT = 0.2

    if __name__ == "__main__":
        for name in ("MOST_DEATHS", "FIRST_DELAY"):
            if name in os.environ:
                setattr(core, name, float(os.environ[name]))
        signal.signal(signal.SIGUSR1, fail)
        server = Server(timeout=60_000)
        server.append_worker(First, num=2)
        server.append_worker(Second, start_method="fork")
        server.append_worker(Third)
        server.run()
"""


def wait_workers(service: Service, count: int) -> Service:
    """Until so many workers have been ready, and it listens."""
    service.wait_ready()
    service.wait_outputs(r"\|\d+> ready", count)
    return service


def kill_core(service: Service, number: signal.Signals = signal.SIGKILL, but: int = 0) -> int:
    """Kill the core that is there, once it is another one than `but`; its pid."""
    (core,) = until(
        lambda: [pid for pid in service.pids(CORE) if pid != but],
        message=lambda: f"no new core among {service.processes()}",
    )
    os.kill(core, number)
    return core


def ask(service: Service, value: Any, path: str = "/inference") -> httpx.Response:
    """One request on connections of its own, sent again as often as they break."""

    def answer() -> httpx.Response | None:
        with contextlib.suppress(httpx.TransportError), service.client(verify=False) as client:
            return client.post(path, json=value)
        return None

    return until(answer)


def workers_of(service: Service) -> list[int]:
    """Pids of the pipeline's workers."""
    return [pid for name in ("First", "Second", "Third") for pid in service.pids(f"mosec_cy: {name}")]


def memories(pid: int) -> list[str]:
    """Which memories of the service a process maps, by inode."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line.split()[4] for line in lines if "/memfd:mosec_cy" in line]


def wait_attached(service: Service) -> None:
    """Until all processes map the memory of the core that runs, and no other."""

    def mapped() -> dict[int, list[str]]:
        return {pid: memories(pid) for pid in service.processes()}

    def attached() -> bool:
        found = mapped()
        return all(len(held) == 1 and held == found[service.process.pid] for held in found.values())

    until(attached, message=lambda: (mapped(), service.processes()))


def recover(service: Service, deaths: int, number: signal.Signals = signal.SIGKILL) -> float:
    """Kill core for the `deaths`th time; s until the next answer, which is the pipeline's."""
    core = kill_core(service, number)
    begun = time.monotonic()
    answer = ask(service, [])
    took = time.monotonic() - begun
    assert (answer.status_code, len(answer.json())) == (200, 3)
    service.wait_outputs(BACK, deaths)
    assert service.pids(CORE) != [core]
    return took
