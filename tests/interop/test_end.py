"""The end of a service and of its parts: orders, deaths, and nothing left behind (which `Service` checks each time)."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.accounting import assert_nobody_wakes
from tests.programs import ECHO_AND_DAEMON, GATED, slow_start
from tests.service import Serve, Service

TWO_STAGES = """
    import os
    from mosec_cy import Server, Worker

    class First(Worker):
        def forward(self, data):
            return data

    class Second(Worker):
        def forward(self, data):
            return os.getpid()

    if __name__ == "__main__":
        server = Server()
        server.append_worker(First)
        server.append_worker(Second, start_method="fork")
        server.append_worker(First, route="/other")
        server.run()
        print("run returned")
"""


@contextlib.contextmanager
def request_under_way(service: Service) -> Iterator[list[httpx.Response]]:
    """A request that is in `forward`; its answer is in the list at the end."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with service.client() as client, contextlib.suppress(httpx.TransportError):
            answers.append(client.post("/inference", json="wait"))

    thread = threading.Thread(target=ask)
    thread.start()
    service.wait_output("forward of wait")
    try:
        yield answers
    finally:
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_when_idle(serve: Serve, number: signal.Signals) -> None:
    service = serve(TWO_STAGES).wait_ready()
    service.signal(number)
    assert service.wait_end() == 0
    assert "run returned" in service.lines
    assert f"{number.name}: shutting down" in service.messages
    assert not [record for record in service.records if record["level"] in ("WARNING", "ERROR")]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_shutdown_during_start(serve: Serve, gate: Path, method: str) -> None:
    service = serve(slow_start(num=2, start_method=method), str(gate))
    service.wait_output("loading")
    service.stop()
    assert not [record for record in service.records if record["level"] == "ERROR"]


@pytest.mark.parametrize("whole_group", [False, True])
def test_requests_in_flight_are_finished(serve: Serve, gate: Path, whole_group: bool) -> None:
    service = serve(GATED, str(gate), "--timeout", "60000").wait_ready()
    with request_under_way(service) as answers:
        if whole_group:
            os.killpg(service.process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
        else:
            service.signal(signal.SIGTERM)
        service.wait_output("shutting down")
        gate.write_text("done")
    assert [answer.json() for answer in answers] == ["done"]
    assert service.wait_end() == 0


def test_a_second_signal_ends_it_at_once(serve: Serve, gate: Path) -> None:
    service = serve(GATED, str(gate), "--timeout", "60000").wait_ready()
    with request_under_way(service) as answers:
        service.signal(signal.SIGTERM)
        service.wait_output("shutting down")
        service.signal(signal.SIGTERM)
        assert service.wait_end() == 128 + signal.SIGTERM
    assert answers == []


def test_a_worker_that_does_not_end_is_killed(serve: Serve, gate: Path) -> None:
    service = serve(GATED, str(gate), "--timeout", "300", "--kill-grace", "300").wait_ready()
    with request_under_way(service):
        service.stop()


@pytest.mark.parametrize("phase", ["start", "ready"])
def test_death_of_the_master_leaves_nothing(serve: Serve, gate: Path, phase: str) -> None:
    if phase == "start":
        service = serve(slow_start(), str(gate))
        service.wait_output("loading")
    else:
        service = serve(TWO_STAGES).wait_ready()
        assert len(service.processes()) == 5
    service.signal(signal.SIGKILL)
    assert service.wait_end() == -signal.SIGKILL
    service.assert_nothing_left()
    if service.address:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", service.port)) != 0


@pytest.mark.parametrize("stage", ["First_1", "Second_2"])
def test_a_worker_that_dies_is_replaced(serve: Serve, stage: str) -> None:
    service = serve(TWO_STAGES).wait_ready()
    service.wait_output("<First_3.1> ready")
    (before,) = service.pids(f"mosec_cy: {stage}")
    with service.client() as client:
        assert client.post("/inference", json=1).status_code == 200
        os.kill(before, signal.SIGKILL)
        # It waits in the queue for the new one; the other route does not notice.
        assert client.post("/other", json=1).json() == 1
        assert client.post("/inference", json=1).status_code == 200
    (after,) = service.pids(f"mosec_cy: {stage}")
    assert after != before
    service.wait_output(rf"<{stage}.1> ended by itself with SIGKILL")


def test_a_program_that_reaps_children_itself(serve: Serve) -> None:
    ignoring = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); server.run()"
    service = serve(TWO_STAGES.replace("server.run()", ignoring)).wait_ready()
    (before,) = service.pids("mosec_cy: First_1")
    os.kill(before, signal.SIGKILL)
    with service.client() as client:
        assert client.post("/inference", json=1).status_code == 200
    assert service.pids("mosec_cy: First_1") != [before]


def test_descriptors_of_dead_workers_are_closed(serve: Serve) -> None:
    service = serve(TWO_STAGES).wait_ready()
    service.wait_output("<First_3.1> ready")
    counts = []
    with service.client() as client:
        for _ in range(3):
            core = service.wait_process("mosec_cy: core")
            assert client.post("/inference", json=1).status_code == 200
            counts.append([len(service.descriptors(pid)) for pid in (service.process.pid, core)])
            (pid,) = service.pids("mosec_cy: Second_2")
            os.kill(pid, signal.SIGKILL)
    assert counts[0] == counts[1] == counts[2]


def test_death_of_core_during_a_shutdown_is_a_failure(serve: Serve, gate: Path) -> None:
    service = serve(GATED, str(gate), "--timeout", "60000").wait_ready()
    core = service.wait_process("mosec_cy: core")
    with request_under_way(service):
        service.signal(signal.SIGTERM)
        service.wait_output("shutting down")
        os.kill(core, signal.SIGKILL)
        service.wait_output("core ended with SIGKILL: shutting down")
        gate.write_text("done")  # to nobody
        assert service.wait_end() == 1
    assert not [message for message in service.messages if "is back" in message]


def test_a_daemon_is_terminated_with_the_server(serve: Serve) -> None:
    service = serve(ECHO_AND_DAEMON, "sleep 1000").wait_ready()
    assert service.pids("sleep 1000")
    service.stop()


@pytest.mark.parametrize(("program", "status"), [("true", 0), ("false", 1)])
def test_the_end_of_a_daemon_ends_the_server(serve: Serve, program: str, status: int) -> None:
    service = serve(ECHO_AND_DAEMON, program)
    assert service.wait_end() == status
    service.wait_output(f"daemon helper ended with status {status}: shutting down")


def test_processes_that_a_worker_starts_hear_signals(serve: Serve) -> None:
    source = """
        import multiprocessing, subprocess, time
        from mosec_cy import Server, Worker

        class Parent(Worker):
            def forward(self, data):
                program = subprocess.Popen(["sleep", "1000"])
                program.terminate()
                copy = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
                copy.start()
                copy.terminate()
                copy.join()
                return [program.wait(), copy.exitcode]

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Parent)
            server.run()
    """
    service = serve(source).wait_ready()
    with service.client() as client:
        assert client.post("/inference", json=1).json() == [-signal.SIGTERM, -signal.SIGTERM]


def test_idle_means_that_nobody_wakes(serve: Serve) -> None:
    service = serve(TWO_STAGES).wait_ready()
    service.wait_output("<First_3.1> ready")
    with service.client() as client:
        assert client.post("/inference", json=1).status_code == 200
    assert_nobody_wakes(service)
