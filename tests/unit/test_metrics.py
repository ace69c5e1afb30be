"""/metrics in Mosec's names, labels and buckets, read by Prometheus' own parser."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mosec_cy import Runtime, Worker
from mosec_cy._config.plan import make_plan
from mosec_cy._web.metrics import OWN, ServiceMetrics, own_names

STATUSES = (200, 400, 404, 0)


class Echo(Worker):
    def forward(self, data: Any) -> Any:
        return data


def histogram(buckets: int, counts: dict[int, int], total: float) -> dict[str, Any]:
    return {"buckets": [counts.get(index, 0) for index in range(buckets)], "sum": total}


def slot(done: int = 0) -> dict[str, Any]:
    return {
        "duration": histogram(32, {0: done, 2: done}, done * 0.004),
        "batch_size": histogram(16, {1: done}, done * 2.0),
        "batch_duration": histogram(32, {15: done}, done * 20.0),
    }


def stage(**closed: int) -> dict[str, Any]:
    return {"closed": {"full": 0, "wait": 0} | closed, "fixed": 0.002 * len(closed), "slope": 0.0}


def rendered(timeout: int = 3000) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    plan = make_plan({"/inference": [Runtime(Echo, num=2), Runtime(Echo, max_batch_size=4)]})
    metrics = ServiceMetrics("ns", plan, STATUSES, timeout)
    stats = {
        "routes": [[5, 1, 0, 2], [7, 0, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0]],
        "total": histogram(32, {0: 1, 3: 3, 31: 1}, 1.25),
        "slots": [slot(9), slot(3), slot(), slot(4)],
        "stages": [stage(), stage(), stage(no_gain=3, full=1), stage()],
        "remaining": 6,
        "connections": 8,
    }
    metrics.render(stats)
    text = metrics.render(stats).decode()
    assert "# TYPE ns_throughput_total counter" in text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))


def test_no_metric_of_a_user_may_have_a_name_that_is_on_the_page() -> None:
    names = {name for name, _ in rendered()}
    assert names <= set(own_names("ns"))
    assert all(any(name.startswith(f"ns_{own}") for name in names) for own in OWN)


def test_throughput_counts_the_users_routes_only() -> None:
    samples = rendered()
    throughput = {key[1]: value for key, value in samples.items() if key[0] == "ns_throughput_total"}
    assert throughput == {
        labels(code="200", endpoint="/inference"): 5,
        labels(code="400", endpoint="/inference"): 1,
        labels(code="other", endpoint="/inference"): 2,
    }
    assert samples["ns_unrouted_total", labels(code="404")] == 3


def test_durations() -> None:
    samples = rendered()
    total = {"stage": "total", "connection": "total"}
    name = "ns_process_duration_second"
    assert samples[f"{name}_bucket", labels(**total, le="0.001")] == 1
    assert samples[f"{name}_bucket", labels(**total, le="0.008")] == 4
    assert samples[f"{name}_bucket", labels(**total, le="4.096")] == 4
    assert samples[f"{name}_bucket", labels(**total, le="+Inf")] == 5
    assert (name + "_bucket", labels(**total, le="8.192")) not in samples
    assert samples[f"{name}_sum", labels(**total)] == 1.25
    assert samples[f"{name}_count", labels(stage="Echo_1", connection="1")] == 6
    assert (name + "_count", labels(stage="Echo_1", connection="2")) not in samples


@pytest.mark.parametrize(("timeout", "count"), [(1024, 11), (2**30, 31), (2**31 - 1, 31), (10**12, 31)])
def test_buckets_reach_up_to_the_timeout(timeout: int, count: int) -> None:
    """Or as far as core tells durations apart."""
    bounds = {dict(key[1])["le"] for key in rendered(timeout=timeout) if key[0] == "ns_process_duration_second_bucket"}
    assert sorted(map(float, bounds - {"+Inf"})) == [2**power / 1000 for power in range(count)]


def test_batches_of_batching_stages_only() -> None:
    samples = rendered()
    stage = {"stage": "Echo_2", "connection": "1"}
    assert samples["ns_batch_size_bucket", labels(**stage, le="1.0")] == 0
    assert samples["ns_batch_size_bucket", labels(**stage, le="2.0")] == 4
    assert samples["ns_batch_size_sum", labels(**stage)] == 8
    sizes = {dict(key[1])["le"] for key in samples if key[0] == "ns_batch_size_bucket"}
    assert sizes == {"1.0", "2.0", "4.0", "8.0", "16.0", "32.0", "64.0", "128.0", "256.0", "512.0", "+Inf"}
    assert samples["ns_batch_duration_second_bucket", labels(**stage, le="4.096")] == 0
    assert samples["ns_batch_duration_second_count", labels(**stage)] == 4
    assert {dict(key[1])["stage"] for key in samples if key[0].startswith("ns_batch")} == {"Echo_2"}


def test_why_batches_closed_and_what_was_learnt() -> None:
    samples = rendered()
    closed = {dict(key[1])["reason"]: value for key, value in samples.items() if key[0] == "ns_batch_closed_total"}
    assert closed == {"no_gain": 3, "full": 1}
    assert samples["ns_batch_fixed_seconds", labels(stage="Echo_2")] == 0.004
    assert samples["ns_batch_slope_seconds", labels(stage="Echo_2")] == 0


def test_gauges() -> None:
    samples = rendered()
    assert samples["ns_remaining_task", ()] == 6
    assert samples["ns_open_connections", ()] == 8
