"""`forward` as a generator, an asynchronous generator, a coroutine function, and as one that returns such things."""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from httpx_sse import connect_sse

from tests.interop.sse_service import error, message, read
from tests.service import Serve, Service

SERVICE = """
    import asyncio, os, sys
    from mosec_cy import Server, SSEWorker, ValidationError, Worker

    GATE = sys.argv[1]

    def said(*what):
        print(*what, flush=True)

    # ---- streams of one --------------------------------------------------------------------------

    class Generator(SSEWorker):
        example = {"texts": ["warm"]}

        def forward(self, data):
            try:
                for text in data.get("texts", []):
                    yield text
                how = data.get("then")
                if how == "invalid":
                    raise ValidationError("no more")
                if how == "bytes":
                    yield b"x"
                if how == "none":
                    yield
                if how == "pair":
                    yield 0, "x"
                if how == "flood":
                    while True:
                        yield "x" * 100_000
                if how == "gate":
                    with open(GATE) as gate:
                        gate.read()
                if how == "spin":
                    while True:
                        pass
                if how == "return error":
                    return ValidationError("returned")
            finally:
                if data["texts"] != ["warm"]:
                    said("closed", self.is_cancelled())

    class AsyncGenerator(SSEWorker):
        example = {"texts": ["warm"]}

        async def forward(self, data):
            try:
                for text in data.get("texts", []):
                    await asyncio.sleep(0)
                    yield text
                how = data.get("then")
                if how == "invalid":
                    raise ValidationError("no more")
                if how == "bytes":
                    yield b"x"
                if how == "none":
                    yield
                if how == "pair":
                    yield 0, "x"
                if how == "flood":
                    while True:
                        yield "x" * 100_000
                if how == "gate":
                    await asyncio.sleep(3600)
                if how == "spin":
                    while True:
                        pass
            finally:
                await asyncio.sleep(0)
                if data["texts"] != ["warm"]:
                    said("closed", self.is_cancelled())

    class Coroutine(SSEWorker):
        async def forward(self, data):
            await asyncio.sleep(0)
            self.send_stream_event("from a coroutine")

    class ReturnsGenerator(SSEWorker):
        def forward(self, data):
            return Generator.forward(self, data)

    class CoroutineOfGenerator(SSEWorker):
        async def forward(self, data):
            return AsyncGenerator.forward(self, data)

    class Streamer:
        def __init__(self, texts):
            self.rest = list(texts)

        def __iter__(self):
            return self

        def __next__(self):
            if not self.rest:
                raise StopIteration
            return self.rest.pop(0)

    class ReturnsIterator(SSEWorker):
        def forward(self, data):
            return Streamer(data["texts"])

    # ---- streams of batches ----------------------------------------------------------------------

    class BatchGenerator(SSEWorker):
        example = [{"name": "warm"}]

        def forward(self, data):
            for round in range(3):
                for index, item in enumerate(data):
                    yield index, f"{item['name']}:{round}"
            for index, item in enumerate(data):
                if "yield" in item:
                    yield {"text": "x", "index": (9, "x"), "bytes": (index, b"x"), "three": (0, 1, "x")}[item["yield"]]
            return [ValidationError(item["error"]) if "error" in item else None for item in data]

    class BatchAsyncGenerator(SSEWorker):
        async def forward(self, data):
            for round in range(3):
                await asyncio.sleep(0)
                for index, item in enumerate(data):
                    yield index, f"{item['name']}:{round}"

    class BatchOfGenerators(SSEWorker):
        def forward(self, data):
            return [self.one(item) for item in data]

        def one(self, item):
            yield "a"

    # ---- other workers ---------------------------------------------------------------------------

    class AsyncWorker(Worker):
        multi_examples = ["warm"]

        def __init__(self):
            self.loop = asyncio.get_event_loop()  # that `forward` will run on
            self.calls = 0

        async def forward(self, data):
            assert self.loop is asyncio.get_running_loop()
            self.calls += 1
            if data == "calls":
                return self.calls
            if data == "invalid":
                raise ValidationError("by a coroutine")
            if data == "cancelled":
                raise asyncio.CancelledError
            if data == "background":
                self.task = asyncio.ensure_future(asyncio.sleep(0, "from before"))
            if data == "foreground":
                return await self.task
            if data in ("sleep", "spin"):
                try:
                    await asyncio.sleep(3600 if data == "sleep" else 0)
                    while True:
                        pass
                finally:
                    said("ended", data)
            return await self.loop.run_in_executor(None, str.upper, data)

    class AsyncBatch(Worker):
        example = ["warm"]

        async def forward(self, data):
            return await asyncio.gather(*map(self.one, data))

        async def one(self, item):
            await asyncio.sleep(0)
            return [item, os.getpid()]

    class SyncToAsync(Worker):
        def forward(self, data):
            return AsyncBatch.one(self, data)

    class PlainGenerator(Worker):
        def forward(self, data):
            yield data

    class PlainAsyncGenerator(Worker):
        async def forward(self, data):
            yield data

    class Joined(Worker):
        "Its own codec takes generators."

        def forward(self, data):
            yield from data

        def serialize(self, data):
            return "+".join(data).encode()

    class LazyBatch(Worker):
        def forward(self, data):
            for item in data:
                yield item
                if item == "twice":
                    yield item
                if item == "endless":
                    while True:
                        yield item

    class AsyncLazyBatch(Worker):
        async def forward(self, data):
            for item in data:
                await asyncio.sleep(0)
                yield item

    class CoroutineInPlace(Worker):
        def forward(self, data):
            return [AsyncBatch.one(self, item) if item == "bad" else item for item in data]

    class Last(Worker):
        def forward(self, data):
            return {"last": data}

    if __name__ == "__main__":
        server = Server(timeout=60_000)
        single = (Generator, AsyncGenerator, Coroutine, ReturnsGenerator, CoroutineOfGenerator, ReturnsIterator,
                  AsyncWorker, SyncToAsync, PlainGenerator, PlainAsyncGenerator, Joined)
        for worker in single:
            server.append_worker(worker, route=f"/{worker.__name__}")
        for worker in (Generator, AsyncGenerator, AsyncWorker):
            server.append_worker(worker, route=f"/slow/{worker.__name__}", timeout=0.3)
        for worker in (BatchGenerator, BatchAsyncGenerator, BatchOfGenerators, AsyncBatch, LazyBatch, AsyncLazyBatch,
                       CoroutineInPlace):
            server.append_worker(worker, route=f"/{worker.__name__}", max_batch_size=2, max_wait_time=500)
        server.append_worker(AsyncBatch, route="/pipeline", max_batch_size=2, max_wait_time=1)
        server.append_worker(Last, route="/pipeline")
        server.append_worker(AsyncGenerator, route="/inner")
        server.append_worker(Last, route="/inner")
        server.run()
"""
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


