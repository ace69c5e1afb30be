"""A shutdown of a whole service: at whatever moment it comes, all ends in order and nobody's request just vanishes."""

from __future__ import annotations

import collections
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.http_client import Client
from tests.programs import ECHO, STREAM, WAITS_IN_RESTART, echo, slow_start
from tests.service import Serve, Service
from tests.until import PATIENCE, until

STAGES_OF_START: dict[str, Callable[[dict[int, str]], bool]] = {
    "program": lambda shown: True,
    "core": lambda shown: len(shown) > 1,
    "interpreter of a worker": lambda shown: any("_process.main" in title for title in shown.values()),
    "worker": lambda shown: any("mosec_cy: Echo" in title for title in shown.values()),
}
FAILS_IN_RESTART = WAITS_IN_RESTART.replace("open(sys.argv[1]).read()", 'raise OSError("not again")')


def caught_in(stage: str, service: Service) -> bool:
    """Whether it was seen in that stage of its start; on a busy machine it may be past it before anybody has looked."""
    seen = past = False
    while not (seen or past):
        shown = service.processes()
        seen, past = STAGES_OF_START[stage](shown), STAGES_OF_START["worker"](shown)
        assert service.process.poll() is None
    return seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stage", STAGES_OF_START)
def test_at_any_moment_of_the_start(serve: Serve, stage: str, number: signal.Signals) -> None:
    service = next(service for service in iter(lambda: serve(ECHO), None) if caught_in(stage, service))
    os.killpg(service.process.pid, number)  # SIGINT: as a terminal does for Ctrl-C
    # Before `run` has set up its handlers the program ends as any other does (Python: SIGINT is an exception).
    early = {-number} if stage in ("program", "core") else set()
    if stage == "program" and number == signal.SIGINT:
        early.add(1)  # an interpreter that was interrupted in its own start
    assert service.wait_end() in {0, *early}
    if not early:
        assert "Traceback" not in service.output
    service.assert_nothing_left()


def test_in_the_warm_up(serve: Serve, gate: Path) -> None:
    service = serve(slow_start("warm-up"), str(gate))
    service.wait_output("loading")
    service.stop()


def test_while_a_worker_is_started_again(serve: Serve, gate: Path) -> None:
    service = serve(WAITS_IN_RESTART, str(gate), "--timeout", "60000").wait_ready()
    (worker,) = service.pids("mosec_cy: Echo_1")
    os.kill(worker, signal.SIGKILL)
    with Client(service) as client:
        until(lambda: service.pids("mosec_cy: Echo_1") not in ([], [worker]))
        client.send_post(b"1")
        until(lambda: remaining(service) == 1)
        service.signal(signal.SIGTERM)
        assert client.answer().status == 503  # at once: nobody is coming to serve it
    assert service.wait_end() == 0


def remaining(service: Service) -> int:
    with service.client() as client:
        text = client.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("mosec_service_remaining_task ")]
    return int(float(line.split()[1]))


def test_while_a_worker_waits_to_be_started_again(serve: Serve, tmp_path: Path) -> None:
    service = serve(FAILS_IN_RESTART, str(tmp_path / "gate")).wait_ready()
    (worker,) = service.pids("mosec_cy: Echo_1")
    os.kill(worker, signal.SIGKILL)
    service.wait_outputs("failed to start", 3)  # the next start is more than a second away
    service.stop()


def test_a_stream_is_finished(serve: Serve, gate: Path) -> None:
    service = serve(STREAM, str(gate), "--timeout", "60000").wait_ready()
    with service.client() as client, client.stream("POST", "/inference", json=1) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: first"
        service.signal(signal.SIGTERM)
        service.wait_output("shutting down")
        gate.write_text("1")
        assert [line for line in lines if line] == ["data: next"]
    assert service.wait_end() == 0


def test_a_worker_that_stands_still_does_not_hold_it_up(serve: Serve) -> None:
    service = serve(ECHO, "--timeout", "300", "--kill-grace", "300").wait_ready()
    (worker,) = service.pids("mosec_cy: Echo_1")
    os.kill(worker, signal.SIGSTOP)
    with Client(service) as client:
        client.send_post(b"1")
        service.signal(signal.SIGTERM)
        assert client.answer().status in (408, 503)
    assert service.wait_end() == 0


# ---- under load --------------------------------------------------------------------------------------


class Caller(threading.Thread):
    """Asks again and again over one connection until it is closed; each request must be answered whole."""

    def __init__(self, port: int, statuses: collections.Counter[int], under_way: threading.Barrier) -> None:
        super().__init__()
        self.port = port
        self.statuses = statuses
        self.under_way = under_way
        self.failure: str | None = None

    def run(self) -> None:
        try:
            while self._use_connection():
                pass
        except Exception as error:
            self.failure = repr(error)

    def _use_connection(self) -> bool:
        """False: nobody listens any more."""
        try:
            client = Client(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
        except ConnectionRefusedError:
            return False
        with client:
            for turn in range(1 << 30):
                if client.readable():
                    assert client.ended()  # closed before anything was asked
                    return True
                answer = client.post(b"[%d]" % turn)
                assert client.rest == b""
                assert answer.outcome in ((200, b"[%d]" % turn), (503, b"gracefully shutting down"))
                self.statuses[answer.status] += 1
                if turn == 10:
                    self.under_way.wait()
                if answer.closes:
                    return True
        return True


def test_under_load_each_request_is_answered(serve: Serve) -> None:
    service = serve(echo(worker="num=2, max_batch_size=4")).wait_ready()
    statuses: collections.Counter[int] = collections.Counter()
    under_way = threading.Barrier(17)
    callers = [Caller(service.port, statuses, under_way) for _ in range(16)]
    for caller in callers:
        caller.start()
    under_way.wait(PATIENCE)
    service.signal(signal.SIGTERM)
    for caller in callers:
        caller.join()
    assert [caller.failure for caller in callers if caller.failure] == []
    assert service.wait_end() == 0
    assert statuses[200] >= 16 * 10
