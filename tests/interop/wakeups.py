"""Whether a service that has nothing to do sleeps."""

import re
import threading
from pathlib import Path

from tests.service import Service


def assert_nobody_wakes(service: Service) -> None:
    """For a second no process of the service is scheduled; there are some to hear of what has gone before."""
    for _ in range(5):
        asleep = switches(service)
        threading.Event().wait(1.0)  # what is measured is this second
        if switches(service) == asleep:
            return
    raise AssertionError(f"{asleep} became {switches(service)}")


def switches(service: Service) -> dict[int, list[str]]:
    """How often each thread of each process was scheduled."""
    return {
        int(thread.name): re.findall(r"ctxt_switches:\s+(\d+)", (thread / "status").read_text())
        for pid in service.processes()
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }
