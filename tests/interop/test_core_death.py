"""Core dies: another one serves the same workers, and whoever connects meanwhile is answered."""

from __future__ import annotations

import os
import signal
import statistics
import threading
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mosec_cy._base.limits import LONGEST_MS
from tests.accounting import assert_nobody_wakes, memory_of
from tests.interop.core_deaths import (
    BACK,
    CORE,
    PIPELINE,
    ask,
    kill_core,
    recover,
    wait_attached,
    wait_workers,
    workers_of,
)
from tests.service import Serve, Service
from tests.until import until

UNLIMITED = {"MOST_DEATHS": "1000", "FIRST_DELAY": "0"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_workers_keep_their_models(serve: Serve, number: signal.Signals) -> None:
    service = wait_workers(serve(PIPELINE), 4)
    workers = workers_of(service)
    assert len(workers) == 4
    recover(service, 1, number)
    assert f"core ended with {number.name}: its connections are lost" in service.messages
    wait_attached(service)
    with service.client() as client:
        assert set(client.post("/inference", json=[]).json()) <= set(workers)
    assert workers_of(service) == workers
    assert sum("loading the model" in message for message in service.messages) == 4
    service.stop()


@pytest.mark.parametrize("timeout", [2**31 - 1, LONGEST_MS])
def test_workers_that_have_weeks_to_come_over(serve: Serve, timeout: int) -> None:
    """Who wants no time-out gives one that is very long."""
    service = wait_workers(serve(PIPELINE, "--timeout", str(timeout)), 4)
    recover(service, 1)
    wait_attached(service)
    service.stop()


def test_connections_made_meanwhile_are_served(serve: Serve) -> None:
    service = wait_workers(serve(PIPELINE), 4)
    service.signal(signal.SIGSTOP)  # nobody replaces core now
    core = kill_core(service)
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(ask_once(service))) for _ in range(8)]
    for client in clients:
        client.start()
    wait_established(service, 8)
    service.signal(signal.SIGCONT)
    for client in clients:
        client.join()
    assert [answer.status_code for answer in answers] == [200] * 8
    assert core not in service.pids(CORE)


def ask_once(service: Service) -> httpx.Response:
    with service.client() as client:
        return client.post("/inference", json=[])


def wait_established(service: Service, count: int) -> None:
    """Until so many clients are connected: in the backlog, if nobody accepts them."""
    port = f":{service.port:04X}"

    def established() -> int:
        sockets = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()]
        return sum(local.endswith(port) and state == "01" for local, _, state in sockets)

    until(lambda: established() >= count)


def test_under_load_every_request_is_answered(serve: Serve) -> None:
    """By clients that ask again when their connection breaks; none gets another one's answer."""
    service = wait_workers(serve(PIPELINE, env=UNLIMITED), 4)
    done = threading.Event()
    counts = [0] * 4
    wrong: list[httpx.Response] = []

    def load(place: int) -> None:
        while not done.is_set():
            mark = f"{place}-{counts[place]}"
            answer = ask(service, [mark])
            if answer.status_code != 200 or answer.json()[0] != mark:
                wrong.append(answer)
            counts[place] += 1

    def wait_more(before: list[int]) -> None:
        until(lambda: wrong or all(now > then for now, then in zip(counts, before, strict=True)))
        assert not wrong

    threads = [threading.Thread(target=load, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    took = []
    for deaths in range(1, 11):
        before = list(counts)
        took.append(recover(service, deaths))
        wait_more(before)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    print(f"under load answered again after {statistics.median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms")


def test_many_deaths_leak_nothing(serve: Serve) -> None:
    service = wait_workers(serve(PIPELINE, env=UNLIMITED), 4)
    recover(service, 1)  # what is loaded once is loaded
    held = descriptors(service)
    took = [recover(service, deaths) for deaths in range(2, 12)]
    until(  # core is closing a connection
        lambda: all(count <= held[title] for title, count in descriptors(service).items()),
        message=lambda: (descriptors(service), held),
    )
    print(f"answered again after {statistics.median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms")


def descriptors(service: Service) -> dict[str, int]:
    """How many each process has; all have attached, and map nothing of the cores before."""
    wait_attached(service)
    counts = {title: len(service.descriptors(pid)) for pid, title in service.processes().items()}
    assert len(counts) == 6
    return counts


def test_counts_go_on(serve: Serve) -> None:
    service = wait_workers(serve(PIPELINE, "--max-request-size", "1000"), 4)
    with service.client() as client:
        assert [client.post("/inference", json=[]).status_code for _ in range(10)] == [200] * 10
        assert client.get("/nowhere").status_code == 404
        assert client.post("/inference", content=b"x" * 2000).status_code == 413
        before = samples(client)
    recover(service, 1)
    with service.client() as client:
        client.post("/inference", json=[])
        after = samples(client)
    counters = {name for name in before if "_total" in name or "_bucket" in name or "_count" in name or "_sum" in name}
    assert len(counters) > 50
    assert {name for name in counters if after[name] < before[name]} == set()
    served = "mosec_service_throughput_total code=200 endpoint=/inference"
    assert after[served] >= before[served] + 2
    assert after["mosec_service_open_connections"] == 1
    assert after["mosec_service_remaining_task"] == 0


def samples(client: httpx.Client) -> dict[str, float]:
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_a_page_that_waits_for_the_workers(serve: Serve) -> None:
    service = wait_workers(serve(PIPELINE), 4)
    (late,) = service.pids("mosec_cy: Third")
    os.kill(late, signal.SIGSTOP)  # so that master waits for its metrics
    lost: list[object] = []

    def scrape() -> None:
        with service.client() as client:
            try:
                lost.append(client.get("/metrics").status_code)
            except httpx.TransportError as error:
                lost.append(error)

    thread = threading.Thread(target=scrape)
    segment = memory_of(service)
    thread.start()
    until(lambda: segment.stats()["remaining"] > 0)
    kill_core(service)
    thread.join()
    assert len(lost) == 1
    segment.close()
    os.kill(late, signal.SIGCONT)
    service.wait_output(BACK)
    with service.client() as client:
        assert client.post("/inference", json=[]).status_code == 200
        assert client.get("/metrics").status_code == 200
        assert client.get("/openapi").status_code in (200, 404)


def test_idle_after_a_recovery_nobody_wakes(serve: Serve) -> None:
    service = wait_workers(serve(PIPELINE), 4)
    recover(service, 1)
    assert_nobody_wakes(service)