def post(service: Service, path: str, *bodies: Any) -> list[tuple[int, Any]]:
    """Status and answer of requests that are sent at once."""

    def ask(body: Any) -> tuple[int, Any]:
        with service.client() as client:
            response = client.post(path, json=body)
            return response.status_code, response.json() if response.status_code == 200 else response.text

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(ask, bodies))


def read_all(service: Service, path: str, *bodies: Any) -> list[list[tuple[str, str]]]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: read(service, body, path), bodies))


# ---- streams ---------------------------------------------------------------------------------------


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
        assert text.endswith("it must itself yield tuples (index, text)")


def test_a_client_of_a_batch_leaves(service: Service) -> None:
    """The others' events go on."""
    with contextlib.ExitStack() as stack:
        socket = stack.enter_context(service.connect())
        body = json.dumps({"name": "gone"}).encode()
        socket.sendall(b"POST /BatchGenerator HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert socket.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert read(service, {"name": "stays"}, "/BatchGenerator") == rounds("stays")


# ---- other workers ---------------------------------------------------------------------------------


def test_coroutines(service: Service) -> None:
    assert post(service, "/AsyncWorker", "word") == [(200, "WORD")]
    assert post(service, "/AsyncWorker", "invalid") == [(422, "request validation error: by a coroutine")]
    assert post(service, "/AsyncWorker", "cancelled") == [(500, "inference internal error")]
    (first,), (second,) = (post(service, "/AsyncWorker", "calls") for _ in range(2))
    assert second == (200, first[1] + 1)
    assert post(service, "/SyncToAsync", "x")[0][1][0] == "x"


def test_the_loop_lives_as_long_as_the_worker(service: Service) -> None:
    assert post(service, "/AsyncWorker", "background") == [(200, "BACKGROUND")]
    assert post(service, "/AsyncWorker", "foreground") == [(200, "from before")]


@pytest.mark.parametrize("how", ["sleep", "spin"])
def test_time_out_of_a_coroutine(service: Service, how: str) -> None:
    assert post(service, "/slow/AsyncWorker", how) == [(408, "mosec timeout error: `forward` timeout")]
    service.wait_output(f"ended {how}")
    assert post(service, "/slow/AsyncWorker", "word") == [(200, "WORD")]


def test_coroutines_of_batches(service: Service) -> None:
    answers = post(service, "/AsyncBatch", "a", "b")
    assert [(status, answer[0]) for status, answer in answers] == [(200, "a"), (200, "b")]
    ((status, answer),) = post(service, "/pipeline", "a")
    assert (status, answer["last"][0]) == (200, "a")


@pytest.mark.parametrize(
    ("path", "kind"), [("PlainGenerator", "generator"), ("PlainAsyncGenerator", "async_generator")]
)
def test_a_generator_is_no_result(service: Service, path: str, kind: str) -> None:
    ((status, text),) = post(service, f"/{path}", "x")
    assert status == 500
    assert text.startswith(f"internal error: a result of forward is a {kind}, which cannot be sent: ")
    assert "derived from SSEWorker" in text


def test_a_generator_in_an_inner_stage(service: Service) -> None:
    ((status, text),) = post(service, "/inner", {"texts": ["a"]})
    assert (status, "is the last stage of its route" in text) == (500, True)


def test_a_codec_of_its_own_takes_a_generator(service: Service) -> None:
    with service.client() as client:
        response = client.post("/Joined", json=["a", "b"])
        assert (response.status_code, response.text) == (200, "a+b")


@pytest.mark.parametrize("path", ["/LazyBatch", "/AsyncLazyBatch"])
def test_generators_of_results(service: Service, path: str) -> None:
    assert post(service, path, "a", "b") == [(200, "a"), (200, "b")]


def test_generators_of_too_many_results(service: Service) -> None:
    assert post(service, "/LazyBatch", "twice", "twice") == [(500, "inference internal error")] * 2
    service.wait_output("forward returned 4 results for a batch of 2")
    assert post(service, "/LazyBatch", "endless") == [(500, "inference internal error")]
    service.wait_output(r"forward returned \d+ results for a batch of 1\b")


def test_a_coroutine_in_an_item_s_place(service: Service) -> None:
    answers = dict(zip(("bad", "good"), post(service, "/CoroutineInPlace", "bad", "good"), strict=True))
    assert answers["good"] == (200, "good")
    assert answers["bad"][0] == 500
    assert "a result of forward is a coroutine" in answers["bad"][1]


def test_nothing_failed_in_the_warm_up(service: Service) -> None:
    """Each replica has said so before the service listened, and that was waited for."""
    assert [line for line in service.messages if "warm-up failed" in line] == []
