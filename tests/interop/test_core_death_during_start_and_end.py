"""Core dies while the service starts, while a worker is restarted, while it dies anyway, and again and again."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

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
from tests.programs import slow_start
from tests.service import Serve, Service
from tests.until import until

DEATH = "core ended with SIGKILL: its connections are lost"


@pytest.mark.parametrize(("method", "place"), [("spawn", "__init__"), ("fork", "warm-up")])
def test_during_the_start_of_a_worker(serve: Serve, gate: Path, method: str, place: str) -> None:
    """Its model is loaded once; it goes over to the new core when it is ready."""
    service = serve(slow_start(place, start_method=method), str(gate))
    service.wait_output("loading")
    core = kill_core(service)
    service.wait_outputs(BACK, 1)
    kill_core(service, but=core)
    service.wait_outputs(BACK, 2)
    gate.write_text("loaded")
    service.wait_ready()
    (worker,) = service.pids("mosec_cy: Slow")
    assert ask(service, "x").json() == worker
    wait_attached(service)
    assert sum("loading" in message for message in service.messages) == 1


def test_together_with_a_worker(serve: Serve) -> None:
    """Whoever of both is missed first: the worker is replaced, too."""
    service = wait_workers(serve(PIPELINE), 4)
    for round_ in range(1, 3):
        service.signal(signal.SIGSTOP)
        victims = [service.pids("mosec_cy: Third")[0], service.pids(CORE)[0]]
        for pid in victims if round_ % 2 else reversed(victims):
            os.kill(pid, signal.SIGKILL)
        service.signal(signal.SIGCONT)
        answer = ask(service, [])
        assert answer.status_code == 200
        assert answer.json()[-1] not in victims
        service.wait_outputs(BACK, round_)
    wait_attached(service)


def test_while_a_worker_waits_for_its_restart(serve: Serve) -> None:
    """Its delay goes on, and it starts with what is the service's by then."""
    service = wait_workers(serve(PIPELINE), 4)
    ended = r"<Third_3.1> ended by itself"
    for death in range(1, 4):
        os.kill(service.wait_process("mosec_cy: Third"), signal.SIGKILL)
        service.wait_outputs(ended, death)
        if death < 3:
            service.wait_outputs("<Third_3.1> ready", death + 1)
    kill_core(service)  # 0.4 s until the start
    service.wait_outputs("<Third_3.1> ready", 4)
    service.wait_output(BACK)
    assert len(ask(service, []).json()) == 3
    wait_attached(service)


def between_two_cores(serve: Serve) -> Service:
    """A service whose core has died twice: the replacement waits for a minute."""
    service = wait_workers(serve(PIPELINE, env={"FIRST_DELAY": "60"}), 4)
    recover(service, 1)
    kill_core(service)
    service.wait_outputs(DEATH, 2)
    assert service.pids(CORE) == []
    return service


def test_shutdown_between_two_cores(serve: Serve) -> None:
    service = between_two_cores(serve)
    service.stop()


def test_death_of_the_master_between_two_cores(serve: Serve) -> None:
    service = between_two_cores(serve)
    service.signal(signal.SIGKILL)
    assert service.wait_end() == -signal.SIGKILL
    service.assert_nothing_left()


def test_a_worker_that_dies_between_two_cores(serve: Serve) -> None:
    service = wait_workers(serve(PIPELINE, env={"FIRST_DELAY": "0.5"}), 4)
    recover(service, 1)
    kill_core(service)
    service.wait_outputs(DEATH, 2)
    os.kill(service.wait_process("mosec_cy: Second"), signal.SIGKILL)
    service.wait_outputs("<Second_2.1> ended by itself", 1)
    assert len(ask(service, []).json()) == 3
    service.wait_outputs(BACK, 2)
    wait_attached(service)
    assert len(workers_of(service)) == 4


def test_again_and_again(serve: Serve) -> None:
    service = wait_workers(serve(PIPELINE, env={"FIRST_DELAY": "0.001"}), 4)
    for death in range(6):
        service.wait_outputs(BACK, death)
        kill_core(service)
    assert service.wait_end() == 1
    assert "core ended 6 times within 30 s: shutting down" in service.messages
    assert service.messages.count(DEATH) == 6


@pytest.mark.parametrize(
    ("python", "why", "end"),
    [
        ("/bin/false", "core ended with status 1", "core ended 3 times before it ran"),
        ("/nonexistent", "another core cannot be started now", "no other core could be started for 0.2 s"),
        ("sleeper", "core killed, it did not start within 0.2 s", "core ended 3 times before it ran"),
    ],
)
def test_no_other_core_can_be_started(serve: Serve, tmp_path: Path, python: str, why: str, end: str) -> None:
    if python == "sleeper":
        python = str(tmp_path / python)
        Path(python).write_text("#!/bin/sh\nexec sleep 1000\n")
        Path(python).chmod(0o755)
    service = wait_workers(serve(PIPELINE, env={"NO_PYTHON": python}), 4)
    service.signal(signal.SIGUSR1)
    wait_handled(service)
    kill_core(service)
    assert service.wait_end() == 1
    assert f"{end}: shutting down" in service.messages
    assert any(message.startswith(why) for message in service.messages)


def test_the_system_has_no_descriptors_for_a_while(serve: Serve) -> None:
    """Models that took minutes to load are worth waiting for it."""
    service = wait_workers(serve(PIPELINE), 4)
    workers = workers_of(service)
    limits = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    kill_core(service)
    service.wait_output("another core cannot be started now")
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, limits)
    assert ask(service, []).status_code == 200
    assert workers_of(service) == workers
    wait_attached(service)
    service.stop()


def wait_handled(service: Service) -> None:
    """Until the master sleeps again, after a signal."""
    status = Path(f"/proc/{service.process.pid}/status")
    until(lambda: "SigPnd:\t0000000000000000" in status.read_text() and "State:\tS" in status.read_text())


def test_shutdown_right_after_the_death(serve: Serve) -> None:
    """The new core hears of it before anything else."""
    service = wait_workers(serve(PIPELINE), 4)
    kill_core(service)
    service.wait_output(DEATH)
    service.stop()
