"""Metrics of the program's own, beside the server's, on the same `/metrics`.

    python examples/custom_metrics/server.py
    curl -d '[1, 2, 3]' http://127.0.0.1:8000/inference
    curl http://127.0.0.1:8000/metrics

Record with `prometheus_client` as in a program of one process: the server asks its workers and adds up what they say.
"""

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from mosec_cy import Server, ValidationError, Worker

ITEMS = Counter("example_items_total", "Numbers that were averaged", ["worker"])
REFUSED = Counter("example_refused_total", "Requests that were no list of numbers")
MEAN = Histogram("example_mean", "Means that were answered", buckets=[0, 1, 10, 100])
MODELS = Gauge("example_models_loaded", "Replicas that have their model; over all processes this is a sum")


class Check(Worker):
    """Refuses what is no list of numbers."""

    def forward(self, data: Any) -> list[float]:
        if not isinstance(data, list) or not data or not all(isinstance(value, int | float) for value in data):
            REFUSED.inc()
            raise ValidationError("send a list of numbers")
        return data


class Mean(Worker):
    """Two replicas, each counting for itself."""

    def __init__(self) -> None:
        MODELS.set(1)

    def forward(self, data: list[float]) -> float:
        ITEMS.labels(self.worker_id).inc(len(data))
        mean = sum(data) / len(data)
        MEAN.observe(mean)
        return mean


if __name__ == "__main__":
    server = Server()
    server.append_worker(Check)
    server.append_worker(Mean, num=2)
    server.run()
