"""Mixed load on a real service: no answer is lost, none goes to the wrong client, and nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.accounting import assert_nobody_wakes, at_rest, memory_of, status
from tests.http_client import clients, request
from tests.load import Exchange, drive, exchange
from tests.service import Serve, Service

SERVICE = Path(__file__).with_name("mixed_service.py")
WORKERS = 13
TOO_LATE = (
    (408, b"inference timeout"),
    (503, b"service is overloaded: the request would not be answered in time"),
)
DIED = b"inference internal error: the worker process died"


def answers(status: int, value: object) -> Callable[[int, bytes], bool]:
    def check(got: int, body: bytes) -> bool:
        return got == status and (json.loads(body) if status == 200 else body.decode()) == value

    return check


def or_died(check: Callable[[int, bytes], bool] | None) -> Callable[[int, bytes], bool]:
    assert check is not None
    return lambda status, body: check(status, body) or (status, body) == (500, DIED)


def echo(number: int) -> Exchange:
    value = {"id": number, "text": "x" * (number % 500)}
    return exchange("/echo", json.dumps(value).encode(), answers(200, value))


def pipeline(number: int) -> Exchange:
    body = json.dumps({"id": number}).encode()
    if number % 50 == 49:
        return exchange("/pipeline", body, answers(422, f"request validation error: {number}"))
    return exchange("/pipeline", body, answers(200, [number, 1, 2, 3]))


def raw(number: int) -> Exchange:
    body = b"%d " % number * (1 + number % 1500)
    return exchange("/raw", body, lambda status, got: (status, got) == (200, body))


def arrays(number: int) -> Exchange:
    body = json.dumps({"id": number}).encode()
    return exchange("/arrays", body, answers(200, {"id": number, "sum": number * 3000}))


def slow(number: int) -> Exchange:
    body = json.dumps({"id": number}).encode()
    overrun = answers(408, "mosec timeout error: `forward` timeout")
    return exchange("/slow", body, overrun if number % 2 else answers(200, {"id": number}))


def malformed(number: int) -> Exchange:
    return exchange("/echo", b"{%d" % number, lambda status, body: status == 400 and body.startswith(b"decoding error"))


def nowhere(number: int) -> Exchange:
    return exchange(f"/{number}", b"x", lambda status, body: status == 404)


def leaves(number: int, kinds: Sequence[Callable[[int], Exchange]] = (echo, pipeline, raw, arrays)) -> Exchange:
    """Sends all of it, or a part, and is gone."""
    whole = kinds[number % len(kinds)](number).raw
    return Exchange(whole, None, number % len(whole) if number % 3 else None)


def mixed(count: int, seed: int) -> Iterator[Exchange]:
    generator = random.Random(seed)
    kinds = [echo, pipeline, raw, arrays, malformed, nowhere, leaves, slow]
    weights = [400, 250, 150, 100, 20, 10, 65, 5]
    for number, kind in enumerate(generator.choices(kinds, weights, k=count)):
        yield kind(number)


class Holdings:
    """What a service holds while nothing is under way."""

    def __init__(self, service: Service) -> None:
        self.titles = service.processes()
        self.descriptors = {title: len(service.descriptors(pid)) for pid, title in self.titles.items()}
        self.memory = {title: status(pid, "RssAnon") for pid, title in self.titles.items()}


def wait_ready(service: Service, count: int = WORKERS) -> None:
    """Until that many workers have been ready, counted from the start."""
    service.wait_outputs(r"<\w+\|\d> ready", count)


@pytest.mark.timeout(180)
def test_a_hundred_thousand_mixed_requests(serve: Serve) -> None:
    service = serve(SERVICE).wait_ready()
    wait_ready(service)
    drive(service.port, mixed(10_000, 1), 64)  # buffers, caches and pages that are kept have grown
    segment = memory_of(service)
    at_rest(segment)
    before = Holdings(service)
    counts = drive(service.port, mixed(90_000, 2), 64)
    assert sum(counts.values()) == 90_000
    assert counts[0] > 4000  # left
    assert counts[200] > 75_000
    at_rest(segment)
    after = Holdings(service)
    assert after.titles == before.titles
    assert after.descriptors == before.descriptors
    for title, size in after.memory.items():
        assert size - before.memory[title] < 2048, f"{title}: {before.memory[title]} KiB became {size}"
    # A worker may keep the last arrays that it saw; nothing else is held.
    core_held, leased = segment.blocks()
    assert core_held == 0
    assert leased <= 20
    assert segment.stats()["connections"] == 0
    assert_nobody_wakes(service, attempts=30)
    segment.close()


@pytest.mark.timeout(180)
def held(service: Service) -> dict[str, int]:
    """How many sockets, pipes and memories each process has open, without those of the log: a first line opens another.

    (Files are open for a moment while a worker that is ready imports the last modules.)
    """
    found = {}
    for pid, title in service.processes().items():
        opened = service.descriptors(pid)
        names = [name for name in opened.values() if name != opened[2]]
        found[title] = sum(not name.startswith("/") or name.startswith("/memfd:") for name in names)
    return found


def test_workers_killed_under_load(serve: Serve) -> None:
    """From outside and by their own requests: whoever had started is told, everybody else is answered."""
    service = serve(SERVICE).wait_ready()
    wait_ready(service)
    segment = memory_of(service)
    before = held(service)
    victims = ["Echo_1 [1]", "First_2 [2]", "Middle_3 [1]", "Middle_3 [2]", "Last_4 [1]", "Mortal_9 [1]", "Raw_5 [1]"]
    generator = random.Random(3)
    killed = 2  # by their own requests

    def load(count: int) -> Iterator[Exchange]:
        nonlocal killed
        for number in range(count):
            if number % (count // len(victims)) == 100:
                for pid in service.pids(victims[number // (count // len(victims))]):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            if number in (5000, 9000):
                yield exchange("/mortal", b'{"die": true}', lambda status, body: (status, body) == (500, DIED))
            elif generator.random() < 0.05:
                yield leaves(number, (echo, pipeline, raw))
            else:
                made = generator.choice((echo, pipeline, raw, mortal))(number)
                yield Exchange(made.raw, or_died(made.check))

    def mortal(number: int) -> Exchange:
        return exchange("/mortal", b'{"id": %d}' % number, answers(200, {"id": number}))

    counts = drive(service.port, load(14_000), 64)
    assert sum(counts.values()) == 14_000
    assert 0 < counts[500] < 300
    assert set(counts) == {0, 200, 422, 500}
    at_rest(segment)
    wait_ready(service, WORKERS + killed)
    assert segment.blocks() == (0, 0)
    assert held(service) == before
    segment.close()


@pytest.mark.timeout(60)
def test_time_outs_and_departures_while_batches_form(serve: Serve) -> None:
    """Requests that expire or leave at every moment of their life, among others that must not notice."""
    service = serve(SERVICE, "--timeout", "40").wait_ready()
    wait_ready(service)
    segment = memory_of(service)
    generator = random.Random(4)

    def maybe_late(made: Exchange) -> Exchange:
        check = made.check
        assert check is not None
        return Exchange(made.raw, lambda status, body: (status, body) in TOO_LATE or check(status, body))

    def load(count: int) -> Iterator[Exchange]:
        for number in range(count):
            if generator.random() < 0.2:
                yield leaves(number)
            elif generator.random() < 0.01:
                yield exchange("/slow", b'{"id": 1}', lambda status, body: status in (408, 503))
            else:
                yield maybe_late(generator.choice((echo, pipeline, arrays, raw))(number))

    counts = drive(service.port, load(8000), 256)
    assert sum(counts.values()) == 8000
    assert counts[408] + counts[503] > 50
    at_rest(segment)
    core_held, leased = segment.blocks()
    assert (core_held, leased <= 20) == (0, True)
    segment.close()


def test_pipelined_requests_and_batches(serve: Serve) -> None:
    """Many requests in one segment on each of many connections: the answers come in their order."""
    service = serve(SERVICE).wait_ready()
    with_id = [b'{"id": %d}' % number for number in range(2000)]
    with clients(service, 20) as many:
        for index, client in enumerate(many):
            client.send(b"".join(request(body, "/echo") for body in with_id[index::20]))
        for index, client in enumerate(many):
            asked = with_id[index::20]
            assert [client.outcome() for _ in asked] == [(200, body.replace(b" ", b"")) for body in asked]
            assert client.rest == b""
