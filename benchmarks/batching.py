"""Automatic batching against the best static setting in hindsight, in the simulator of tests/simulator.py.

For each profile, scenario and seed a sweep over sizes and waits finds the best static setting for each figure; what
automatic batching reaches is printed as a ratio to that: 1 is equal, above 1 is better.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.simulator import Load, Outcome, Profile, simulate

CAP = 32
PROFILES = {  # ms a batch, ms an item
    "flat": Profile(2, 0),
    "gpu": Profile(5, 0.1),
    "cpu": Profile(0.2, 2),
    "tiny": Profile(0.05, 0.005),
    "even": Profile(0.2, 0.5),
    # No constant of the former was chosen by these:
    "llm": Profile(60, 0.8),
    "ocr": Profile(9, 5),
    "small": Profile(0.3, 0.03),
    "wide": Profile(20, 0.05),
    "linear": Profile(0.02, 4),
}
SCENARIOS = [
    *("poisson-20", "poisson-50", "poisson-80", "poisson-95", "poisson-20:4", "poisson-50:4", "poisson-80:4"),
    *("burst-8", "burst-8:2", "onoff", "ramp", "closed-1", "closed-4", "closed-8", "closed-16", "closed-40"),
    *("closed-64", "closed-8:2", "closed-64:2", "closed-24:4", "slow-64"),
]
SIZES = (1, 2, 4, 8, 16, 32)
WAITS = (0, 0.02, 0.05, 0.1, 0.3, 1, 2)  # of the time of a full batch
FIGURES = ("throughput", "mean", "p99")
Setting = tuple[int, float] | None  # size and wait; None: automatic


def poisson(rng: random.Random, rate: float, count: int, burst: int = 1) -> list[float]:
    times: list[float] = []
    now = 0.0
    while len(times) < count:
        now += rng.expovariate(rate / burst)
        times += [now] * burst
    return times


def varying(rng: random.Random, count: int, top: float, share: str, period: float) -> list[float]:
    """Arrivals at up to 95 % of `top`: on and off by turns, or up and down once in a period."""
    times: list[float] = []
    now = 0.0
    while len(times) < count:
        now += rng.expovariate(top)
        turn = now / period
        chance = 0.9 * (turn // 1 % 2) if share == "onoff" else 0.5 - 0.45 * math.cos(2 * math.pi * turn)
        if rng.random() < chance:
            times.append(now)
    return times


def load(scenario: str, profile: Profile, seed: int, count: int) -> tuple[Load, int]:
    """KIND-NUMBER:REPLICAS; the number is per cent of what full batches bear, or of clients."""
    rng = random.Random(f"{scenario} {seed}")
    name, _, replicas = scenario.partition(":")
    kind, _, number = name.partition("-")
    slots = int(replicas or 1)
    full = profile.time(CAP)
    top = CAP / full * slots
    if kind in ("closed", "slow"):
        clients = int(number)
        lasts = max(count / min(top, clients / profile.time(1)), 60 * profile.time(1))
        if kind == "slow":
            return Load(clients=clients, think=lambda rng: rng.expovariate(1 / (5 * full)), until=lasts), slots
        return Load(clients=clients, until=lasts), slots
    if kind == "poisson":
        return Load(poisson(rng, top * int(number) / 100, count)), slots
    if kind == "burst":
        return Load(poisson(rng, top * 0.3, count, int(number))), slots
    period = full * 20 if kind == "onoff" else count / (top * 0.5)
    return Load(varying(rng, count, top, kind, period)), slots


def goods(outcome: Outcome) -> dict[str, float]:
    """Figures of which more is better."""
    return {"throughput": outcome.throughput, "mean": 1 / outcome.mean, "p99": 1 / outcome.latency(0.99)}


def run(case: tuple[str, str, int, int]) -> Iterator[tuple[str, str, str, float, str]]:
    """(profile, scenario, figure, ratio, best static setting) of one seed."""
    name, scenario, seed, count = case
    profile = PROFILES[name]
    settings: list[Setting] = [(size, part * profile.time(CAP)) for size in SIZES for part in WAITS]
    found = {}
    for setting in [None, *settings]:
        work, replicas = load(scenario, profile, seed, count)
        size, wait = setting or (CAP, None)
        found[setting] = goods(simulate(profile, work, size, wait, replicas, setting is None, seed))
    results = []
    for figure in FIGURES[:1] if work.clients else FIGURES[1:]:
        best = max(settings, key=lambda setting: found[setting][figure])
        assert best is not None
        label = f"{best[0]}/{best[1]:.3g}"
        results.append((name, scenario, figure, found[None][figure] / found[best][figure], label))
    return iter(results)


def work(case: tuple[str, str, int, int]) -> list[tuple[str, str, str, float, str]]:
    return list(run(case))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", default=",".join(PROFILES), help="names, by comma (default: all)")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="names, by comma (default: all)")
    parser.add_argument("--count", type=int, default=3000, help="requests a run (default: %(default)s)")
    parser.add_argument("--seeds", default="1,2", help="by comma (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all there")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    cases = list(itertools.product(options.profiles.split(","), options.scenarios.split(","), seeds, [options.count]))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = [row for rows in pool.map(work, cases) for row in rows]
    for key, rows in itertools.groupby(sorted(found), key=lambda row: row[:3]):
        ratios = list(rows)
        shown = " ".join(f"{ratio:6.3f} ({label})" for *_, ratio, label in ratios)
        print(f"{key[0]:8}{key[1]:14}{key[2]:12}{shown}")
    print(f"\n{'ratio to the best static setting: mean / worst':60}")
    for name in [*options.profiles.split(","), ""]:
        parts = []
        for figure in FIGURES:
            ratios = [row[3] for row in found if row[2] == figure and name in ("", row[0])]
            if ratios:
                parts.append(f"{figure} {sum(ratios) / len(ratios):.3f} / {min(ratios):.3f}")
        print(f"{name or 'all':8}" + "   ".join(parts))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
