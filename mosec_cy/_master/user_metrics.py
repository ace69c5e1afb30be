"""What user code records in the worker processes, gathered by the master for `/metrics`: metrics of several processes
become one, in which counts are summed, and the dead keep theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from mosec_cy._master.reactor import Reactor, Timer
from mosec_cy._process.snapshot import ACCUMULATING, Family, Recorder, Sample, decode
from mosec_cy._web.metrics import names_taken
from mosec_cy.log import get_logger

COLLECT_TIMEOUT = 0.25  # s; how long a page waits for the workers
MOST_KEPT = 50_000  # samples of processes that have ended
Ask = Callable[[], None]
Done = Callable[[list[Family]], None]


class _Process:
    """A worker that is ready: how to ask it, since when it owes an answer, and its last one."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.asked_at: float | None = None
        self.families: Sequence[Family] = ()

    def late(self) -> bool:
        return self.asked_at is not None and time.monotonic() - self.asked_at >= COLLECT_TIMEOUT


class UserMetrics:
    """One collection at a time: asks all workers, and is done when they have answered or `COLLECT_TIMEOUT` is over.

    A worker that is late (its GIL is held, or it is stopped) is represented by what it said last, and is not asked
    again, nor waited for, before it has answered.

    Args:
        reactor: the master's loop.
        taken: names of the service's own metrics.
    """

    def __init__(self, reactor: Reactor, taken: Iterable[str]) -> None:
        self._reactor = reactor
        self._merger = Merger(taken)
        self._recorder = Recorder()
        self._processes: dict[int, _Process] = {}
        self._awaited: set[int] = set()
        self._waiting: list[Done] = []
        self._deadline: Timer | None = None

    def joined(self, slot: int, ask: Ask) -> None:
        """The slot has a process that can be asked; `ask` does so and does not block."""
        self._processes[slot] = _Process(ask)

    def answered(self, slot: int, body: object) -> None:
        """The slot's process has told what it recorded. Raises ValueError if `body` is nothing of the kind."""
        families = decode(body)
        process = self._processes.get(slot)
        if process is None:  # it says so before it was ready
            return
        process.families = families
        process.asked_at = None
        self._settle(slot)

    def left(self, slot: int) -> None:
        """The slot's process has ended; its counts are kept."""
        process = self._processes.pop(slot, None)
        if process is not None:
            self._merger.fold_exited(process.families)
        self._settle(slot)

    def collect(self, done: Done) -> None:
        """Call `done` with the merged metrics of all processes; a collection that is under way serves this one too."""
        self._waiting.append(done)
        if self._deadline is not None:
            return
        self._deadline = self._reactor.call_later(COLLECT_TIMEOUT, self._finish)
        for slot, process in self._processes.items():
            if process.late():
                continue
            if process.asked_at is None:
                process.asked_at = time.monotonic()
                process.ask()
            self._awaited.add(slot)
        if not self._awaited:
            self._finish()

    def _settle(self, slot: int) -> None:
        if slot in self._awaited:
            self._awaited.discard(slot)
            if not self._awaited:
                self._finish()

    def _finish(self) -> None:
        assert self._deadline is not None
        self._deadline.cancel()
        self._deadline = None
        self._awaited.clear()
        waiting, self._waiting = self._waiting, []
        living = [self._processes[slot].families for slot in sorted(self._processes)]
        metrics = self._merger.merged([self._recorder.families(), *living])
        for done in waiting:
            done(metrics)


# ---- adding up ------------------------------------------------------------------------------------

_GREATEST = frozenset({"info", "stateset"})  # their value is a fact, 0 or 1
_Labels = tuple[tuple[str, str], ...]


class _Series:
    """A sample over all processes that have it."""

    __slots__ = ("processes", "sample", "value")

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.value = sample.value
        self.processes = 1


class _Merged:
    """A family over all processes; the first of them says type and help."""

    def __init__(self, family: Family) -> None:
        self.name = family.name
        self.kind = family.kind
        self.help = family.help
        self.series: dict[tuple[str, _Labels], _Series] = {}
        self._label_names: set[frozenset[str]] = set()

    def complaint(self, family: Family) -> str:
        """Why `family` is not the same metric; empty if it is."""
        if family.kind != self.kind:
            return f"it is a {self.kind} in one process and a {family.kind} in another"
        names = _label_names(family.samples)
        if self.kind != "info" and names and self._label_names and names.isdisjoint(self._label_names):
            return "it has other labels in one process than in another"
        return ""

    def add(self, family: Family) -> None:
        self._label_names |= _label_names(family.samples)
        for sample in family.samples:
            key = sample.key
            series = self.series.get(key)
            if series is None:
                self.series[key] = _Series(sample)
                continue
            series.processes += 1
            if self.kind in _GREATEST:
                series.value = max(series.value, sample.value)
            else:
                series.value += sample.value

    def family(self) -> Family:
        return Family(self.name, self.kind, self.help, list(self._samples()))

    def _samples(self) -> Iterator[Sample]:
        """Sums; of a histogram's buckets those that all processes have: the sum of others would be too small."""
        everywhere: dict[_Labels, int] = {}
        for (suffix, labels), series in self.series.items():
            if suffix == "_bucket":
                plain = _without_bound(labels)
                everywhere[plain] = max(everywhere.get(plain, 0), series.processes)
        for (suffix, labels), series in self.series.items():
            if suffix != "_bucket" or series.processes == everywhere[_without_bound(labels)]:
                yield Sample(suffix, series.sample.labels, series.value)


class Merger:
    """Merges what processes recorded, and remembers what was wrong with it: each complaint is logged once."""

    def __init__(self, taken: Iterable[str]) -> None:
        """`taken`: names of the service's own metrics."""
        self._taken = frozenset(taken)
        self._kept: list[Family] = []
        self._reported: set[str] = set()

    def fold_exited(self, families: Sequence[Family]) -> None:
        """Keep the counts of a process that has ended."""
        counts = [family for family in families if family.kind in ACCUMULATING]
        merged = self._merge([self._kept, counts])
        if sum(len(family.samples) for family in merged) > MOST_KEPT:
            self._report(f"counts of ended processes are lost: {MOST_KEPT} samples of them are kept, no more")
            return
        self._kept = merged

    def merged(self, processes: Iterable[Sequence[Family]]) -> list[Family]:
        """One family for each name: sums over `processes`, which live, and over the counts of the dead."""
        return self._merge([*processes, self._kept])

    def _merge(self, processes: Iterable[Sequence[Family]]) -> list[Family]:
        by_name: dict[str, _Merged] = {}
        owners: dict[str, str] = dict.fromkeys(self._taken, "the service's own metrics")
        for families in processes:
            for family in families:
                merged = by_name.get(family.name)
                complaint = merged.complaint(family) if merged else _clash(family, owners)
                if complaint:
                    self._report(f"/metrics lacks some of what was recorded as {family.name!r}: {complaint}")
                    continue
                if merged is None:
                    merged = by_name[family.name] = _Merged(family)
                    owners.update(dict.fromkeys(names_taken(family.name, family.kind), family.name))
                merged.add(family)
        return [merged.family() for merged in by_name.values()]

    def _report(self, complaint: str) -> None:
        if complaint not in self._reported and len(self._reported) < 1000:
            self._reported.add(complaint)
            get_logger().error("%s", complaint)


def _clash(family: Family, owners: dict[str, str]) -> str:
    for name in names_taken(family.name, family.kind):
        if name in owners:
            return f"the name {name!r} belongs to {owners[name]}"
    return ""


def _label_names(samples: Iterable[Sample]) -> set[frozenset[str]]:
    return {frozenset(sample.labels) - {"le"} for sample in samples}


def _without_bound(labels: _Labels) -> _Labels:
    return tuple(pair for pair in labels if pair[0] != "le")
