"""What else may happen during a rolling restart: long requests, deaths, the end of the service, one more of it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.interop.held import HELD, PATIENT, Gates, ask, kill, start_held, waiting_at
from tests.interop.rolled import replaced, troubles
from tests.service import Serve

MODES = pytest.mark.parametrize("mode", ["surge", "replace"])


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    directory = tmp_path / "gates"
    directory.mkdir()
    return Gates(directory)


@MODES
def test_a_long_request_is_finished(serve: Serve, gates: Gates, mode: str) -> None:
    service = start_held(serve, gates, 1, "--rolling", mode, *PATIENT)
    (old,) = service.pids(" [")
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(ask, service, "wait")
        assert waiting_at(service, "request") == old
        service.signal(signal.SIGHUP)
        if mode == "surge":  # the new one serves already
            service.wait_outputs("> ready", 2)
            new, _ = ask(service)
            assert new != old
        else:
            service.wait_output("rolling restart of 1 workers begins")
        gates.open_request("finished")
        assert long.result() == (old, "finished")
    service.wait_output("rolling restart done")
    assert ask(service)[0] != old
    assert troubles(service) == []


def test_a_request_without_end_is_timed_out(serve: Serve, gates: Gates) -> None:
    """Its client has its answer when its time is over; then the old process is killed."""
    service = start_held(serve, gates, 1, "--timeout", "500", "--kill-grace", "200")
    (old,) = service.pids(" [")
    with service.client() as client, ThreadPoolExecutor(1) as pool:
        endless = pool.submit(client.post, "/inference", json="wait")
        waiting_at(service, "request")
        os.kill(old, signal.SIGSTOP)  # as in C code that does not come back
        service.signal(signal.SIGHUP)
        assert endless.result().status_code == 408
        service.wait_output("rolling restart done")
    assert service.pids(" [") == [ask(service)[0]] != [old]


def test_requests_for_a_restart_during_one(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 1)
    gates.close_start()
    service.signal(signal.SIGHUP)
    first = waiting_at(service, "start")
    service.signal(signal.SIGHUP)
    service.wait_outputs("a rolling restart is under way: one more follows it", 1)
    gates.open_start()
    service.wait_outputs("rolling restart done", 2)
    assert replaced(service)["<Held_1|1>"][0] == first
    assert service.pids(" [") == [ask(service)[0]] == [replaced(service)["<Held_1|1>"][1]]


def test_a_request_for_a_restart_before_the_start_is_over(serve: Serve, gates: Gates) -> None:
    gates.close_start()
    service = serve(HELD, str(gates.directory), "1", *PATIENT)
    first = waiting_at(service, "start")
    service.signal(signal.SIGHUP)
    service.wait_output("the service is still starting: a rolling restart follows")
    gates.open_start()
    service.wait_ready()
    service.wait_output("rolling restart done")
    assert replaced(service)["<Held_1|1>"][0] == first
    assert ask(service)[0] != first


@MODES
def test_shutdown_during_a_restart(serve: Serve, gates: Gates, mode: str) -> None:
    service = start_held(serve, gates, 2, "--rolling", mode, *PATIENT)
    gates.close_start()
    service.signal(signal.SIGHUP)
    waiting_at(service, "start")
    service.signal(signal.SIGTERM)
    assert service.wait_end() == 0
    assert "rolling restart given up: the service is shutting down" in service.messages
    assert troubles(service) == []


@MODES
def test_shutdown_while_an_old_one_finishes(serve: Serve, gates: Gates, mode: str) -> None:
    service = start_held(serve, gates, 1, "--rolling", mode, *PATIENT)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(ask, service, "wait")
        old = waiting_at(service, "request")
        service.signal(signal.SIGHUP)
        service.wait_output("rolling restart of 1 workers begins")
        if mode == "surge":
            service.wait_outputs("> ready", 2)
        service.signal(signal.SIGTERM)
        service.wait_output("SIGTERM: shutting down")
        service.signal(signal.SIGHUP)
        service.wait_output("no rolling restart: the service is shutting down")
        gates.open_request("finished")
        assert long.result() == (old, "finished")
    assert service.wait_end() == 0
    assert troubles(service) == []


def test_the_old_one_dies_before_the_new_one_is_ready(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 1)
    (old,) = service.pids(" [")
    gates.close_start()
    service.signal(signal.SIGHUP)
    new = waiting_at(service, "start")
    kill(service, old)
    gates.open_start()
    service.wait_output("rolling restart done")
    assert ask(service)[0] == new
    assert service.pids(" [") == [new]


def test_the_new_one_dies_while_the_old_one_finishes(serve: Serve, gates: Gates) -> None:
    """It is started again before the next replica has its turn."""
    service = start_held(serve, gates, 1)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(ask, service, "wait")
        old = waiting_at(service, "request")
        service.signal(signal.SIGHUP)
        service.wait_outputs("> ready", 2)
        kill(service, next(pid for pid in service.pids(" [") if pid != old))
        service.wait_outputs("> ready", 3)
        gates.open_request("finished")
        assert long.result() == (old, "finished")
    service.wait_output("rolling restart done")
    assert service.pids(" [") == [ask(service)[0]] == [replaced(service)["<Held_1|1>"][1]]


def test_the_old_one_dies_while_it_finishes(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 1)
    with service.client() as client, ThreadPoolExecutor(1) as pool:
        long = pool.submit(client.post, "/inference", json="wait")
        old = waiting_at(service, "request")
        service.signal(signal.SIGHUP)
        service.wait_outputs("> ready", 2)
        kill(service, old)
        assert long.result().status_code == 500  # as for any worker that dies
        service.wait_output("rolling restart done")
    assert service.pids(" [") == [ask(service)[0]]


def test_another_one_dies_meanwhile(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 2)
    gates.close_start()
    service.signal(signal.SIGHUP)
    new = waiting_at(service, "start")
    second = service.pids("[2]")[0]
    kill(service, second)
    service.wait_outputs("waits at the start", 2)
    gates.open_start()
    service.wait_output("rolling restart done")
    assert service.pids("[1]") == [new]
    assert service.pids("[2]") == [replaced(service)["<Held_1|2>"][1]] != [second]
