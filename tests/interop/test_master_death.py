"""Master is killed: nothing of the service survives it, whatever the others are doing, and its port is free."""

from __future__ import annotations

import contextlib
import signal
import threading

import httpx
import pytest

from mosec_cy._master.listener import Listener
from tests.interop.core_deaths import BACK, kill_core
from tests.programs import ECHO_AND_DAEMON
from tests.service import Serve, Service

BUSY = """
    import ctypes, os, subprocess, sys
    from mosec_cy import Server, Worker, get_logger

    class Busy(Worker):
        def __init__(self):
            if sys.argv[1] == "loading":
                self.work()

        def work(self):
            get_logger().info("at work")
            ctypes.PyDLL(None).sleep(1000)  # in C, with the GIL

        def forward(self, data):
            if data == "work":
                self.work()
            return data

    if __name__ == "__main__":
        server = Server()
        server.register_daemon("sleep", subprocess.Popen(["sleep", "1000"]))
        server.append_worker(Busy, num=2, start_method=sys.argv[2])
        server.run()
"""


def assert_dies_with_master(service: Service) -> None:
    service.assert_nothing_named()
    assert service.pids("sleep 1000")  # the daemon
    service.signal(signal.SIGKILL)
    assert service.wait_end() == -signal.SIGKILL
    service.assert_nothing_left()
    if service.address:
        Listener("127.0.0.1", service.port).close()  # fails while anybody listens there


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_while_workers_load(serve: Serve, method: str) -> None:
    service = serve(BUSY, "loading", method)
    service.wait_outputs("at work", 2)
    assert_dies_with_master(service)


@pytest.mark.parametrize(("method", "recovered"), [("spawn", False), ("fork", False), ("fork", True)])
def test_while_workers_are_in_forward(serve: Serve, method: str, recovered: bool) -> None:
    service = serve(BUSY, "", method).wait_ready()
    service.wait_outputs(r"\|\d> ready", 2)
    if recovered:
        kill_core(service)
        service.wait_output(BACK)

    def ask() -> None:
        with service.client() as client, contextlib.suppress(httpx.TransportError):
            client.post("/inference", json="work")

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    service.wait_outputs("at work", 2)
    assert_dies_with_master(service)
    for client in clients:
        client.join()


KILLED_AT_ONCE = ECHO_AND_DAEMON.replace(
    "server = Server()",
    """import os, signal
        from mosec_cy._master import supervisor
        supervisor.Engine = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        server = Server()""",
)


def test_before_it_has_started_anything(serve: Serve) -> None:
    """Daemons are there already: the program has started them."""
    service = serve(KILLED_AT_ONCE, "sleep 1000")
    assert service.wait_end() == -signal.SIGKILL
    service.assert_nothing_left()
