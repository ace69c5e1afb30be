"""What a service at rest holds: memory, descriptors, threads, blocks."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tests.accounting import memory_of
from tests.service import Service

RSS_LIMIT = 24 << 20  # bytes a process may grow: arenas of the interpreter, buffers of the largest bodies


def settle(service: Service, patience: float = 60.0) -> dict[str, int]:
    """Wait until nothing is under way; tasks, blocks of core and charged bytes then. All but leases should be 0."""
    deadline = time.monotonic() + patience
    while True:
        segment = memory_of(service)
        stats = segment.stats()
        core_held, leased = segment.blocks()
        held = {"tasks": stats["remaining"], "charged": stats["charged"], "held": core_held, "leased": leased}
        if held["tasks"] == held["charged"] == 0 or time.monotonic() > deadline:
            return held
        time.sleep(0.05)


def sample(service: Service) -> dict[str, dict[str, int]]:
    """For each process title: private memory in bytes, descriptors, threads."""
    found = {}
    for pid, title in service.processes().items():
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            rss = int(fields["RssAnon"].split()[0]) << 10
            held = service.descriptors(pid)
            # A process that has written to the log since it was started has opened the log's pipe for itself.
            logs = sum(fd > 2 and target == held.get(2) for fd, target in held.items())
            found[title] = {"rss": rss, "descriptors": len(held) - logs, "threads": int(fields["Threads"])}
    return found


def growth(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """By how much each grew."""
    return {
        title: {key: value - before[title][key] for key, value in held.items()}
        for title, held in after.items()
        if title in before
    }


def complaints(held: dict[str, int], grown: dict[str, dict[str, int]]) -> list[str]:
    """What must not be of what was found at the end."""
    found = [f"{name} left at rest: {held[name]}" for name in ("tasks", "charged", "held") if held[name]]
    for title, by in grown.items():
        found += [f"{title}: {by[key]:+} {key}" for key in ("descriptors", "threads") if by[key] > 0]
        if by["rss"] > RSS_LIMIT:
            found.append(f"{title}: {by['rss']:+} bytes of memory")
    return found
