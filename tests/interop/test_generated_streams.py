"""`forward` as a generator of events, an asynchronous one, and as what comes to that."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from httpx_sse import connect_sse

from tests.interop.generated_streams import SERVICE
from tests.interop.sse_service import error, message, read
from tests.service import Serve, Service

GENERATORS = ["/Generator", "/AsyncGenerator"]
STREAMS = pytest.mark.parametrize("path", [*GENERATORS, "/ReturnsGenerator", "/CoroutineOfGenerator"])
SOURCES = pytest.mark.parametrize("path", GENERATORS)
INTERNAL = "500: Internal Server Error: internal error: "


@pytest.fixture(scope="module")
def gate_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="module")
def service(serve_module: Serve, gate_of_all: Path) -> Service:
    return serve_module(SERVICE, str(gate_of_all)).wait_ready()


def read_all(service: Service, path: str, *bodies: Any) -> list[list[tuple[str, str]]]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: read(service, body, path), bodies))


@STREAMS
def test_what_is_yielded_is_sent(service: Service, path: str) -> None:
    assert read(service, {"texts": ["a", "", "b\nc"]}, path) == message("a", "", "b\nc")
    assert read(service, {"texts": []}, path) == []


@STREAMS
@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("invalid", "422: Unprocessable Content: request validation error: no more"),
        ("bytes", INTERNAL + "forward must yield events as str, but yielded bytes"),
        ("none", INTERNAL + "forward must yield events as str, but yielded NoneType"),
        (
            "pair",
            INTERNAL + "forward must yield events as str, but yielded (0, 'x') (tuple)",
        ),
    ],
)
def test_errors_in_the_middle(service: Service, path: str, then: str, text: str) -> None:
    assert read(service, {"texts": ["a"], "then": then}, path) == message("a") + error(text)
    assert read(service, {"texts": ["b"]}, path) == message("b")


def test_other_kinds(service: Service) -> None:
    assert read(service, {}, "/Coroutine") == message("from a coroutine")
    assert read(service, {"texts": ["a", "b"]}, "/ReturnsIterator") == message("a", "b")
    returned = error("422: Unprocessable Content: request validation error: returned")
    assert read(service, {"texts": ["a"], "then": "return error"}, "/Generator") == message("a") + returned


@SOURCES
def test_a_client_leaves(service: Service, path: str) -> None:
    """The generator is closed where it stands."""
    seen = len(service.lines)
    with service.client() as client:
        with connect_sse(client, "POST", path, json={"texts": ["a"], "then": "flood"}) as source:
            assert next(source.iter_sse()).data == "a"
    service.wait_outputs("closed True", 1 + sum("closed True" in line for line in service.lines[:seen]))
    assert read(service, {"texts": ["b"]}, path) == message("b")


@SOURCES
@pytest.mark.parametrize("then", ["gate", "spin"])
def test_time_out(service: Service, path: str, then: str) -> None:
    """Where it waits, and where it works; the generator is closed."""
    path = f"/slow{path}"
    answer = message("a") + error("408: Request Timeout: mosec timeout error: `forward` timeout")
    count = sum("closed" in line for line in service.lines)
    assert read(service, {"texts": ["a"], "then": then}, path) == answer
    service.wait_outputs("closed", count + 1)
    assert read(service, {"texts": ["b"]}, path) == message("b")


def rounds(name: str) -> list[tuple[str, str]]:
    return message(*[f"{name}:{number}" for number in range(3)])


@pytest.mark.parametrize("path", ["/BatchGenerator", "/BatchAsyncGenerator"])
def test_batches_of_streams(service: Service, path: str) -> None:
    assert read_all(service, path, {"name": "a"}, {"name": "b"}) == [rounds("a"), rounds("b")]
    assert read_all(service, path, {"name": "alone"}) == [rounds("alone")]


def test_an_error_returned_by_a_generator_is_one_stream_s(service: Service) -> None:
    answers = read_all(service, "/BatchGenerator", {"name": "a", "error": "mine"}, {"name": "b"})
    failed = error("422: Unprocessable Content: request validation error: mine")
    assert answers == [rounds("a") + failed, rounds("b")]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", "with max_batch_size > 1 `forward` must yield tuples (index, text), but yielded str"),
        ("three", "with max_batch_size > 1 `forward` must yield tuples (index, text), but yielded (0, 1, 'x') (tuple)"),
        ("index", "forward yielded an event for index 9 of a batch of 1"),
        ("bytes", "forward must yield events as str, but yielded bytes"),
    ],
)
def test_what_is_no_event_of_a_batch(service: Service, kind: str, text: str) -> None:
    (answer,) = read_all(service, "/BatchGenerator", {"name": "a", "yield": kind})
    assert answer == rounds("a") + error(INTERNAL + text)


def test_a_generator_for_each_item(service: Service) -> None:
    for answer in read_all(service, "/BatchOfGenerators", {}, {}):
        ((kind, text),) = answer
        assert kind == "error"
        assert text.endswith("it must itself yield tuples (index, text), of all items")


def test_a_client_of_a_batch_leaves(service: Service) -> None:
    """The others' events go on."""
    with service.connect() as socket:
        body = json.dumps({"name": "gone"}).encode()
        socket.sendall(b"POST /BatchGenerator HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert socket.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert read(service, {"name": "stays"}, "/BatchGenerator") == rounds("stays")


def test_nothing_failed_in_the_warm_up(service: Service) -> None:
    """Each replica has said so before the service listened, and that was waited for."""
    assert [line for line in service.messages if "warm-up failed" in line] == []
