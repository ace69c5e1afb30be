"""What becomes of streams when clients leave, time passes, or the service ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse
from prometheus_client.parser import text_string_to_metric_families

from tests.interop.sse_service import STREAMS, error, message, read
from tests.service import Serve, Service


@pytest.fixture
def service(serve: Serve, gate: Path) -> Service:
    return serve(STREAMS, str(gate), "--timeout", "30000").wait_ready()


def test_stage_timeout(service: Service, gate: Path) -> None:
    """The signal finds `forward` at work, and also where it waits for a client that does not read."""
    text = "408: Request Timeout: mosec timeout error: `forward` timeout"
    assert read(service, {"texts": ["one"], "then": "gate"}, "/slow") == message("one") + error(text)
    with service.client() as client, connect_sse(client, "POST", "/slow", json={"then": "flood"}) as source:
        service.wait_output("flooding")
        service.wait_output(r"mosec timeout error: `forward` timeout")
        events = list(source.iter_sse())
    assert events[-1].event == "error" and text in events[-1].data
    assert {event.data for event in events[:-1]} == {"x" * 100_000}
    assert read(service, {"texts": ["two"]}, "/slow") == message("two")


def test_service_timeout(serve: Serve, gate: Path) -> None:
    service = serve(STREAMS, str(gate), "--timeout", "500").wait_ready()
    body = {"texts": ["one"], "then": "until cancelled"}
    assert read(service, body) == message("one") + error("408: Request Timeout: inference timeout")
    service.wait_output("cancelled False")


def test_a_client_that_leaves(service: Service) -> None:
    body = {"texts": ["one"], "then": "until cancelled"}
    with service.client() as client, connect_sse(client, "POST", "/inference", json=body) as source:
        assert next(iter(source.iter_sse())).data == "one"
    service.wait_output("cancelled False")
    with service.client() as client, connect_sse(client, "POST", "/inference", json={"then": "flood"}) as source:
        service.wait_output("flooding")
    service.wait_output("flooded")
    assert read(service, {"texts": ["two"]}) == message("two")


def test_is_cancelled_without_a_stream(service: Service) -> None:
    with service.client(timeout=0.2) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/plain", json=1)
    service.wait_output("running")
    service.wait_output("cancelled")


def test_a_slow_reader_in_a_batch_is_dropped_alone(service: Service) -> None:
    """What was under way comes, then an error; its mate gets all."""
    slow = {"name": "slow", "bytes": 300_000}
    with service.client() as client, connect_sse(client, "POST", "/batch2", json=slow) as source:
        assert read(service, {"name": "mate"}, "/batch2") == message(*[f"mate:{i}" for i in range(100)])
        said = service.wait_output(r"batch 2 \[(\w+), (\w+)\] \[(\w+), (\w+)\]").groups()
        events = list(source.iter_sse())
    assert said in (("False", "True", "True", "False"), ("True", "False", "False", "True"))
    assert [event.data.rstrip(".") for event in events[:-1]] == [f"slow:{i}" for i in range(len(events) - 1)]
    assert (events[-1].event, len(events) < 100) == ("error", True)
    assert events[-1].data == (
        "SSE inference error: 408: Request Timeout: the client reads too slowly for a batch of streams"
    )


def test_a_stage_that_is_last_on_one_route_only(service: Service) -> None:
    assert read(service, "last", "/mixed") == message("event")
    with service.client() as client:
        assert client.post("/inner", json="inner").json() == "plain"
        assert client.post("/inner", json="event").status_code == 500
        assert client.post("/never", json="event").status_code == 500
    service.wait_output("only the last stage of a route can send them")


def test_shutdown_lets_streams_end(service: Service, gate: Path) -> None:
    body = {"texts": ["one"], "then": "gate"}
    with service.client() as client, connect_sse(client, "POST", "/inference", json=body) as source:
        events: Iterator[ServerSentEvent] = source.iter_sse()
        assert next(events).data == "one"
        service.signal(signal.SIGTERM)
        service.wait_output("shutting down")
        gate.write_text("go")
        assert [event.data for event in events] == ["late"]
    assert service.wait_end() == 0
    service.wait_output("after the gate True False")


def test_metrics(service: Service) -> None:
    read(service, {"texts": ["one"]})
    read(service, {"texts": ["one"], "then": "invalid"})
    with service.client() as client:
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }
    assert samples["mosec_service_throughput_total", "/inference", "200"] == 1
    assert samples["mosec_service_throughput_total", "/inference", "422"] == 1
    assert samples["mosec_service_process_duration_second_count", "total", "total"] == 1
