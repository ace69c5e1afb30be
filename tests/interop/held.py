"""A service whose workers wait, at their start or in a request, until a test lets them go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.service import Serve, Service

PATIENT = ("--timeout", "60000")

HELD = """
    import os, signal, sys, time
    from mosec_cy import Server, Worker, get_logger

    class Held(Worker):
        def __init__(self):
            gate = os.path.join(sys.argv[1], "start")
            if os.path.exists(gate):
                get_logger().info(f"{os.getpid()} waits at the start")
            while os.path.exists(gate):
                time.sleep(0.01)

        def forward(self, data):
            if data != "wait":
                return [os.getpid(), "at once"]
            get_logger().info(f"{os.getpid()} waits at the request")
            answer = os.path.join(sys.argv[1], "answer")
            while not os.path.exists(answer):
                time.sleep(0.01)
            with open(answer) as file:
                return [os.getpid(), file.read()]

    if __name__ == "__main__":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        server = Server()
        server.append_worker(Held, num=int(sys.argv[2]))
        server.run()
"""


class Gates:
    """Where the workers of HELD wait."""

    def __init__(self, directory: Path) -> None:
        """The directory is theirs."""
        self.directory = directory

    def close_start(self) -> None:
        """Processes that start from now on wait."""
        (self.directory / "start").touch()

    def open_start(self) -> None:
        (self.directory / "start").unlink()

    def open_request(self, text: str) -> None:
        """Requests that wait are answered with the text."""
        written = self.directory / "written"
        written.write_text(text)
        written.rename(self.directory / "answer")


def start_held(serve: Serve, gates: Gates, num: int = 1, *arguments: str) -> Service:
    service = serve(HELD, str(gates.directory), str(num), *(arguments or PATIENT)).wait_ready()
    service.wait_outputs("> ready", num)
    return service


def waiting_at(service: Service, gate: str) -> int:
    """The pid of the first worker that waits there."""
    return int(service.wait_output(rf"(\d+) waits at the {gate}")[1])


def kill(service: Service, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    service.wait_output(r"ended by itself with SIGKILL")


def ask(service: Service, what: object = 1) -> tuple[int, str]:
    """The worker's pid and what it said."""
    with service.client() as client:
        pid, text = client.post("/inference", json=what).json()
        return pid, text
