"""What is measured: the works, their loads, and the figures that are to be reached."""

import json
from collections.abc import Callable
from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Wrk:
    """Closed-loop load: `connections` clients, each sending its next request when it has its answer."""

    connections: int


@dataclass(frozen=True)
class Bursts:
    """`size` requests sent together on connections that are open, the next burst when all are answered."""

    size: int
    count: int


@dataclass(frozen=True)
class Idle:
    """No load: the HTTP process's memory, then with `connections` clients that asked once and keep their connection."""

    connections: int


@dataclass(frozen=True)
class Target:
    """A bound on a metric: of the medians' own value, or of the ratio of the subject to the baseline."""

    metric: str
    at_least: bool
    bound: float
    ratio: bool = True

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        if not self.ratio:
            return f"{self.metric} {sign} {self.bound:g}"
        bound = f"{self.bound:g}×" if self.bound >= 1 else f"1/{1 / self.bound:.3g}"
        return f"{self.metric} {sign} {bound}"


def at_least(metric: str, bound: float, ratio: bool = True) -> Target:
    return Target(metric, True, bound, ratio)


def at_most(metric: str, bound: float, ratio: bool = True) -> Target:
    return Target(metric, False, bound, ratio)


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    service: str
    load: Wrk | Bursts | Idle
    body: bytes
    accepts: Callable[[bytes], bool]
    """Whether an answer is right; asked before and after the load."""
    targets: tuple[Target, ...] = ()
    content_type: str = "application/json"


JSON_BODY = b'{"x": 2}'
RAW_BODY = bytes(range(256)) * 4096  # 1 MiB
OCTETS = "application/octet-stream"


def same_json(answer: bytes) -> bool:
    return bool(json.loads(answer) == {"x": 2})


def same_bytes(answer: bytes) -> bool:
    return answer == RAW_BODY


def right_mean(answer: bytes) -> bool:
    """0 … 6 over and over: 3, but for what float32 loses."""
    mean: float = json.loads(answer)["mean"]
    return abs(mean - 3.0) < 1e-3


def right_embeddings(answer: bytes) -> bool:
    rows = json.loads(answer)["embeddings"]
    return len(rows) == 16 and all(len(row) == 384 for row in rows)


def batch_size(answer: bytes) -> bool:
    return 1 <= int(json.loads(answer)) <= 8


CASES = (
    Case(
        "echo-64",
        "JSON echo, 64 connections",
        "echo",
        Wrk(64),
        JSON_BODY,
        same_json,
        (at_least("rps", 9), at_most("cpu_us", 1 / 11)),
    ),
    Case("echo-1", "JSON echo, 1 connection", "echo", Wrk(1), JSON_BODY, same_json, (at_most("p50_us", 1 / 3.5),)),
    Case(
        "batch-64",
        "JSON echo, batches of 32 in 1 ms, 64 connections",
        "batch",
        Wrk(64),
        JSON_BODY,
        same_json,
        (at_least("rps", 3.8), at_most("cpu_us", 1 / 4)),
    ),
    Case(
        "pipeline-64",
        "three JSON echo stages (1, batch 32, 1), 64 connections",
        "pipeline",
        Wrk(64),
        JSON_BODY,
        same_json,
        (at_least("rps", 11),),
    ),
    Case(
        "raw-16",
        "1 MiB raw echo, 16 connections",
        "raw",
        Wrk(16),
        RAW_BODY,
        same_bytes,
        (at_least("rps", 2),),
        OCTETS,
    ),
    Case(
        "raw-zero-copy-16",
        "1 MiB raw echo, zero_copy and new_buffer, 16 connections",
        "raw-zero-copy",
        Wrk(16),
        RAW_BODY,
        same_bytes,
        (at_least("rps", 2.5),),
        OCTETS,
    ),
    Case(
        "raw-1",
        "1 MiB raw echo, 1 connection",
        "raw",
        Wrk(1),
        RAW_BODY,
        same_bytes,
        (at_most("p50_us", 1 / 2.5),),
        OCTETS,
    ),
    Case(
        "raw-zero-copy-1",
        "1 MiB raw echo, zero_copy and new_buffer, 1 connection",
        "raw-zero-copy",
        Wrk(1),
        RAW_BODY,
        same_bytes,
        (at_most("p50_us", 1 / 2.5),),
        OCTETS,
    ),
    Case(
        "array-1",
        "8 MiB float32 array between two stages, 1 connection",
        "array",
        Wrk(1),
        JSON_BODY,
        right_mean,
        (at_most("p50_us", 1 / 12),),
    ),
    Case(
        "embedding-16",
        "16×384 float32 answered as JSON lists, 16 connections",
        "embedding",
        Wrk(16),
        JSON_BODY,
        right_embeddings,
        (at_least("rps", 10),),
    ),
    Case(
        "bursts-8",
        "4 workers, batches of 8 in 10 ms, bursts of 8",
        "bursts",
        Bursts(8, 100),
        JSON_BODY,
        batch_size,
        (at_least("mean_batch", 7.9, ratio=False),),
    ),
    Case(
        "memory",
        "memory of the HTTP process, idle and with 1,000 connections",
        "echo",
        Idle(1000),
        JSON_BODY,
        same_json,
        (at_most("core_mb", 16, ratio=False), at_most("idle_1000_mb", 4, ratio=False)),
    ),
)
