"""`/health/live` and `/health/ready`: answered by core alone, and true."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.engine import SECOND, SHUTDOWN, SLOT_READY, Engine
from tests.http_client import Answer, Client, get
from tests.interop.slots import running
from tests.programs import ECHO, WAITS_IN_RESTART, echo
from tests.service import Serve, Service
from tests.until import PATIENCE, until

MS = 1_000_000
BRIEF = {"service_timeout_ns": 100 * MS, "kill_grace_ns": 100 * MS, "stall_margin_ns": 300 * MS}


def ask(engine: Engine, path: str, method: str = "GET") -> Answer:
    with Client(engine) as client:
        client.send(get(path, "connection: close\r\n", method))
        return client.last_answer(to_head=method == "HEAD")


def wait_for(answer: Callable[[], tuple[int, bytes]], expected: tuple[int, bytes]) -> None:
    until(lambda: answer() == expected, message=lambda: f"{answer()}, never {expected}")


def probe(engine: Engine, path: str) -> Callable[[], tuple[int, bytes]]:
    return lambda: ask(engine, path).outcome


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_methods(path: str) -> None:
    with running() as engine:
        engine.order(SLOT_READY, slot=0)
        engine.channel()
        wait_for(probe(engine, "/health/ready"), (200, b"ready"))
        status, headers, body = ask(engine, path, "HEAD")
        assert (status, headers["content-length"], body) == (200, str(len(path) - len("/health/")), b"")
        assert ask(engine, path, "OPTIONS")[0] == 204
        status, headers, _ = ask(engine, path, "POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert ask(engine, path + "/x")[0] == 404


def test_ready_names_the_stage_that_lacks_a_worker() -> None:
    with running(stages=2, slots=2) as engine:
        ready = probe(engine, "/health/ready")
        wait_for(ready, (503, b"not ready: master has no worker"))
        engine.order(SLOT_READY, slot=0)
        wait_for(ready, (503, b"not ready: stage_1 has no worker"))
        engine.channel(1)
        engine.channel(2)
        wait_for(ready, (503, b"not ready: stage_2 has no worker"))
        engine.channel(4)
        wait_for(ready, (200, b"ready"))
        assert probe(engine, "/health/live")() == (200, b"live")


def test_work_that_waits_for_a_first_worker_is_no_stall() -> None:
    with running(**BRIEF) as engine, Client(engine) as client:
        engine.order(SLOT_READY, slot=0)
        for _ in range(8):  # each times out: longer together than a stage's patience
            assert client.post(b"1").status == 408
            assert probe(engine, "/health/live")() == (200, b"live")
        assert probe(engine, "/health/ready")() == (503, b"not ready: stage_1 has no worker")


def test_a_worker_that_takes_nothing_is_a_stall_until_it_does() -> None:
    with running(**BRIEF) as engine, Client(engine) as client:
        engine.order(SLOT_READY, slot=0)
        channel = engine.channel()
        live = probe(engine, "/health/live")
        assert client.post(b"1").status == 408
        wait_for(live, (503, b"stalled: stage_1 does not get on with its work"))
        assert client.post(b"2").status == 408  # still, also with news of the clients
        assert live()[0] == 503
        channel.take_now()
        wait_for(live, (200, b"live"))


def test_a_worker_that_never_answers_is_a_stall_until_it_does() -> None:
    with running(**BRIEF) as engine, Client(engine) as client:
        engine.order(SLOT_READY, slot=0)
        channel = engine.channel()
        live = probe(engine, "/health/live")
        client.send_post(b"1")
        items = channel.take()
        assert items
        assert client.answer().status == 408
        wait_for(live, (503, b"stalled: stage_1 does not get on with its work"))
        channel.answer(items[0], 200, b"2", 0)
        wait_for(live, (200, b"live"))


def test_the_next_phase_of_a_batch_is_progress() -> None:
    with running(**BRIEF) as engine, Client(engine) as client:
        engine.order(SLOT_READY, slot=0)
        channel = engine.channel()
        live = probe(engine, "/health/live")
        client.send_post(b"1")
        items = channel.take()
        assert items
        wait_for(live, (503, b"stalled: stage_1 does not get on with its work"))
        channel.begin_forward()
        wait_for(live, (200, b"live"))
        channel.answer(items[0], 200, b"2", 0)
        wait_for(live, (200, b"live"))


def test_one_worker_that_gets_on_is_enough() -> None:
    with running(slots=2, **BRIEF) as engine, Client(engine) as client:
        engine.order(SLOT_READY, slot=0)
        channel = engine.channel(1)
        live = probe(engine, "/health/live")
        client.send_post(b"1")
        items = channel.take()
        assert items
        wait_for(live, (503, b"stalled: stage_1 does not get on with its work"))
        engine.channel(2)
        wait_for(live, (200, b"live"))
        channel.answer(items[0], 200, b"2", 0)


def test_who_decodes_for_longer_than_forward_may_take_is_no_stall() -> None:
    """The stage's time-out is that of `forward`; to decode and encode a worker has the time that clients wait."""
    with running(**BRIEF | {"service_timeout_ns": 30 * SECOND}, stage={"timeout_ns": 100 * MS}) as engine:
        engine.order(SLOT_READY, slot=0)
        channel = engine.channel()
        live = probe(engine, "/health/live")
        with Client(engine) as client:
            client.send_post(b"1")
            items = channel.take()
            assert items
            patience = time.monotonic() + 0.6  # s: the stage's time-out, the period of grace, the margin; and some
            while time.monotonic() < patience:
                assert live() == (200, b"live")
            channel.answer(items[0], 200, b"2", 0)
            assert client.outcome() == (200, b"2")


def test_live_while_it_drains_and_not_ready() -> None:
    with running() as engine:
        engine.order(SLOT_READY, slot=0)
        channel = engine.channel()
        with Client(engine) as client:
            client.send_post(b"1")
            items = channel.take()
            assert items
            engine.order(SHUTDOWN, value=time.monotonic_ns() + 30 * SECOND)
            wait_for(probe(engine, "/health/ready"), (503, b"gracefully shutting down"))
            assert probe(engine, "/health/live")() == (200, b"live")
            channel.answer(items[0], 200, b"2", 0)
            assert client.outcome() == (200, b"2")


def test_probes_are_not_counted_as_a_route() -> None:
    with running() as engine:
        before = engine.segment.stats()["routes"]
        assert ask(engine, "/health/live")[0] == 200
        assert ask(engine, "/health/ready")[0] == 503
        after = engine.segment.stats()["routes"]
    assert after[:-1] == before[:-1]
    assert sum(after[-1]) == 2


# ---- of a whole service ------------------------------------------------------------------------------


def asked(service: Service, path: str) -> Callable[[], tuple[int, bytes]]:
    def get() -> tuple[int, bytes]:
        with service.client() as client:
            answer = client.get(path)
        return answer.status_code, answer.content

    return get


def test_ready_follows_the_death_of_the_only_worker(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    service = serve(WAITS_IN_RESTART, str(gate)).wait_ready()
    ready = asked(service, "/health/ready")
    wait_for(ready, (200, b"ready"))
    (worker,) = service.pids("mosec_cy: Echo_1")
    os.kill(worker, signal.SIGKILL)
    wait_for(ready, (503, b"not ready: Echo_1 has no worker"))
    assert asked(service, "/health/live")() == (200, b"live")
    assert asked(service, "/")() == (200, b"MOSEC service")
    gate.write_text("")
    wait_for(ready, (200, b"ready"))


def test_a_master_that_hangs_is_reported(serve: Serve) -> None:
    service = serve(ECHO, "--timeout", "200", "--kill-grace", "200", "--stall-margin", "200").wait_ready()
    live = asked(service, "/health/live")
    service.signal(signal.SIGSTOP)
    try:
        scrape = threading.Thread(target=lambda: httpx.get(f"http://{service.address}/metrics", timeout=PATIENCE))
        scrape.start()
        scrape.join()
        wait_for(live, (503, b"stalled: master does not get on with its work"))
        assert asked(service, "/health/ready")() == (200, b"ready")
    finally:
        service.signal(signal.SIGCONT)
    wait_for(live, (200, b"live"))


def test_paths_are_reserved(serve: Serve) -> None:
    service = serve(echo(worker='route="/health/live"'))
    assert service.wait_end() == 1
    assert "route '/health/live' is reserved" in service.output
