"""What is to run: stages, their slots in the worker table, and routes, worked out before any process starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mosec_cy._config.options import Options
from mosec_cy.runtime import Runtime
from mosec_cy.worker import steps, streams

TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
STYLE = "text/css; charset=utf-8"
PNG = "image/png"
MASTER_SLOT = 0
MASTER_STAGE = 0
_MASTER_BATCH = 16  # requests that master gets at a time; those for /metrics share one look at the workers
_STATIC_WAIT = 10  # ms, where none is given: Mosec's default
_LONGEST_CONTENT_TYPE = 256  # that core makes a response's head of
_RESERVED = ("/metrics", "/openapi", "/health/live", "/health/ready")
_MASTER_ROUTES = (("/metrics", False), ("/openapi", True))
_MASTER_TYPES = (TEXT, METRICS, JSON, HTML, SCRIPT, STYLE, PNG)


class Resource(NamedTuple):
    """What the master answers a GET with."""

    body: bytes
    content_type: str


@dataclass(frozen=True)
class Stage:
    """One runtime in its place: `number` counts from 1, in the order of registration.

    `spares`: slots beyond those of its replicas, for replacements that start while these still serve.
    """

    number: int
    runtime: Runtime
    first_slot: int
    content_type: int
    spares: int = 0
    tells_costs: bool = False  # of its results, to the stage that follows it on some route

    @property
    def name(self) -> str:
        return f"{self.runtime.worker.__name__}_{self.number}"

    @property
    def slots(self) -> range:
        """Where its replicas begin, in the order of their ids; a replica may move to the spare slot."""
        return range(self.first_slot, self.first_slot + self.runtime.num)

    @property
    def all_slots(self) -> range:
        return range(self.first_slot, self.slots.stop + self.spares)


@dataclass(frozen=True)
class StageConfig:
    """What core is told of a stage; its slots begin at `first_slot`."""

    name: str
    first_slot: int
    slots: int
    max_batch_size: int = 1
    max_wait_ns: int = 0  # of automatic ones 0: no limit
    automatic: bool = False
    cost: str = "count"
    max_batch_cost: int = 0
    padded: bool = False
    timeout_ns: int = 0
    retry: int = 0
    joins: bool = False


@dataclass(frozen=True)
class RouteConfig:
    """What core is told of a route; `prefix`: of all paths that begin so. `stages`: their numbers, in order."""

    path: str
    method: str
    stages: list[int]
    prefix: bool = False
    streams: bool = False


@dataclass(frozen=True)
class Plan:
    """Stages by number less 1, and for each route the numbers of its stages in order."""

    stages: tuple[Stage, ...]
    routes: Mapping[str, tuple[int, ...]]
    content_types: tuple[str, ...]

    def is_first(self, stage: Stage) -> bool | None:
        """It takes the bodies of requests; None: on some of its routes, or at one of its places in a route."""
        return _always(place == 0 for route in self.routes.values() for place in _places(stage, route))

    def is_last(self, stage: Stage) -> bool | None:
        """It answers clients; None: on some of its routes, or at one of its places in a route."""
        return _always(place == len(route) - 1 for route in self.routes.values() for place in _places(stage, route))

    def ring_capacities(self) -> list[tuple[int, int]]:
        """(submit, complete) capacity of each slot's rings, powers of two; slot 0 is master's."""
        capacities = [(4 * _MASTER_BATCH, 4 * _MASTER_BATCH)]
        for stage in self.stages:
            # Room for the batch that runs, one dispatched ahead, and results that core has not taken yet.
            room = _power_of_two(max(4 * stage.runtime.max_batch_size, 64))
            capacities += [(room, 4 * room)] * len(stage.all_slots)
        return capacities

    def max_tasks(self, capacity: int) -> int:
        """Room for `capacity` tasks before each stage of the longest route, and for all that run."""
        depth = max(map(len, self.routes.values()))
        running = sum(submit for submit, _ in self.ring_capacities())
        return _power_of_two(capacity * depth + running)

    def stage_configs(self, options: Options) -> list[StageConfig]:
        master = StageConfig("master", MASTER_SLOT, 1, max_batch_size=_MASTER_BATCH)
        return [master, *(_stage_config(stage, options) for stage in self.stages)]

    def route_configs(self) -> list[RouteConfig]:
        """The users' routes first, in order of registration: statistics are indexed by place in this list."""
        users = [
            RouteConfig(path, "POST", list(stages), streams=streams(self.stages[stages[-1] - 1].runtime.worker))
            for path, stages in self.routes.items()
        ]
        masters = [RouteConfig(path, "GET", [MASTER_STAGE], prefix=prefix) for path, prefix in _MASTER_ROUTES]
        return users + masters


