"""What the machine and the container allow, memory and the kernel that the engine needs; and what its numbers hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

LONGEST_MS = 1_000_000_000_000
"""Most that any time may be set to, 31 years: sums of a few such times and of the clock, in ns, fit into 64 bits."""

_OLDEST_KERNEL = (5, 10)


def default_budget() -> int:
    """A quarter of the smaller of the machine's memory and the control group's limit, in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(min([memory, *_control_group_limits()]) // 4, 1 << 20)


def check_kernel(release: str) -> None:
    """Raise RuntimeError if `release` (as of `uname -r`) is too old a Linux."""
    numbers = release.replace("-", ".").split(".")[:2]
    if all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < _OLDEST_KERNEL:
        raise RuntimeError(f"mosec_cy needs Linux {'.'.join(map(str, _OLDEST_KERNEL))} or newer, this is {release}")


def _control_group_limits(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Memory limits (bytes) of this process's control group and those above it, version 2 or 1."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        # Within a container the path is the host's and may not exist: its own group is then mounted at the top.
        for directory in (group, *group.parents):
            limit = _number_in(directory / name)
            if limit is not None:
                yield limit
            if directory == top:
                break


def _number_in(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
