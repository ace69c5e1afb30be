"""The service's own metrics and what names are taken; known without `prometheus_client`, which is slow to load."""

from __future__ import annotations

# By name without the namespace: type, help.
OWN = {
    "throughput": ("counter", "service inference endpoint throughput"),
    "unrouted": ("counter", "requests to /, to no route, or malformed"),
    "process_duration_second": ("histogram", "process duration for each connection in each stage"),
    "batch_size": ("histogram", "batch size for each connection in each stage"),
    "batch_duration_second": ("histogram", "dynamic batching duration for each connection in each stage"),
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


def names_taken(name: str, kind: str) -> list[str]:
    """What no other metric may be called, nor a sample of one."""
    return [name, *(name + suffix for suffix in _SUFFIXES_TAKEN.get(kind, ()))]


def own_names(namespace: str) -> list[str]:
    """What no metric of user code may be called."""
    return [taken for name, (kind, _) in OWN.items() for taken in names_taken(f"{namespace}_{name}", kind)]
