"""Counts instructions for one request head, with valgrind: `python benchmarks/count_parser.py`.

Each figure is the difference of two runs with different numbers of requests, divided by the difference: start-up
cancels out. "in C" is the parser alone, "called" includes the call from Python, as httptools' figure does.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FEW, MANY = 1_000, 21_000


def runner(what: str, data: bytes) -> Callable[[int], object]:
    """A function that has `data` parsed a number of times."""
    if what == "httptools":
        import httptools

        feed = httptools.HttpRequestParser(object()).feed_data
        return lambda times: [feed(data) for _ in range(times)]
    from tests.drivers.http_request import RequestParser

    parser = RequestParser()
    if what == "in C":
        return lambda times: parser.parse_many(data, times)
    return lambda times: [parser.parse(data) for _ in range(times)]


def instructions(what: str, name: str, times: int) -> int:
    """Instructions that a whole interpreter executes."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    # With hashes of one seed, start-up is the same in both runs.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*command, what, name, str(times)], capture_output=True, text=True, check=True, timeout=300, env=environment
    )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if collected is None:
        raise RuntimeError(f"no count in valgrind's output: {done.stderr}")
    return int(collected[1])


def main(arguments: list[str]) -> None:
    sys.path.insert(0, str(ROOT))
    from benchmarks.requests_http import REQUESTS

    if arguments:
        what, name, times = arguments
        runner(what, REQUESTS[name])(int(times))
        return
    print(f"{'':12}{'request':12}{'bytes':>6}{'instructions':>14}")
    for name, data in REQUESTS.items():
        for what in ("in C", "called", "httptools"):
            count = (instructions(what, name, MANY) - instructions(what, name, FEW)) / (MANY - FEW)
            print(f"{what:12}{name:12}{len(data):6}{count:14.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
