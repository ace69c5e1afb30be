"""`forward` as a coroutine function, as a generator of results, and what is no result."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.service import Serve, Service

SERVICE = """
    import asyncio, os
    from mosec_cy import Server, SSEWorker, ValidationError, Worker

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
                    print(f"ended {data}", flush=True)
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

    class InnerStream(SSEWorker):
        async def forward(self, data):
            yield "an event"

    if __name__ == "__main__":
        server = Server(timeout=60_000)
        for worker in (AsyncWorker, SyncToAsync, PlainGenerator, PlainAsyncGenerator, Joined):
            server.append_worker(worker, route=f"/{worker.__name__}")
        server.append_worker(AsyncWorker, route="/slow", timeout=1)
        for worker in (AsyncBatch, LazyBatch, AsyncLazyBatch, CoroutineInPlace):
            server.append_worker(worker, route=f"/{worker.__name__}", max_batch_size=2, max_wait_time=500)
        server.append_worker(AsyncBatch, route="/pipeline", max_batch_size=2, max_wait_time=1)
        server.append_worker(Last, route="/pipeline")
        server.append_worker(InnerStream, route="/inner")
        server.append_worker(Last, route="/inner")
        server.run()
"""


@pytest.fixture(scope="module")
def service(serve_module: Serve) -> Service:
    return serve_module(SERVICE).wait_ready()


def post(service: Service, path: str, *bodies: Any) -> list[tuple[int, Any]]:
    """Status and answer of requests that are sent at once."""

    def ask(body: Any) -> tuple[int, Any]:
        with service.client() as client:
            response = client.post(path, json=body)
            return response.status_code, response.json() if response.status_code == 200 else response.text

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(ask, bodies))


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
    assert post(service, "/slow", how) == [(408, "mosec timeout error: `forward` timeout")]
    service.wait_output(f"ended {how}")
    assert post(service, "/slow", "word") == [(200, "WORD")]


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
    ((status, text),) = post(service, "/inner", "x")
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