def make_plan(routes: Mapping[str, Sequence[Runtime]], spares: int = 0) -> Plan:
    """Number the stages and give out the slots; a runtime that several routes share is one stage.

    Args:
        routes: for each path its stages in order.
        spares: slots of each stage beyond those of its replicas.

    Raises:
        ValueError: there is no route, or a worker's `resp_mime_type` is too long.
        TypeError: a worker's `resp_mime_type` is not a string.
    """
    if not routes:
        raise ValueError("no worker registered: call append_worker or register_runtime before run")
    content_types = list(_MASTER_TYPES)
    stages: dict[Runtime, Stage] = {}
    slot = MASTER_SLOT + 1
    tell = {before for runtimes in routes.values() for before, _ in _asked_for_costs(runtimes)}
    for runtime in sorted({runtime for runtimes in routes.values() for runtime in runtimes}, key=_order):
        content_type = _content_type(runtime)
        if content_type not in content_types:
            content_types.append(content_type)
        stages[runtime] = stage = Stage(
            len(stages) + 1, runtime, slot, content_types.index(content_type), spares, runtime in tell
        )
        slot = stage.all_slots.stop
    numbers = {path: tuple(stages[runtime].number for runtime in runtimes) for path, runtimes in routes.items()}
    return Plan(tuple(stages.values()), numbers, tuple(content_types))


def check_costs(runtimes: Sequence[Runtime]) -> None:
    """Raise ValueError if a stage of a route takes its items' costs from a stage before that tells none."""
    if runtimes[0].cost == "previous":
        raise ValueError(
            f"{runtimes[0].worker.__name__} is the first stage of a route, but takes cost from the stage before: "
            'cost="bytes" is the length of the request\'s body'
        )
    for before, runtime in _asked_for_costs(runtimes):
        if not callable(getattr(before.worker, "cost", None)):
            raise ValueError(
                f"{runtime.worker.__name__} takes cost from the stage before: define "
                f"`def cost(self, result) -> int` in {before.worker.__name__}"
            )


def _asked_for_costs(runtimes: Sequence[Runtime]) -> Iterable[tuple[Runtime, Runtime]]:
    return (pair for pair in itertools.pairwise(runtimes) if pair[1].cost == "previous")


def batching(runtime: Runtime, options: Options) -> tuple[bool, int]:
    """Whether batches of a runtime are formed automatically, and how long an item waits at most (ms).

    0: not at all, or, where it is automatic, as long as it pays.
    """
    if runtime.max_batch_size == 1 or steps(runtime.worker):
        return False, 0
    wait = runtime.max_wait_time or options.wait
    automatic = runtime.batching == "auto" or (runtime.batching is None and not wait)
    return automatic, wait if automatic else wait or _STATIC_WAIT


def check_route(route: object) -> str:
    """Return `route` if it may be served; raise TypeError or ValueError that says what would be right."""
    if not isinstance(route, str):
        raise TypeError(f'route must be a string like "/inference", but is {route!r}')
    if not route.startswith("/"):
        raise ValueError(f'route must start with a slash, like "/{route}", but is {route!r}')
    if not route.isascii() or not route.isprintable() or any(char in route for char in " ?#"):
        raise ValueError(f"route must be the path of a URL (ASCII, no space, ? or #), but is {route!r}")
    if route == "/" or any(route == name or route.startswith(name + "/") for name in _RESERVED):
        raise ValueError(
            f"route {route!r} is reserved: /, {', '.join(_RESERVED)} and what is below belong to the server"
        )
    return route


def _places(stage: Stage, route: Sequence[int]) -> list[int]:
    return [place for place, number in enumerate(route) if number == stage.number]


def _always(facts: Iterable[bool]) -> bool | None:
    """What all of them say; None if they differ."""
    said = set(facts)
    return said.pop() if len(said) == 1 else None


def _stage_config(stage: Stage, options: Options) -> StageConfig:
    runtime = stage.runtime
    automatic, wait = batching(runtime, options)
    return StageConfig(
        stage.name,
        stage.first_slot,
        len(stage.all_slots),
        max_batch_size=runtime.max_batch_size,
        max_wait_ns=wait * 1_000_000,
        automatic=automatic,
        cost=runtime.cost,
        max_batch_cost=runtime.max_batch_cost,
        padded=runtime.pad,
        timeout_ns=int(runtime.timeout * 1e9) or options.timeout * 1_000_000,
        retry=runtime.retry,
        joins=steps(runtime.worker),
    )


def _content_type(runtime: Runtime) -> str:
    value = runtime.worker.resp_mime_type
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise TypeError(
            f"{runtime.worker.__name__}.resp_mime_type must be a string like 'application/json', but is {value!r}"
        )
    if len(value) > _LONGEST_CONTENT_TYPE:
        raise ValueError(
            f"{runtime.worker.__name__}.resp_mime_type must have {_LONGEST_CONTENT_TYPE} characters or less, "
            f"but has {len(value)}"
        )
    return value


def _order(runtime: Runtime) -> int:
    return runtime.order


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
