"""The accounting of a soak: what became of each request, and whether that may be."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Sequence

SLACK = 3.0  # s; a killed process may still take requests until the kernel has ended it
EXCUSED = {"worker": frozenset({500}), "core": frozenset({0})}  # what else a fault of that kind explains


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One request that was sent whole.

    Attributes:
        kind: what kind of request.
        began, ended: when, in s of the monotonic clock.
        status: of the answer; 0: the connection ended instead, None: neither came in time.
        own: the answer holds what was asked for; None: the answer's status promises no such thing.
        allowed: statuses that are right without any fault.
    """

    kind: str
    began: float
    ended: float
    status: int | None
    own: bool | None
    allowed: Collection[int]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A process was killed `at` (s of the monotonic clock): "worker" or "core".

    `route`: that of the worker, which alone is excused; "": any.
    """

    kind: str
    at: float
    route: str = ""


def verdict(attempt: Attempt, faults: Sequence[Fault]) -> str:
    """ "answered", "excused" or "broken" (a fault explains it); or "lost", "swapped", "unexpected": failures."""
    if attempt.status is None:
        return "lost"
    if attempt.own is False:
        return "swapped"
    if attempt.status in attempt.allowed:
        return "answered"
    for fault in faults:
        near = attempt.began - SLACK <= fault.at <= attempt.ended
        near = near and (not fault.route or attempt.kind.partition(":")[0] == fault.route)
        if near and attempt.status in EXCUSED[fault.kind]:
            return "excused" if attempt.status else "broken"
    return "unexpected"


FAILURES = ("lost", "swapped", "unexpected")


class Ledger:
    """Attempts and faults, judged at the end: a fault may be entered after the attempt that it explains."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.left = 0  # clients that left on purpose
        self._plain: collections.Counter[str] = collections.Counter()
        self._doubtful: list[Attempt] = []

    def enter(self, attempt: Attempt) -> None:
        if verdict(attempt, ()) == "answered":
            self._plain[attempt.kind] += 1
        else:
            self._doubtful.append(attempt)

    @property
    def sent(self) -> int:
        return self._plain.total() + len(self._doubtful)

    def totals(self) -> dict[str, int]:
        """How many attempts had which verdict; the failures are named even where there are none."""
        found = collections.Counter({"answered": self._plain.total(), **dict.fromkeys(FAILURES, 0)})
        found.update(verdict(attempt, self.faults) for attempt in self._doubtful)
        return dict(found)

    def kinds(self) -> dict[str, int]:
        """How many requests of which kind were sent."""
        return dict(self._plain + collections.Counter(attempt.kind for attempt in self._doubtful))

    def failures(self) -> list[tuple[str, Attempt]]:
        judged = ((verdict(attempt, self.faults), attempt) for attempt in self._doubtful)
        return [(found, attempt) for found, attempt in judged if found in FAILURES]
