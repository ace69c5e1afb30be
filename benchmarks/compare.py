"""Compares mosec_cy with Mosec, and with LitServe and FastAPI where they are installed.

Servers are started in turn, A B A B, so that a machine that slows down slows both; the figures are
medians over the rounds, the ratios medians of each round's ratio. See README.md in this folder.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from comparison import report
from comparison.cases import CASES, Case
from comparison.loads import measure
from comparison.peers import PEERS, Environment, Peer, ServerFailed, environment, installed, running
from comparison.plot import plot

ROOT = Path(__file__).parent.parent
OPEN_FILES = 4096


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="times that each server is started for each work (5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement under wrk, seconds (3)")
    parser.add_argument("--only", help=f"works to measure, by comma: {', '.join(case.name for case in CASES)}")
    parser.add_argument(
        "--peers",
        help="further servers, by comma, installed if need be: litserve, fastapi "
        "(default: those installed by an earlier run)",
    )
    parser.add_argument(
        "--subject",
        default="mosec_cy",
        choices=list(PEERS),
        help="what is compared with Mosec; `mosec` itself shows the noise of the method (mosec_cy)",
    )
    parser.add_argument("--environments", type=Path, default=ROOT / ".peer", help="folder of the peers' environments")
    parser.add_argument("--output", type=Path, default=ROOT / "bench-results", help="folder of compare.json and .png")
    parser.add_argument("--load", type=Path, metavar="JSON", help="measure nothing: report an earlier run's JSON file")
    parser.add_argument(
        "--update", type=Path, metavar="FILE", help="put the summary between the `measured` marks of a Markdown file"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser.parse_args()


def chosen_cases(only: str | None) -> list[Case]:
    if only is None:
        return list(CASES)
    known = {case.name: case for case in CASES}
    unknown = [name for name in only.split(",") if name not in known]
    if unknown:
        sys.exit(f"no such work: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in only.split(",")]


def chosen_peers(options: argparse.Namespace) -> list[Peer]:
    """Baseline, subject, then the further columns."""
    subject = PEERS[options.subject]
    if subject.name == "mosec":
        subject = replace(subject, name="mosec-again")
    if options.peers is None:
        others = [name for name in ("litserve", "fastapi") if installed(PEERS[name], options.environments)]
    else:
        others = [name for name in options.peers.split(",") if name and name != "mosec"]
    unknown = [name for name in others if name not in PEERS]
    if unknown:
        sys.exit(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return [PEERS["mosec"], subject, *(PEERS[name] for name in others)]


def machine() -> dict[str, str | int]:
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count() or 0,
    }


def run(case: Case, peer: Peer, env: Environment, seconds: int) -> dict[str, float] | None:
    """Metrics of one start of one server; None, with the reason on stderr, where it failed."""
    try:
        with running(peer, env, case.service) as server:
            return measure(case, server, seconds)
    except ServerFailed as error:
        print(f"{case.name}, {peer.name}: {error}", file=sys.stderr, flush=True)
        return None


def compare(cases: list[Case], peers: list[Peer], options: argparse.Namespace) -> report.Result:
    environments = {peer.name: environment(peer, options.environments) for peer in peers}
    result: report.Result = {
        "baseline": peers[0].name,
        "subject": peers[1].name,
        "machine": machine(),
        "versions": {peer.name: environments[peer.name].version(peer.distribution) for peer in peers},
        "seconds": options.seconds,
        "cases": {},
    }
    for case in cases:
        able = [peer for peer in peers if peer.supports(case.service) and (peer.core or case.name != "memory")]
        runs: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in able}
        for round_number in range(options.rounds):
            print(f"{case.name}: round {round_number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for peer in able:
                metrics = run(case, peer, environments[peer.name], options.seconds)
                runs[peer.name].append(metrics or {"errors": 1.0})
        result["cases"][case.name] = runs
    return result


def main() -> int:
    options = arguments()
    if options.load:
        result = json.loads(options.load.read_text())
    else:
        if shutil.which("wrk") is None:
            sys.exit("wrk is needed for the loads (Debian: apt-get install wrk)")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, OPEN_FILES), hard))
        result = compare(chosen_cases(options.only), chosen_peers(options), options)
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "compare.json").write_text(json.dumps(result, indent=1) + "\n")
    options.output.mkdir(parents=True, exist_ok=True)
    print(report.text(result))
    picture = options.output / "compare.png"
    if not plot(result, picture):
        print("\n(no plot: matplotlib is not installed, or no ratio has a target)", file=sys.stderr)
    if options.update:
        report.update(options.update, result)
    missed = [verdict for verdict in report.verdicts(result) if not verdict[3]]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
