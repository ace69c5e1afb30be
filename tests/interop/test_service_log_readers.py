"""A log whose reader stalls or leaves stops nothing: requests, restarts, metrics, shutdown."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Serve, Service
from tests.until import PATIENCE, until

TALKATIVE = """
    import os
    import sys

    from mosec_cy import Server, Worker, get_logger

    class Talkative(Worker):
        def forward(self, data):
            get_logger().info("long %s end", "x" * data)
            print("printed", "y" * 1000, file=sys.stderr)
            print("printed", "z" * 1000, flush=FLUSH)
            return os.getpid()

    if __name__ == "__main__":
        log = os.open(sys.argv[1], os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        server = Server(timeout=20000, kill_grace=100000)
        server.append_worker(Talkative, num=2, start_method=METHOD)
        server.run()
        print("run returned")
"""
LONG = 10_000  # characters: more than a pipe takes at once, if it takes any


class Log:
    """The reading end of a pipe of which a service has the other as its stdout and stderr."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.text = ""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")[:-1]

    @property
    def messages(self) -> list[str]:
        return [json.loads(line)["fields"]["message"] for line in self.lines if line.startswith("{")]

    def wait(self, pattern: str) -> re.Match[str]:
        """Read until the expression is found."""
        while not (found := re.search(pattern, self.text)):
            self.read()
        return found

    def read(self) -> bool:
        """Wait for something and read it; False at the end."""
        readable, _, _ = select.select([self.fd], [], [], PATIENCE)
        assert readable, f"nothing more came in time after:\n{self.text}"
        data = os.read(self.fd, 1 << 16)
        self.text += data.decode()
        return bool(data)

    def read_to_the_end(self) -> None:
        while self.read():
            pass

    def fill(self) -> None:
        """Write lines into the pipe until it takes no more."""
        writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            for size in (4096, 512, 64, 1):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(writer, b" " * (size - 1) + b"\n")
        finally:
            os.close(writer)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "log")
    yield log
    log.close()


def start(serve: Serve, log: Log, method: str, flush: bool = True) -> Service:
    place = ["--address", "127.0.0.1", "--port", "0"]
    whole_lines = {"PYTHONUNBUFFERED": ""}  # else `print` writes its arguments one by one
    service = serve(
        TALKATIVE.replace("METHOD", repr(method)).replace("FLUSH", repr(flush)), str(log.path), *place, env=whole_lines
    )
    service.address = log.wait(r"listening on ([\d.:]+)")[1]
    log.wait(r"\|1> ready")
    log.wait(r"\|2> ready")
    return service


def assert_serves(service: Service) -> None:
    """Also after a worker has been killed."""
    with service.client() as client:
        for size in (10, LONG):
            pids = {client.post("/inference", json=size).raise_for_status().json() for _ in range(4)}
        os.kill(pids.pop(), signal.SIGKILL)
        until(lambda: len(service.pids("Talkative_1")) == 2)
        for _ in range(600):  # several times what may wait
            client.post("/inference", json=10).raise_for_status()
        assert "mosec_service" in client.get("/metrics").raise_for_status().text


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_reader_that_stalls(serve: Serve, log: Log, method: str) -> None:
    service = start(serve, log, method)
    log.fill()
    assert_serves(service)
    log.wait("lines to stdout were lost")
    log.wait("lines to stderr were lost")
    service.signal(signal.SIGTERM)
    log.read_to_the_end()
    assert service.wait_end() == 0
    assert "run returned" in log.lines
    assert sum("SIGTERM: shutting down" in message for message in log.messages) == 1
    long = [message for message in log.messages if message.startswith("long ")]
    assert all(re.fullmatch("long x+ end", message) for message in long)
    printed = [line for line in log.lines if line.startswith("printed")]
    bad = [line for line in printed if not re.fullmatch("printed (y{1000}|z{1000})", line)]
    assert bad == []
    told = [int(re.match(r"\d+", message)[0]) for message in log.messages if "were lost" in message]  # type: ignore[index]
    assert len(printed) + len(long) + sum(told) >= 1800


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_reader_that_still_stalls_at_the_end(serve: Serve, log: Log, method: str) -> None:
    service = start(serve, log, method, flush=False)
    log.fill()
    assert_serves(service)
    service.stop()


def test_reader_that_leaves(serve: Serve, log: Log) -> None:
    service = start(serve, log, "spawn")
    log.close()
    assert_serves(service)
    log.fd = os.open(log.path, os.O_RDONLY | os.O_NONBLOCK)
    with service.client() as client:
        client.post("/inference", json=10).raise_for_status()
    log.wait("lines to stderr were lost")
    service.stop()
