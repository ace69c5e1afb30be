"""Counts the instructions that core executes for one request: `python benchmarks/instructions.py [--root DIR]`.

A real service runs, with core alone under callgrind. Each figure is the difference of two services that were asked
different numbers of requests, divided by that difference: first and last steps cancel out. Other programs on the
machine change it a little, as they change how many events one look at epoll finds: compare medians, and least with
least. DIR is a checkout whose engine is built in place, this one by default, so that two commits can be compared.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FEW, MANY = 200, 3200  # requests
BATCH, EVENTS, REPLICAS = 8, 10, 8
OPTIONS = (
    "--timeout",
    "60000",
    "--budget",
    str(256 << 20),
    "--log-level",
    "error",
)  # valgrind maps no more than 32 GiB
PATIENCE = 60.0  # s, for the service to start, answer or end: callgrind makes core some fifty times slower

SERVICE = f"""
import os
import sys

sys.path.insert(0, os.environ["COUNT_ROOT"])

from mosec_cy import Server, SSEWorker, Worker


class Echo(Worker):
    def forward(self, data):
        return data


class Second(Echo):
    pass


class Third(Echo):
    pass


class Events(SSEWorker):
    def forward(self, data):
        for i in range({EVENTS}):
            self.send_stream_event("event")


WORKS = {{
    "echo": [(Echo, {{}})],
    "replicas": [(Echo, {{"num": {REPLICAS}}})],
    "batch": [(Echo, {{"max_batch_size": {BATCH}, "max_wait_time": 10_000}})],
    "pipeline": [(Echo, {{}}), (Second, {{}}), (Third, {{}})],
    "stream": [(Events, {{}})],
}}

if __name__ == "__main__":
    sys.executable = os.environ["COUNT_PYTHON"]
    server = Server()
    for worker, options in WORKS[os.environ["COUNT_WORK"]]:
        server.append_worker(worker, **options)
    server.run()
"""

# In place of the interpreter: that of core is run by callgrind, those of workers are not.
PYTHON = """#!/bin/sh
case "$*" in
*mosec_cy._process.core*|*mosec_cy.core_process*)
    exec valgrind --log-file={counts}.log --tool=callgrind --callgrind-out-file={counts} \\
        --toggle-collect='__pyx_pw_*run_core' {python} "$@" ;;
*) exec {python} "$@" ;;
esac
"""

REQUEST = b'POST /inference HTTP/1.1\r\nhost: bench\r\ncontent-length: 8\r\n\r\n{"x": 2}'


@dataclass(frozen=True)
class Work:
    what: str
    connections: int = 1  # that ask at the same time, again and again
    end: bytes = b""  # of an answer without a content-length


WORKS = {
    "echo": Work("JSON echo, one connection"),
    "replicas": Work(f"the same with {REPLICAS} idle replicas"),
    "batch": Work(f"batches of {BATCH}, each of {BATCH} connections that ask at once", connections=BATCH),
    "pipeline": Work("three stages of JSON echo, one connection"),
    "stream": Work(f"a stream of {EVENTS} events, one connection", end=b"0\r\n\r\n"),
}


def answered(client: socket.socket, end: bytes) -> None:
    """Receive one answer; it must be a 200."""
    data = b""
    while True:
        data += client.recv(65536) or sys.exit(f"the connection was closed after {data!r}")
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if (length and len(body) == int(length[1])) or (end and data.endswith(end)):
            break
    if not data.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"no answer to count: {data!r}")


def ask(path: str, work: Work, times: int) -> None:
    clients = [socket.socket(socket.AF_UNIX) for _ in range(work.connections)]
    for client in clients:
        client.settimeout(PATIENCE)
        client.connect(path)
    for _ in range(times // work.connections):
        for client in clients:
            client.sendall(REQUEST)
        for client in clients:
            answered(client, work.end)
    for client in clients:
        client.close()


def is_ready(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(path)
            client.sendall(b"GET /health/ready HTTP/1.1\r\nhost: bench\r\n\r\n")
            return client.recv(65536).startswith(b"HTTP/1.1 200 ")
        except OSError:  # not there yet
            return False


def wait_ready(path: str, service: subprocess.Popen[bytes]) -> None:
    """Until each stage has a replica, and a moment for the others."""
    deadline = time.monotonic() + PATIENCE
    while not is_ready(path):
        if time.monotonic() > deadline or service.poll() is not None:
            sys.exit("the service did not get ready")
        time.sleep(0.1)
    time.sleep(1)


def instructions(root: Path, name: str, times: int) -> int:
    """That core executes in its loop, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        counts, wrapper, service, path = (f"{folder}/{part}" for part in ("counts", "python", "service.py", "socket"))
        Path(service).write_text(SERVICE)
        Path(wrapper).write_text(PYTHON.format(counts=counts, python=root / ".venv/bin/python"))
        Path(wrapper).chmod(0o700)
        variables = {"COUNT_ROOT": str(root), "COUNT_PYTHON": wrapper, "COUNT_WORK": name}
        process = subprocess.Popen(
            [root / ".venv/bin/python", service, "--address", f"unix:{path}", *OPTIONS],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
        )
        try:
            wait_ready(path, process)
            ask(path, WORKS[name], times)
            process.terminate()
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
        totals = re.search(r"^totals: (\d+)$", Path(counts).read_text(), re.MULTILINE)
        if totals is None:
            sys.exit("callgrind left no count")
        return int(totals[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to count, with its .venv (default: this one)")
    parser.add_argument("--only", default=",".join(WORKS), help=f"comma-separated: {', '.join(WORKS)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="of each work, of which the median is given (default: 5)")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("this needs valgrind")
    root = options.root.resolve()
    print(f"{'work':10}{'instructions a request':>24}{'least':>10}{'most':>10}")
    for name in options.only.split(","):
        found = sorted(
            (instructions(root, name, MANY) - instructions(root, name, FEW)) / (MANY - FEW) for _ in range(options.runs)
        )
        print(
            f"{name:10}{statistics.median(found):24.0f}{found[0]:10.0f}{found[-1]:10.0f}   {WORKS[name].what}",
            flush=True,
        )


if __name__ == "__main__":
    main()
