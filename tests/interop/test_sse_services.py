"""A streaming service as a user writes it, read by clients that others wrote."""

from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from httpx_sse import EventSource, connect_sse

from tests.interop.sse_service import STREAMS, error, message, read
from tests.service import Service
from tests.tools import environment, require
from tests.until import PATIENCE

LINES = ["plain", " lead", "two\nlines", "a\r\nb\rc", "", "end\n", "ä €", "data: x\n\nevent: y"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("sse")
    script = directory / "service.py"
    script.write_text(textwrap.dedent(STREAMS))
    with Service(script, "no gate", "--timeout", "30000", directory=directory) as service:
        yield service.wait_ready()


def test_events_are_what_was_sent(service: Service) -> None:
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in LINES]
    assert read(service, {"texts": LINES}) == message(*expected)
    assert read(service, {}) == []


@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("invalid", "422: Unprocessable Content: request validation error: so - it is"),
        ("broken", "500: Internal Server Error: inference internal error"),
        ("index", "500: Internal Server Error: inference internal error"),
        ("killed", "500: Internal Server Error: inference internal error: the worker process died"),
    ],
)
def test_errors_in_a_stream(service: Service, then: str, text: str) -> None:
    assert read(service, {"texts": ["one"], "then": then}) == message("one") + error(text)
    assert read(service, {"then": then}) == error(text)
    assert read(service, {"texts": ["two"]}) == message("two")


def test_errors_before_the_last_stage(service: Service) -> None:
    assert read(service, "early") == error("422: Unprocessable Content: request validation error: early")
    with service.client() as client:
        response = client.post("/inference", content=b"{")
        assert response.text.startswith("event: error\ndata: SSE inference error: 400: Bad Request: decoding error: ")
        response = client.post("/inference")
        assert (response.status_code, response.text) == (200, "no data provided")
        assert client.get("/inference").status_code == 405


def test_threads_of_a_worker_send_at_once(service: Service) -> None:
    events = [data.split(":") for _, data in read(service, {"then": "threads"})]
    assert len(events) == 1600
    for number in range(8):
        assert [int(i) for n, i in events if int(n) == number] == list(range(200))


def test_a_batch_of_streams(service: Service) -> None:
    names = [f"client{i}" for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: read(service, {"name": name}, "/batch8"), names))
    for name, events in zip(names, answers, strict=True):
        assert events == message(*[f"{name}:{i}" for i in range(100)])


def test_one_of_a_batch_cannot_be_decoded(service: Service) -> None:
    def ask(content: bytes) -> str:
        with service.client() as client:
            return client.post("/batch2", content=content).text

    with ThreadPoolExecutor(2) as pool:
        good, bad = pool.map(ask, [b'{"name": "good"}', b"{"])
    assert good == "".join(f"data: good:{i}\n\n" for i in range(100))
    assert bad.startswith("event: error\ndata: SSE inference error: 400: Bad Request: decoding error: ")


def test_a_batch_that_raises(service: Service) -> None:
    bodies = [{"name": "a"}, {"name": "b", "then": "invalid"}]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda body: read(service, body, "/batch2"), bodies))
    failed = error("422: Unprocessable Content: request validation error: all of you")
    for body, events in zip(bodies, answers, strict=True):
        assert events == message(*[f"{body['name']}:{i}" for i in range(100)]) + failed


def test_curl(service: Service) -> None:
    command = [require("curl"), "--silent", "--no-buffer", "--data", json.dumps({"texts": ["a", "b\nc"]})]
    for version in ("--http1.1", "--http1.0"):
        result = subprocess.run(
            [*command, version, f"http://{service.address}/inference"],
            capture_output=True,
            timeout=PATIENCE,
            env=environment(),
            check=True,
        )
        assert result.stdout == b"data: a\n\ndata: b\ndata: c\n\n"


def test_several_streams_on_one_connection(service: Service) -> None:
    with service.client(limits=httpx.Limits(max_connections=1)) as client:
        for number in range(20):
            with connect_sse(client, "POST", "/inference", json={"texts": [str(number)]}) as source:
                assert isinstance(source, EventSource)
                assert [event.data for event in source.iter_sse()] == [str(number)]
