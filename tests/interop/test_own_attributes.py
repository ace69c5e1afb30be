"""Workers whose attributes, methods and special methods have the engine's names, or behave as no engine expects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.interop.attributed import SERVICE
from tests.interop.sse_service import message, read
from tests.service import Serve, Service


@pytest.fixture(scope="module")
def service(serve_module: Serve) -> Service:
    return serve_module(SERVICE).wait_ready()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("Private", [["mine", 16, 16, 16, 16, 16], "Private_1", 1, 1]),
        ("Batch", [1, "mine", 4]),
        ("OwnProperties", ["left", "a method", 16]),
        ("Frozen", [["a", "b"], 1]),
        ("FrozenTyped", [["a", "b"], 3]),
        ("Slots", "m"),
        ("Torch", [3, 1]),
        ("Empty", [{}, 1]),
        ("WatchedTyped", {}),
        ("Odd", ["m", "anything", 1]),
        ("Watched", "Watched_8"),
        ("Equal", [True, "Equal_9"]),
        ("Factory", [4, 4, "Factory_20"]),
    ],
)
def test_own_names_change_nothing(service: Service, name: str, answer: Any) -> None:
    with service.client() as client:
        response = client.post(f"/{name}", json=3)
        assert (response.status_code, response.json()) == (200, answer)


def test_own_names_in_streams(service: Service) -> None:
    assert read(service, 1, "/Sender") == message("to a colleague: hello", "False")
    assert read(service, 1, "/EqualStream") == message("EqualStream_10")


def test_an_override_of_sending(service: Service) -> None:
    assert read(service, 1, "/Logged") == message("sent: a", "yielded")


def test_overridden_codecs(service: Service) -> None:
    with service.client() as client:
        assert client.post("/Wrapped", content=b"body").text == "body!"
        assert client.post("/OnTheObject", content=b"body").text == "BODY"


@pytest.mark.parametrize("name", ["worker_id", "stage", "max_batch_size"])
def test_what_the_server_decides_cannot_be_set(service: Service, name: str) -> None:
    with service.client() as client:
        answer = client.post("/Setting", json=name).json()
    assert answer.startswith(f"{name} says how the server runs this worker (")
    assert "another name" in answer


def test_workers_within_a_worker(service: Service) -> None:
    with ThreadPoolExecutor(4) as pool, service.client() as client:
        answers = list(pool.map(lambda number: client.post("/Outer", json=str(number)).json(), range(8)))
    assert answers == [[True, 3, 1, "\0\0"]] * 8


def test_the_description_knows_batches(service: Service) -> None:
    """It asks classes, of which some cannot be compared."""
    with service.client() as client:
        assert client.get("/openapi/metadata.json").status_code == 200


def test_what_is_no_worker_is_told(serve: Serve) -> None:
    service = serve("""
        from mosec_cy import Server, Worker

        class Proxy(Worker):
            def __new__(cls):
                return "no worker"

            def forward(self, data):
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Proxy)
            server.run()
    """)
    service.wait_output(r"Proxy\(\) made a str, which is no worker")
    assert service.wait_end() == 1
