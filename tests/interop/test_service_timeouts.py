"""Time-outs, capacity and metrics of a real service, set by its command line."""

from __future__ import annotations

import concurrent.futures
import os
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.service import Serve, Service

GATED = """
    import hashlib, os, sys
    from mosec_cy import Server, ValidationError, Worker
    from mosec_cy.errors import MosecTimeoutError

    class Gated(Worker):
        def forward(self, data):
            if data == "wait":
                with open(sys.argv[1]) as gate:  # a FIFO: until somebody writes
                    gate.read()
            if data == "interrupted":
                try:
                    open(sys.argv[1])
                except MosecTimeoutError:
                    os.write(1, b"interrupted\\n")  # in one piece: the master writes there too
                    raise
            if data == "deaf":
                hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)
            if data == "invalid":
                raise ValidationError(data)
            return os.getpid()

    class Batch(Worker):
        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Gated, timeout=float(sys.argv[2]))
        server.append_worker(Batch, max_batch_size=4, max_wait_time=1, num=2, route=["/inference", "/batch"])
        server.run()
"""


def fifo(directory: Path) -> Path:
    path = directory / "gate"
    os.mkfifo(path)
    return path


def test_a_stage_that_overruns(serve: Serve, tmp_path: Path) -> None:
    """Interrupted if it can be; killed and replaced if not. The clients hear the same, at the same time."""
    service = serve(GATED, str(fifo(tmp_path)), "0.2", "--kill-grace", "100").wait_ready()
    with service.client() as client:
        first = client.post("/inference", json="who").json()
        for how in ("interrupted", "deaf"):
            response = client.post("/inference", json=how)
            assert (response.status_code, response.text) == (408, "mosec timeout error: `forward` timeout")
            if how == "interrupted":
                service.wait_output("^interrupted$")
                assert client.post("/inference", json="who").json() == first
        service.wait_output("killed, it did not end after its timeout")
        assert client.post("/inference", json="who").json() != first


def test_the_services_own_timeout(serve: Serve, tmp_path: Path) -> None:
    """It runs in the queue as well: only the first of these was ever started."""
    gate = fifo(tmp_path)
    service = serve(GATED, str(gate), "60", "--timeout", "700").wait_ready()

    def post(body: str) -> tuple[int, str]:
        with service.client() as client:
            response = client.post("/inference", json=body)
            return response.status_code, response.text

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert set(pool.map(post, ["wait"] * 3)) == {(408, "inference timeout")}
    with gate.open("w"):
        pass
    with service.client() as client:
        assert client.post("/inference", json="who").status_code == 200


def test_capacity(serve: Serve, tmp_path: Path) -> None:
    gate = fifo(tmp_path)
    service = serve(GATED, str(gate), "60", "--capacity", "2", "--timeout", "30000").wait_ready()

    def post(_: int) -> tuple[int, str]:
        with service.client() as client:
            response = client.post("/inference", json="wait")
            return response.status_code, response.text

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(post, number) for number in range(6)]
        done = concurrent.futures.as_completed(answers, timeout=30)
        assert [next(done).result() for _ in range(3)] == [(429, "too many request: task queue is full")] * 3
        for _ in range(3):  # one runs, two wait
            with gate.open("w"):
                pass
            assert next(done).result()[0] == 200


def samples(service: Service) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with service.client() as client:
        response = client.get("/metrics?anything")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_metrics(serve: Serve, tmp_path: Path) -> None:
    service = serve(GATED, str(fifo(tmp_path)), "0.2", "--namespace", "mine").wait_ready()
    with service.client() as client:
        for _ in range(7):
            client.post("/inference", json="who")
        client.post("/inference", json="invalid")
        client.post("/inference", content=b"{")
        client.post("/inference", json="interrupted")
        client.post("/inference", content=b"")
        for _ in range(3):
            client.post("/batch", json=1)
        client.get("/nowhere")
    found = samples(service)

    def value(name: str, **labels: str) -> float:
        return found["mine_" + name, tuple(sorted(labels.items()))]

    for code, count in (("200", 7), ("422", 1), ("400", 1), ("408", 1)):
        assert value("throughput_total", code=code, endpoint="/inference") == count
    assert value("throughput_total", code="200", endpoint="/batch") == 3
    assert value("remaining_task") == 0
    gated = {"stage": "Gated_1", "connection": "1"}
    assert value("process_duration_second_count", **gated) == 7  # successes
    assert value("process_duration_second_count", stage="total", connection="total") == 10
    assert value("process_duration_second_bucket", stage="total", connection="total", le="+Inf") == 10
    sizes = [labels for name, labels in found if name == "mine_batch_size_count"]
    assert {dict(labels)["stage"] for labels in sizes} == {"Batch_2"}
    assert sum(found["mine_batch_size_count", labels] for labels in sizes) == 10
    assert sum(found["mine_batch_size_sum", labels] for labels in sizes) == 10
    assert sum(found["mine_batch_duration_second_count", labels] for labels in sizes) == 10
    assert {dict(labels)["le"] for name, labels in found if name == "mine_batch_size_bucket"} == {
        *(f"{2.0**power}" for power in range(10)),
        "+Inf",
    }
