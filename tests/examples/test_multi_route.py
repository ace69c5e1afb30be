"""examples/multi_route: a shared runtime, and an answer's type by route."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mosec_cy
from tests.examples.programs import client, running
from tests.service import Service

SHARES = [0.09003057, 0.24472848, 0.66524094]  # softmax of 1, 2, 3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running("multi_route", tmp_path_factory.mktemp("multi_route")) as service:
        yield service


def test_client_program(service: Service) -> None:
    assert client("multi_route", service, "1", "2", "3") == [
        "application/json 0.0900 0.2447 0.6652",
        "text/csv 0.0900 0.2447 0.6652",
        "application/octet-stream 0.0900 0.2447 0.6652",
        f"served by version {mosec_cy.__version__}",
    ]


def test_each_route_has_its_format(service: Service) -> None:
    with service.client() as http:
        by_json = http.post("/v1/json", content=b"[1, 2, 3]")
        by_csv = http.post("/v1/csv", content=b"1,2,3")
        by_bytes = http.post("/v1/binary", content=np.array([1, 2, 3], "<f4").tobytes())
    assert by_json.json() == pytest.approx(SHARES)
    assert by_csv.text == "0.090031,0.244728,0.665241"
    assert np.frombuffer(by_bytes.content, "<f4") == pytest.approx(SHARES)
    types = [answer.headers["content-type"] for answer in (by_json, by_csv, by_bytes)]
    assert types == ["application/json", "text/csv", "application/octet-stream"]


@pytest.mark.parametrize("path", ["/version", "/v1/version"])
def test_one_worker_behind_two_paths(service: Service, path: str) -> None:
    with service.client() as http:
        answer = http.post(path, content=b"\xff")
    assert (answer.text, answer.headers["content-type"]) == (mosec_cy.__version__, "text/plain")


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/json", b"[1, ", 400, "decoding error: the body is not JSON, at byte 4"),
        ("/v1/json", b'[1, "2"]', 422, 'request validation error: the field "[1]" is not what'),
        (
            "/v1/json",
            b"[]",
            422,
            "request validation error: send at least one number in one dimension, not an array",
        ),
        ("/v1/csv", b"1,two", 400, "bad request: send numbers with commas between them: could not convert string"),
        ("/v1/csv", b"\xff", 400, "decoding error: 'utf-8' codec can't decode byte 0xff"),
        ("/v1/binary", b"12345", 400, "bad request: send 4 bytes for each float32: 5 bytes are no whole number"),
    ],
)
def test_refusals_say_what_is_wrong(service: Service, path: str, body: bytes, status: int, text: str) -> None:
    with service.client() as http:
        answer = http.post(path, content=body)
    assert answer.status_code == status
    assert answer.text.startswith(text)


def test_formats_share_the_batches_of_one_stage(service: Service) -> None:
    bodies = {"/v1/json": b"[1, 2, 3]", "/v1/csv": b"1,2,3", "/v1/binary": np.array([1, 2, 3], "<f4").tobytes()}
    paths = list(bodies) * 40
    with service.client() as http, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda path: http.post(path, content=bodies[path]), paths))
        metrics = http.get("/metrics").text
    assert {answer.status_code for answer in answers} == {200}
    # One stage and one connection have seen the batches of all three routes.
    lines = [line for line in metrics.splitlines() if line.startswith("mosec_service_batch_size_count")]
    assert len(lines) == 1
    assert 'connection="1"' in lines[0]
    assert 'stage="Softmax_' in lines[0]
