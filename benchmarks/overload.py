"""What becomes of a service that is asked for more than it can do: goodput, refusals, latency, memory.

    python benchmarks/overload.py --seconds 60

The sustainable rate of a service whose batches take a known time is measured in a closed loop; then clients that do
not wait for their answers ask for a multiple of it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from open_loop import Tally, drive, saturate

from mosec_cy._engine.segment import Segment

SERVICE = Path(__file__).with_name("overload_service.py")
COLUMNS = (
    "load,goodput/s,of peak,200,408,429,503,other,lost,refusal p50,p99,200 p50,p99,max,"
    "expired,wasted,core MiB,charged MiB"
)
REFUSALS = (429, 503)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="length of each load (10)")
    parser.add_argument("--loads", default="1,2,3", help="multiples of the sustainable rate, by comma (1,2,3)")
    parser.add_argument("--batch-ms", type=float, default=10, help="time of one batch, ms (10)")
    parser.add_argument("--batch", type=int, default=4, help="items a batch (4)")
    parser.add_argument("--replicas", type=int, default=2, help="workers (2)")
    parser.add_argument("--body", type=int, default=100, help="bytes of a request's body (100)")
    parser.add_argument("--clients", type=int, default=2, help="client processes (2)")
    parser.add_argument("--deadline", type=int, help="ms, sent as x-request-timeout-ms (none)")
    parser.add_argument("server", nargs="*", help="options of the server after `--`, such as --timeout 500")
    return parser.parse_args()


class Service:
    """The service at work: its port, what its workers have counted, and the memory that core holds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            if found := re.search(r"listening on \S+?:(\d+)", line):
                break
        if found is None:
            sys.exit("the service has not started")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        self.port = int(found[1])
        self.pid = process.pid
        (self.core,) = (pid for pid in _children(self.pid) if b"mosec_cy: core" in _title(pid))
        self.segment = _segment(self.pid)

    def counts(self) -> dict[str, float]:
        """`items`, `expired` and `wasted`, of all workers."""
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30).read().decode()
        return {name: float(value) for name, value in re.findall(r"^overload_(\w+)_total (\S+)$", page, re.M)}

    def core_bytes(self) -> int:
        """Private memory of core, and what it has touched of the shared."""
        status = Path(f"/proc/{self.core}/status").read_text()
        return sum(int(size) << 10 for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _title(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")


def _segment(pid: int) -> Segment:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if str(entry.readlink()).startswith("/memfd:mosec_cy "):
            return Segment.attach(os.open(entry, os.O_RDWR))
    raise RuntimeError("the master has no shared memory")


@contextmanager
def running(options: argparse.Namespace) -> Iterator[Service]:
    """The service, with the time-out and capacity that were asked for."""
    shape = [str(options.batch_ms), str(options.batch), str(options.replicas)]
    process = subprocess.Popen(
        [sys.executable, str(SERVICE), *shape, "--address", "127.0.0.1", "--port", "0", *options.server],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Service(process)
    finally:
        process.terminate()
        process.wait(60)


class Peaks:
    """Looks at the service's memory until it is closed."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.core = self.charged = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.over.wait(0.1):
            self.core = max(self.core, self.service.core_bytes())
            self.charged = max(self.charged, self.service.segment.stats()["charged"])

    def close(self) -> None:
        self.over.set()
        self.thread.join()


def share(values: Sequence[float], part: float) -> str:
    """A quantile in ms."""
    return f"{sorted(values)[int(part * (len(values) - 1))] * 1000:.1f}" if values else "-"


def row(load: str, peak: float, tally: Tally, before: dict[str, float], after: dict[str, float], peaks: Peaks) -> str:
    """One line of the table."""
    count = {status: len(latencies) for status, latencies in tally.latencies.items()}
    refusals = [latency for status in REFUSALS for latency in tally.latencies.get(status, ())]
    good = tally.latencies.get(200, [])
    named = [count.pop(status, 0) for status in (200, 408, *REFUSALS)]
    cells = [load, f"{tally.good / tally.seconds:.0f}", f"{tally.good / tally.seconds / peak:.1%}", *map(str, named)]
    cells += [str(sum(count.values())), str(tally.lost + tally.unsent)]
    cells += [share(refusals, 0.5), share(refusals, 0.99), *(share(good, part) for part in (0.5, 0.99, 1))]
    cells += [f"{after[name] - before[name]:.0f}" for name in ("expired", "wasted")]
    cells += [f"{size / 2**20:.1f}" for size in (peaks.core, peaks.charged)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    options = arguments()
    body = b'"' + b"x" * (options.body - 2) + b'"'
    headers = f"x-request-timeout-ms: {options.deadline}\r\n" if options.deadline else ""
    with running(options) as service, concurrent.futures.ProcessPoolExecutor(options.clients) as pool:
        found = saturate(service.port, body, 4 * options.batch * options.replicas, 5)
        peak = found.good / found.seconds
        possible = options.batch * options.replicas / options.batch_ms * 1000
        print(f"sustainable: {peak:.0f} requests/s, measured; {possible:.0f} by the batches' time alone\n")
        columns = COLUMNS.split(",")
        print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)
        for load in map(float, options.loads.split(",")):
            before, peaks = service.counts(), Peaks(service)
            rate = peak * load / options.clients
            clients = [
                pool.submit(drive, service.port, body, rate, options.seconds, seed, headers)
                for seed in range(options.clients)
            ]
            tally = Tally(options.seconds)
            for client in clients:
                tally.add(client.result())
            peaks.close()
            print(row(f"{load:g}x", peak, tally, before, service.counts(), peaks), flush=True)
            if tally.without_retry:
                print(f"{tally.without_retry} refusals without retry-after")


if __name__ == "__main__":
    main()
