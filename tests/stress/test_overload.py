"""A service that is asked for far more than it can do: each request has its one answer, and nothing is left of it."""

from __future__ import annotations

import collections
import json
import random
from collections.abc import Callable, Iterator

import pytest

from tests.accounting import at_rest, memory_of
from tests.http_client import request
from tests.load import Exchange, drive
from tests.service import Serve

SERVICE = """
    import time
    from mosec_cy import Server, Worker

    class First(Worker):
        def forward(self, data):
            return data

    class Slow(Worker):
        def forward(self, data):
            time.sleep(0.01)
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(First, max_batch_size=4, max_wait_time=1, route="/pipeline")
        server.append_worker(Slow, num=2, max_batch_size=4, max_wait_time=1, route=["/slow", "/pipeline"])
        server.run()
"""
REFUSALS = {
    408: b"inference timeout",
    429: b"too many request: task queue is full",
    503: b"service is overloaded: the request would not be answered in time",
}
BATCH_AND_SLOTS = 8


def load(count: int, seed: int) -> Iterator[Exchange]:
    """Some in a hurry, some leave."""
    generator = random.Random(seed)
    for number in range(count):
        body = json.dumps({"id": number, "text": "x" * generator.randrange(2000)}).encode()
        timeout = generator.choice([None, None, 5, 30, 100, 10_000])
        headers = f"x-request-timeout-ms: {timeout}\r\n" if timeout else ""
        raw = request(body, generator.choice(["/slow", "/pipeline"]), headers)
        yield Exchange(raw, None if generator.random() < 0.05 else answers(number))


def answers(number: int) -> Callable[[int, bytes], bool]:
    def check(status: int, body: bytes) -> bool:
        return json.loads(body)["id"] == number if status == 200 else REFUSALS[status] == body

    return check


@pytest.mark.timeout(120)
@pytest.mark.parametrize("limits", [("--timeout", "200"), ("--timeout", "20000", "--capacity", "40")])
def test_more_than_it_can_do(serve: Serve, limits: tuple[str, ...]) -> None:
    service = serve(SERVICE, *limits).wait_ready()
    service.wait_outputs(r"<\w+\|\d> ready", 3)
    segment = memory_of(service)
    counts: collections.Counter[int] = drive(service.port, load(6000, 1), 300)
    assert sum(counts.values()) == 6000
    assert set(counts) <= {0, 200, *REFUSALS}
    assert counts[200] > 2 * BATCH_AND_SLOTS
    assert counts[429] + counts[503] > 100
    at_rest(segment)
    assert segment.blocks() == (0, 0)
    # The refused have left no trace: who comes now is served at once.
    calm = Exchange(request(b'{"id": 1}', "/pipeline"), answers(1))
    assert drive(service.port, [calm] * BATCH_AND_SLOTS, 1) == {200: BATCH_AND_SLOTS}
    at_rest(segment)
    assert segment.blocks() == (0, 0)
    segment.close()
