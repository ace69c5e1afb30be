"""Soak: `python -m tests.soak --seconds 1800 --seed 1`. Exits 1 if a request was lost or an answer swapped."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.service import Service
from tests.soak import growth
from tests.soak.chaos import Chaos
from tests.soak.ledger import Ledger
from tests.soak.traffic import drive

SERVED = Path(__file__).with_name("served.py")
WORKERS = 12
WARM_UP = 5.0  # s of traffic before the first sample


def soak(
    seconds: float, seed: int, *, clients: int, rate: float, pause: float, kill_core: bool, roll: bool
) -> dict[str, Any]:
    """Soak a service of its own; the report, whose `failures` should be empty."""
    ledger = Ledger()
    with tempfile.TemporaryDirectory() as directory, Service(SERVED, directory=Path(directory)) as service:
        service.wait_ready()
        service.wait_outputs(r"<\w+\|\d> ready", WORKERS)
        asyncio.run(drive(service.port, ledger, seed, WARM_UP, clients, rate))
        growth.settle(service)
        before = growth.sample(service)
        chaos = Chaos(service, ledger, seed, pause, core=kill_core, roll=roll)
        began = time.monotonic()
        chaos.start()
        try:
            asyncio.run(drive(service.port, ledger, seed + 1, seconds, clients, rate))
        except BaseException:
            service.discard()  # so that no fault waits for it
            with contextlib.suppress(Exception):
                chaos.stop()
            raise
        chaos.stop()
        took = time.monotonic() - began
        held = growth.settle(service)
        grown = growth.growth(before, growth.sample(service))
    failures = [f"{found}: {attempt}" for found, attempt in ledger.failures()]
    recovery = {
        kind: {"times": len(times), "median_s": statistics.median(times), "max_s": max(times)}
        for kind, times in sorted(chaos.recoveries.items())
    }
    return {
        "seed": seed,
        "seconds": round(took, 1),
        "sent": ledger.sent,
        **ledger.totals(),
        "left": ledger.left,
        "kinds": ledger.kinds(),
        "recovery": recovery,
        "rolls": chaos.rolls,
        "accounting": held,
        "growth": grown,
        "failures": failures + growth.complaints(held, grown),
    }


def show(report: dict[str, Any]) -> None:
    for name, value in report.items():
        if isinstance(value, dict):
            print(name)
            for key, item in value.items():
                print(f"    {key:<28} {item}")
        elif name == "failures":
            print(f"failures: {len(value)}", *value[:20], sep="\n    ")
        else:
            print(f"{name:<12} {value}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--rate", type=float, default=300, help="requests a second, about")
    parser.add_argument("--pause", type=float, default=3, help="s between two faults, in the mean")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--kill-core", action=switch, default=True, help="kill core too")
    parser.add_argument("--roll", action=switch, default=True, help="replace workers in rolling restarts too")
    parser.add_argument("--report", type=Path, help="a JSON file for the report")
    options = vars(parser.parse_args())
    path = options.pop("report")
    print(f"seed {options['seed']}", flush=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # its service ends with it
    report = soak(**options)
    show(report)
    if path is not None:
        path.write_text(json.dumps(report, indent=2))
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
