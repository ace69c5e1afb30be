"""Automatic batching of a real service against static settings, under closed loops of wrk: requests/s and p99.

For each work and number of clients all settings are measured in turn, round by round; ratios are medians over the
rounds of automatic to the best static setting of that round.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.service import Service

WORKS = {"flat": (2.0, 0.0), "gpu": (5.0, 0.1), "even": (0.2, 0.5)}  # ms a batch, ms an item
SIZE = 32
SETTINGS = [(None, None), *((size, wait) for size in (4, 8, 16, 32) for wait in (1, 2, 4, 10))]
PROGRAM = """
import sys
import time

from mosec_cy import Server, Worker

fixed, slope, size, wait = (float(value) for value in sys.argv[1:5])


class Model(Worker):
    def deserialize(self, data):
        return bytes(data)

    def serialize(self, data):
        return data

    def forward(self, data):
        end = time.perf_counter() + (fixed + slope * len(data)) / 1000
        time.sleep(max(end - time.perf_counter() - 0.0003, 0))  # most of it: the load needs the processor too
        while time.perf_counter() < end:
            pass
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, max_batch_size=int(size), max_wait_time=int(wait))
    server.run()
"""
POST = 'wrk.method = "POST"\nwrk.body = "x"\n'
MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def wrk(address: str, clients: int, seconds: int, script: Path) -> tuple[float, float]:
    """Requests a second, and p99 in ms."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script)]
    said = subprocess.run([*command, f"http://{address}/inference"], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert rate, said
    assert late, said
    return float(rate[1]), float(late[1]) * MS[late[2]]


def measure(work: str, setting: tuple[int | None, int | None], clients: int, seconds: int) -> tuple[float, float]:
    size, wait = setting
    with tempfile.TemporaryDirectory() as folder:
        script, program = Path(folder, "post.lua"), Path(folder, "program.py")
        script.write_text(POST)
        program.write_text(PROGRAM)
        arguments = [*map(str, WORKS[work]), str(size or SIZE), str(wait or 0)]
        with Service(program, *arguments, directory=Path(folder)) as service:
            address = service.wait_ready().address
            wrk(address, clients, 1, script)
            found = wrk(address, clients, seconds, script)
            service.signal(signal.SIGTERM)
            service.wait_end()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", default=",".join(WORKS), help="by comma (default: all)")
    parser.add_argument("--clients", default="4,8,16,64", help="by comma (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default: %(default)s)")
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors; {options.rounds} rounds of {options.seconds} s")
    print("work  clients   automatic/s    p99 ms   best static/s (size/wait)   ratio   p99 ratio")
    for work in options.works.split(","):
        for clients in map(int, options.clients.split(",")):
            rounds = [
                {setting: measure(work, setting, clients, options.seconds) for setting in SETTINGS}
                for _ in range(options.rounds)
            ]
            best = max(SETTINGS[1:], key=lambda setting: statistics.median(r[setting][0] for r in rounds))
            ours = [r[None, None] for r in rounds]
            ratio = statistics.median(r[None, None][0] / r[best][0] for r in rounds)
            late = statistics.median(r[None, None][1] / r[best][1] for r in rounds)
            print(
                f"{work:6}{clients:7}{statistics.median(rate for rate, _ in ours):14.0f}"
                f"{statistics.median(p99 for _, p99 in ours):10.2f}"
                f"{statistics.median(r[best][0] for r in rounds):16.0f} ({best[0]}/{best[1]})"
                f"{ratio:16.2f}{late:12.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
