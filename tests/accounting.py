"""What a running service holds, read from outside: its shared memory, its processes' memory, descriptors and sleep."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mosec_cy._engine.segment import Segment
from tests.service import Service
from tests.until import until


def memory_of(service: Service) -> Segment:
    """The service's shared memory, as its master has it."""
    for fd, target in service.descriptors(service.process.pid).items():
        if target.startswith("/memfd:mosec_cy "):
            return Segment.attach(os.open(f"/proc/{service.process.pid}/fd/{fd}", os.O_RDWR))
    raise AssertionError("the master has no shared memory")


@contextlib.contextmanager
def memory(service: Service) -> Iterator[Segment]:
    """The same; at the end no connection, request, charged byte or block may be left in it."""
    segment = memory_of(service)
    try:
        yield segment
        at_rest(segment)
        wait_until(segment, lambda stats: stats["connections"] == 0)
        assert segment.blocks() == (0, 0)
    finally:
        segment.close()


def wait_until(segment: Segment, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Until core's statistics fulfil `condition`."""
    until(lambda: condition(segment.stats()), message=lambda: f"never came true: {segment.stats()}")


def at_rest(segment: Segment) -> None:
    wait_until(segment, lambda stats: stats["remaining"] == stats["charged"] == 0)


def status(pid: int, name: str) -> int:
    """A number of /proc/PID/status: of KiB, of switches."""
    match = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match, name
    return int(match[1])


def switches(pid: int) -> int:
    """How often a process has been scheduled."""
    return status(pid, "voluntary_ctxt_switches") + status(pid, "nonvoluntary_ctxt_switches")


def wait_asleep(pid: int) -> None:
    """Until the process sleeps."""
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")


def assert_at_most(wakes: int, pid: int) -> None:
    """In some half second a process wakes so often at most; a few seconds are allowed for what has to come to rest."""
    for _ in range(20):
        before = switches(pid)
        threading.Event().wait(0.5)  # what is measured is this half second
        if switches(pid) - before <= wakes:
            return
    raise AssertionError(f"{switches(pid) - before} times in half a second")


def assert_nobody_wakes(service: Service, attempts: int = 5) -> None:
    """For a second no process of the service is scheduled; there are some to hear of what has gone before."""
    for _ in range(attempts):
        asleep = scheduled(service)
        threading.Event().wait(1.0)  # what is measured is this second
        if scheduled(service) == asleep:
            return
    raise AssertionError(f"{asleep} became {scheduled(service)}")


def scheduled(service: Service) -> dict[int, list[str]]:
    """How often each thread of each process was scheduled."""
    return {
        int(thread.name): re.findall(r"ctxt_switches:\s+(\d+)", (thread / "status").read_text())
        for pid in service.processes()
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }
