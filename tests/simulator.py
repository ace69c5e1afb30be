"""A stage under a made-up load, by discrete events: the engine's own batcher, with made-up times in place of a clock.

Times are in ms. A batch takes `fixed` + `slope` times what its tasks cost together or, padded, their number times the
costliest, give or take 5 %. All is seeded: the same call gives the same numbers.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.drivers.batcher import Scheduler

NS = 1_000_000  # a ms
RING = 1024
NOISE = 0.05
REPLY = 0.002  # ms between the answers of one batch: they go out one by one


@dataclass(frozen=True)
class Profile:
    """How long a stage's batches take: `fixed` + `slope` a unit of cost (ms).

    Tasks cost 1 each, or with a `sigma` lognormal around `median`, from 4 to 256; `padded`: as many times the largest.
    """

    fixed: float
    slope: float
    padded: bool = False
    median: int = 1
    sigma: float = 0.0

    def cost(self, rng: random.Random) -> int:
        return round(min(max(rng.lognormvariate(math.log(self.median), self.sigma), 4), 256)) if self.sigma else 1

    def batch(self, costs: Sequence[int]) -> float:
        return self.fixed + self.slope * (len(costs) * max(costs) if self.padded else sum(costs))

    def time(self, count: int) -> float:
        """Of a usual batch of that many tasks, in the order of arrival."""
        if not self.sigma:
            return self.fixed + self.slope * count
        rng = random.Random(1)
        return sum(self.batch([self.cost(rng) for _ in range(count)]) for _ in range(400)) / 400


@dataclass
class Load:
    """Arrivals at given times (ms), or clients that each ask again `think` after their answer, until `until`."""

    arrivals: Sequence[float] = ()
    clients: int = 0
    think: Callable[[random.Random], float] = lambda rng: 0.02 + rng.expovariate(10)
    until: float = math.inf


@dataclass
class Outcome:
    """Of each request, in order of arrival: when it came and how long its answer took; and the sizes of the batches."""

    came: list[float] = field(default_factory=list)
    took: dict[int, float] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)

    def steady(self) -> Iterator[tuple[float, float]]:
        """(came, took) after the first 15 % of the time."""
        begin = 0.15 * self.came[-1]
        return ((self.came[task], took) for task, took in self.took.items() if self.came[task] >= begin)

    @property
    def throughput(self) -> float:
        """Answers a ms."""
        seen = list(self.steady())
        return len(seen) / (max(came + took for came, took in seen) - min(came for came, _ in seen))

    def latency(self, share: float) -> float:
        took = sorted(took for _, took in self.steady())
        return took[min(int(len(took) * share), len(took) - 1)]

    @property
    def mean(self) -> float:
        took = [took for _, took in self.steady()]
        return sum(took) / len(took)


class _Run:
    def __init__(self, scheduler: Scheduler, replicas: int, profile: Profile, load: Load, seed: int) -> None:
        self.scheduler = scheduler
        self.profile = profile
        self.load = load
        self.rng = random.Random(seed)
        self.noise = random.Random(seed + 1)
        self.events: list[tuple[float, int, str, object]] = []
        self.order = itertools.count()
        self.outcome = Outcome()
        self.entries: dict[int, tuple[int, bool, int]] = {}  # tasks inside: number, whether its client asks again, cost
        self.rings: list[list[list[tuple[int, int]]]] = [[] for _ in range(replicas)]
        self.armed = math.inf

    def at(self, when: float, kind: str, what: object = None) -> None:
        heapq.heappush(self.events, (when, next(self.order), kind, what))

    def arrive(self, now: float, again: bool) -> None:
        entry = self.scheduler.new()
        assert entry is not None
        cost = self.profile.cost(self.rng)
        self.entries[entry] = (len(self.outcome.came), again, cost)
        self.outcome.came.append(now)
        self.scheduler.enqueue(entry, 0, int(now * NS), cost)

    def begin(self, now: float, slot: int) -> None:
        """The slot takes the next batch of its ring."""
        batch = [task for task in self.rings[slot][0] if self.scheduler.start(*task)]
        took = self.profile.batch([self.entries[entry][2] for entry, _ in batch]) * (
            1 + self.noise.uniform(-NOISE, NOISE)
        )
        self.at(now + took, "done", (slot, batch))

    def finish(self, now: float, slot: int, batch: list[tuple[int, int]]) -> None:
        for place, (entry, sequence) in enumerate(batch):
            assert self.scheduler.complete(slot, entry, sequence, int(now * NS)) is not None
            self.scheduler.free(entry)
            task, again, _ = self.entries.pop(entry)
            self.outcome.took[task] = now + place * REPLY - self.outcome.came[task]
            if again and (back := now + place * REPLY + self.load.think(self.rng)) < self.load.until:
                self.at(back, "arrive", True)
        self.rings[slot].pop(0)
        self.scheduler.set_room(slot, RING)
        if self.rings[slot]:
            self.begin(now, slot)

    def dispatch(self, now: float) -> None:
        while (formed := self.scheduler.next_batch(0, int(now * NS))) is not None:
            slot, batch = formed
            self.outcome.batches.append(len(batch))
            self.rings[slot].append(batch)
            if len(self.rings[slot]) == 1:
                self.begin(now, slot)
        deadline = self.scheduler.deadline(int(now * NS))
        self.armed = math.inf if deadline is None else max(deadline / NS, now + 1 / NS)

    def run(self) -> Outcome:
        for when in self.load.arrivals:
            self.at(when, "arrive", False)
        for _ in range(self.load.clients):
            self.at(self.rng.random() * self.profile.time(1), "arrive", True)
        while self.events or self.armed < math.inf:
            if not self.events or self.armed < self.events[0][0]:
                now = self.armed
                self.scheduler.reclaim(int(now * NS))
            else:
                now, _, kind, what = heapq.heappop(self.events)
                if kind == "arrive":
                    self.arrive(now, bool(what))
                else:
                    self.finish(now, *what)  # type: ignore[misc]
            self.dispatch(now)
        assert not self.entries, "tasks were left"
        return self.outcome


def simulate(
    profile: Profile,
    load: Load,
    max_batch_size: int = 32,
    max_wait: float | None = None,
    replicas: int = 1,
    automatic: bool = True,
    costed: bool = False,
    max_batch_cost: int | None = None,
    seed: int = 0,
) -> Outcome:
    """One run; `max_wait` in ms, of an automatic stage None: as long as it pays; `costed`: the costs are known."""
    wait = None if max_wait is None else round(max_wait * NS)
    costs = {"costed": costed, "padded": costed and profile.padded, "max_batch_cost": max_batch_cost}
    scheduler = Scheduler([(max_batch_size, wait, replicas)], 1 << 14, RING, automatic=automatic, **costs)
    for slot in range(replicas):
        scheduler.slot_up(slot)
    return _Run(scheduler, replicas, profile, load, seed).run()
