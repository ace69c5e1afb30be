"""The service's metrics in Prometheus' text format, with the names, labels and buckets of Mosec.

`prometheus_client` is loaded with the first page: that takes a fifth of the time of a start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mosec_cy._config.plan import Plan, Stage
from mosec_cy._process.snapshot import Family

if TYPE_CHECKING:
    from prometheus_client.core import Metric

OWN = {  # by name without the namespace: type, help
    "throughput": ("counter", "service inference endpoint throughput"),
    "unrouted": ("counter", "requests to /, to no route, or malformed"),
    "process_duration_second": ("histogram", "process duration for each connection in each stage"),
    "batch_size": ("histogram", "batch size for each connection in each stage"),
    "batch_duration_second": ("histogram", "dynamic batching duration for each connection in each stage"),
    "batch_closed": ("counter", "batches by the reason why nothing more was added"),
    "batch_fixed_seconds": ("gauge", "learnt time of a batch, whatever is in it"),
    "batch_slope_seconds": ("gauge", "learnt time of a batch for each unit of cost in it"),
    "remaining_task": ("gauge", "remaining tasks for the whole service"),
    "open_connections": ("gauge", "open client connections"),
}

_SUFFIXES_TAKEN = {
    "counter": ("_total", "_created"),
    "summary": ("_sum", "_count", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "info": ("_info",),
}

_FIRST_SECONDS = 0.001
_BATCH_SIZE_BUCKETS = 10
_BATCH_DURATION_BUCKETS = 13
_LABELS = ["stage", "connection"]
_TOTAL = ["total", "total"]


def names_taken(name: str, kind: str) -> list[str]:
    """What no other metric may be called, nor a sample of one."""
    return [name, *(name + suffix for suffix in _SUFFIXES_TAKEN.get(kind, ()))]


def own_names(namespace: str) -> list[str]:
    """What no metric of user code may be called."""
    return [taken for name, (kind, _) in OWN.items() for taken in names_taken(f"{namespace}_{name}", kind)]


class ServiceMetrics:
    """What the engine has counted, as Prometheus metrics.

    Args:
        namespace: prefix of the names.
        plan: stages, slots and routes.
        status_codes: the HTTP statuses that the engine counts, in its order; 0: all others.
        timeout: the service's, in ms; the histograms of durations reach up to it.
    """

    def __init__(self, namespace: str, plan: Plan, status_codes: Sequence[int], timeout: int) -> None:
        from prometheus_client import CollectorRegistry, core

        self._namespace = namespace
        self._plan = plan
        self._status_codes = status_codes
        self._duration_buckets = (timeout - 1).bit_length() + 1
        self._stats: dict[str, Any] | None = None
        self._users: Iterable[Family] = ()
        self._families = {
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
        }
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self, stats: dict[str, Any], users: Iterable[Family] = ()) -> bytes:
        """The page of `/metrics` for what `Segment.stats` returned, followed by the metrics of user code."""
        from prometheus_client import generate_latest

        self._stats = stats
        self._users = users
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        if stats is None:  # the registry asks for the names when the collector is registered
            return
        yield self._throughput(stats["routes"])
        yield self._unrouted(stats["routes"][-1])
        yield self._process_duration(stats)
        yield self._batch_size(stats["slots"])
        yield self._batch_duration(stats["slots"])
        yield self._batch_closed(stats["stages"])
        yield self._learnt("batch_fixed_seconds", "fixed", stats["stages"])
        yield self._learnt("batch_slope_seconds", "slope", stats["stages"])
        yield self._family("remaining_task", value=stats["remaining"])
        yield self._family("open_connections", value=stats["connections"])
        yield from map(as_metric, self._users)

    def _family(self, name: str, **options: Any) -> Any:
        kind, text = OWN[name]
        return self._families[kind](f"{self._namespace}_{name}", text, **options)

    def _throughput(self, counts: Sequence[Sequence[int]]) -> Metric:
        family = self._family("throughput", labels=["code", "endpoint"])
        for path, by_status in zip(self._plan.routes, counts, strict=False):  # the server's own routes come after
            for code, count in self._nonzero(by_status):
                family.add_metric([code, path], count)
        return family

    def _unrouted(self, by_status: Sequence[int]) -> Metric:
        family = self._family("unrouted", labels=["code"])
        for code, count in self._nonzero(by_status):
            family.add_metric([code], count)
        return family

    def _nonzero(self, by_status: Sequence[int]) -> Iterator[tuple[str, int]]:
        for status, count in zip(self._status_codes, by_status, strict=True):
            if count:
                yield str(status) if status else "other", count

    def _process_duration(self, stats: dict[str, Any]) -> Metric:
        family = self._family("process_duration_second", labels=_LABELS)
        count = self._duration_buckets
        family.add_metric(_TOTAL, *_histogram(stats["total"], _FIRST_SECONDS, count))
        for labels, slot in self._slots(self._plan.stages, stats["slots"]):
            family.add_metric(labels, *_histogram(slot["duration"], _FIRST_SECONDS, count))
        return family

    def _batch_size(self, slots: Sequence[dict[str, Any]]) -> Metric:
        family = self._family("batch_size", labels=_LABELS)
        for labels, slot in self._slots(self._batching_stages(), slots):
            family.add_metric(labels, *_histogram(slot["batch_size"], 1.0, _BATCH_SIZE_BUCKETS))
        return family

    def _batch_duration(self, slots: Sequence[dict[str, Any]]) -> Metric:
        family = self._family("batch_duration_second", labels=_LABELS)
        for labels, slot in self._slots(self._batching_stages(), slots):
            family.add_metric(labels, *_histogram(slot["batch_duration"], _FIRST_SECONDS, _BATCH_DURATION_BUCKETS))
        return family

    def _batch_closed(self, stages: Sequence[dict[str, Any]]) -> Metric:
        family = self._family("batch_closed", labels=["stage", "reason"])
        for stage in self._batching_stages():
            for reason, count in stages[stage.number]["closed"].items():
                if count:
                    family.add_metric([stage.name, reason], count)
        return family

    def _learnt(self, name: str, what: str, stages: Sequence[dict[str, Any]]) -> Metric:
        family = self._family(name, labels=["stage"])
        for stage in self._batching_stages():
            if stages[stage.number]["fixed"] or stages[stage.number]["slope"]:
                family.add_metric([stage.name], stages[stage.number][what])
        return family

    def _batching_stages(self) -> list[Stage]:
        return [stage for stage in self._plan.stages if stage.runtime.max_batch_size > 1]

    @staticmethod
    def _slots(stages: Iterable[Stage], slots: Sequence[dict[str, Any]]) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Labels and numbers of each replica that has done something."""
        for stage in stages:
            for worker_id, slot in enumerate(stage.slots, 1):
                if any(slots[slot]["duration"]["buckets"]):
                    yield [stage.name, str(worker_id)], slots[slot]


def as_metric(family: Family) -> Metric:
    """What user code has recorded, as the library renders it."""
    from prometheus_client.core import Metric

    metric = Metric(family.name, family.help, family.kind)
    for sample in family.samples:
        metric.add_sample(family.name + sample.suffix, sample.labels, sample.value)
    return metric


def _histogram(counted: dict[str, Any], first: float, count: int) -> tuple[list[tuple[str, float]], float]:
    """(upper bound, cumulative count) of `count` buckets at most, `first` and its doubles, and +Inf; and the sum."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for power in range(min(count, len(counted["buckets"]) - 1)):  # the last one counts all above
        total += counted["buckets"][power]
        buckets.append((str(round(first * 2**power, 3)), total))
    buckets.append(("+Inf", sum(counted["buckets"])))
    return buckets, counted["sum"]
