"""CPU time and memory of a server: every process it has, and those it had."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that matter here (proc_pid_stat(5))."""

    pid: int
    parent: int
    session: int
    cpu_seconds: float
    """Own time and that of children that ended and were waited for."""


def read_stat(pid: int) -> Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold spaces and parentheses: count from the last one.
    fields = text[text.rindex(")") + 2 :].split()
    ticks = sum(int(fields[index]) for index in (11, 12, 13, 14))
    return Stat(pid, int(fields[1]), int(fields[3]), ticks / TICKS_PER_SECOND)


def tree(root: int) -> list[Stat]:
    """`root`, its descendants, and everything in its session (a daemonised child leaves the tree, not the session)."""
    stats = [stat for path in Path("/proc").iterdir() if path.name.isdigit() if (stat := read_stat(int(path.name)))]
    members = {root}
    grew = True
    while grew:
        before = len(members)
        members |= {stat.pid for stat in stats if stat.session == root or stat.parent in members}
        grew = len(members) > before
    return [stat for stat in stats if stat.pid in members]


def cpu_seconds(root: int) -> float:
    """User and system time of the server so far, in seconds."""
    return sum(stat.cpu_seconds for stat in tree(root))


def machine_busy_seconds() -> float:
    """Time that the machine's CPUs were not idle so far, over all of them, in seconds (proc_stat(5))."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = Path("/proc/stat").read_text().split(None, 9)[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / TICKS_PER_SECOND


def memory(pid: int) -> dict[str, int]:
    """RssAnon, RssFile and RssShmem of one process, in bytes."""
    values = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("RssAnon", "RssFile", "RssShmem"):
            values[key] = int(value.split()[0]) * 1024
    return values


def resident_bytes(root: int) -> int:
    """Resident memory of the server; shared memory, which several processes map, is counted once."""
    total, shared = 0, 0
    for stat in tree(root):
        try:
            values = memory(stat.pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += values.get("RssAnon", 0) + values.get("RssFile", 0)
        shared = max(shared, values.get("RssShmem", 0))
    return total + shared


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
