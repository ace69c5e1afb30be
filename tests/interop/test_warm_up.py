"""Examples go through `forward` before a worker takes requests, in each way to start one."""

import re

import pytest

from tests.interop.scrape import scrape_until
from tests.service import Serve

WARM = """
    import os, sys
    from prometheus_client import Counter
    from mosec_cy import MosecTimeoutError, Server, ValidationError, Worker, get_logger

    CALLS = Counter("forwards", "calls of forward")

    class Warm(Worker):
        {examples}

        def forward(self, data):
            CALLS.inc()
            get_logger().info("%s: forward of %s", self.stage, data)
            self.new_buffer(8)[:] = bytes(8)
            {forward}

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Warm, max_batch_size={batch}, start_method="{method}")
        server.append_worker(Warm, max_batch_size={batch}, start_method="{method}")
        server.run()
"""
START_METHODS = pytest.mark.parametrize("method", ["spawn", "fork"])


def program(method: str, examples: str, forward: str = "return data", batch: int = 1) -> str:
    return WARM.format(method=method, examples=examples, forward=forward, batch=batch)


@START_METHODS
@pytest.mark.parametrize(
    ("examples", "batch", "forwards"),
    [
        ("example = {'x': 1}", 1, ["{'x': 1}"]),
        ("example = 0", 1, ["0"]),
        ("example = [1, 2]", 4, ["[1, 2]"]),
        ("multi_examples = [[1], [2, 3]]; example = [4]", 4, ["[1]", "[2, 3]"]),
        ("import numpy; multi_examples = numpy.arange(4).reshape(2, 2)", 1, ["[0 1]", "[2 3]"]),
        ("pass", 1, []),
    ],
)
def test_what_forward_gets_before_a_worker_is_ready(
    serve: Serve, method: str, examples: str, batch: int, forwards: list[str]
) -> None:
    service = serve(program(method, examples, batch=batch)).wait_ready()
    for stage in ("Warm_1", "Warm_2"):
        expected = [f"{stage}: forward of {data}" for data in forwards]
        if forwards:
            expected += [f"<{stage}|1> warm-up done"]
        said = [re.sub(r"ready after \d+\.\d s", "ready", text) for text in service.messages if f"{stage}" in text]
        assert said[said[0].startswith("starting: ") :] == [*expected, f"<{stage}|1> ready"]
    with service.client() as client:
        scrape_until(client, {"forwards_total": 2.0 * len(forwards)})
        assert 'process_duration_second_count{connection="1",stage="Warm' not in client.get("/metrics").text


@START_METHODS
def test_examples_of_the_instance_count(serve: Serve, method: str) -> None:
    examples = "def __init__(self):\n            self.multi_examples = [self.worker_id * 10]"
    service = serve(program(method, examples)).wait_ready()
    assert "Warm_1: forward of 10" in service.messages


FAILURES = ["raise LookupError('why')", "raise ValidationError('why')", "raise MosecTimeoutError('why')"]


@START_METHODS
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_logged_and_the_worker_serves(serve: Serve, method: str, failure: str) -> None:
    source = program(method, "example = None or 'cold'", f"if data == 'cold': {failure}\n            return data")
    service = serve(source).wait_ready()
    failed = [record for record in service.records if "warm-up failed" in record["fields"]["message"]]
    assert [record["level"] for record in failed] == ["ERROR", "ERROR"]
    assert all("why" in record["fields"]["exc_info"] for record in failed)
    assert "`example` must be one argument of `forward`" in failed[0]["fields"]["message"]
    with service.client() as client:
        assert client.post("/inference", json="warm").json() == "warm"


@START_METHODS
@pytest.mark.parametrize("failure", [*FAILURES, "sys.exit('why')"])
def test_a_failure_ends_a_strict_server(serve: Serve, method: str, failure: str) -> None:
    service = serve(program(method, "example = 1", failure), env={"MOSEC_STRICT_WARMUP": "1"})
    assert service.wait_end() == 1
    failures = [text for text in service.messages if "failed to start" in text]
    assert failures
    assert all("why" in text for text in failures)
    assert any("never got ready, the server gives up" in text for text in service.messages)
    assert not [text for text in service.messages if "listening" in text]


def test_what_forward_must_not_return_fails_the_warm_up(serve: Serve) -> None:
    service = serve(program("spawn", "example = [1]", "return {'a': 1}", batch=2)).wait_ready()
    (failed, _) = [record["fields"] for record in service.records if "warm-up failed" in record["fields"]["message"]]
    assert "forward returned dict for a batch: with max_batch_size > 1 it must return a list" in failed["message"]
