"""Processes that a worker has started end with it, however it ends, and with the service, however that ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import ECHO_AND_DAEMON
from tests.service import Serve, Service
from tests.until import PATIENCE, until

STARTS = """
    import multiprocessing, os, signal, subprocess, sys, time
    from mosec_cy import Server, Worker

    STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"

    def program(*words, **options):
        return subprocess.Popen(words, **options).pid

    def copy():
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
        process.start()
        return process.pid

    def grandchild(**options):
        shell = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!"], stdout=subprocess.PIPE, text=True, **options)
        pid = int(shell.stdout.readline())
        shell.wait()
        return pid

    def stubborn():
        program = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
        program.stdout.readline()
        return program.pid

    class Parent(Worker):
        def __init__(self):
            self.helpers = [
                program("sleep", "1000"),
                program("sleep", "1000", start_new_session=True),  # leaves the group
                program("sleep", "1000", env={}),  # loses the mark
                grandchild(),
                grandchild(start_new_session=True),
                copy(),
                stubborn(),
            ]

        def forward(self, how):
            if how == "exit":
                os._exit(3)
            if how == "hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                while True:
                    time.sleep(1000)
            return {"worker": os.getpid(), "helpers": self.helpers}

    class Forked(Parent):
        pass

    if __name__ == "__main__":
        server = Server(kill_grace=500, timeout=2000)
        server.append_worker(Parent)
        server.append_worker(Forked, route="/forked", start_method="fork")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        mine = subprocess.Popen(["sleep", "1234"], **quiet)  # the program's own: not the service's to end
        try:
            server.run()
            assert mine.poll() is None
        finally:
            mine.kill()
"""
ROUTES = ("/inference", "/forked")


@contextlib.contextmanager
def watched(pids: list[int]) -> Iterator[dict[int, int]]:
    """Their pidfds; kills what still runs after a failure."""
    pidfds = {pid: os.pidfd_open(pid) for pid in pids}
    try:
        yield pidfds
    except BaseException:
        for pidfd in pidfds.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        raise
    finally:
        for pidfd in pidfds.values():
            os.close(pidfd)


def wait_ends(pidfds: dict[int, int]) -> None:
    for pid, pidfd in pidfds.items():
        assert select.select([pidfd], [], [], PATIENCE)[0], f"{pid} still runs"


def ask(service: Service, route: str) -> dict[str, list[int]]:
    with service.client() as client:
        answer = client.post(route, json="who")
        assert answer.status_code == 200, answer.text
        found: dict[str, list[int]] = answer.json()
        return found


def order(service: Service, route: str, how: str) -> None:
    with service.client() as client:
        assert client.post(route, json=how).status_code >= 400


def wait_guard(service: Service) -> int:
    """Its pid. It is in a session of its own."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")

    def guards() -> Iterator[int]:
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"mosec_cy: guard"):
                    yield int(child)

    return until(lambda: next(guards(), 0), message="there is no guard")


@pytest.fixture(scope="module")
def parents(serve_module: Serve) -> Service:
    service = serve_module(STARTS).wait_ready()
    return service


def kill(service: Service, route: str) -> None:
    os.kill(int(ask(service, route)["worker"]), signal.SIGKILL)  # type: ignore[call-overload]


WAYS: dict[str, Callable[[Service, str], None]] = {
    "killed": kill,
    "ends by itself": lambda service, route: order(service, route, "exit"),
    "killed by core": lambda service, route: order(service, route, "hang"),
    "replaced": lambda service, route: service.signal(signal.SIGHUP),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("way", WAYS)
def test_helpers_end_with_their_worker(parents: Service, way: str, route: str) -> None:
    (other,) = set(ROUTES) - {route}
    with watched(ask(parents, route)["helpers"]) as helpers, watched(ask(parents, other)["helpers"]) as others:
        WAYS[way](parents, route)
        wait_ends(helpers)
        if way != "replaced":
            assert not select.select(list(others.values()), [], [], 0)[0]
    ask(parents, route)  # there is another one


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGKILL]])
def test_helpers_end_with_the_service(serve: Serve, numbers: list[signal.Signals]) -> None:
    service = serve(STARTS).wait_ready()
    pids = [pid for route in ROUTES for pid in ask(service, route)["helpers"]]
    with watched(pids) as helpers:
        for number in numbers:
            service.signal(number)
        if signal.SIGKILL in numbers:
            wait_ends(helpers)
            os.kill(service.wait_process("sleep 1234"), signal.SIGKILL)
        service.wait_end()
        assert set(select.select(list(helpers.values()), [], [], 0)[0]) == set(helpers.values())


def test_a_killed_guard_is_replaced(serve: Serve) -> None:
    service = serve(STARTS).wait_ready()
    first = wait_guard(service)
    os.kill(first, signal.SIGKILL)
    service.wait_output("the guard ended with SIGKILL: another one is started")
    assert wait_guard(service) != first
    with watched([pid for route in ROUTES for pid in ask(service, route)["helpers"]]) as helpers:
        service.signal(signal.SIGKILL)
        wait_ends(helpers)
    os.kill(service.wait_process("sleep 1234"), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_daemon_has_started_ends_with_the_service(serve: Serve, number: signal.Signals) -> None:
    service = serve(ECHO_AND_DAEMON, "sh -c 'sleep 1000; :'").wait_ready()
    with watched(service.pids("sleep 1000")) as helpers:
        assert helpers
        service.signal(number)
        wait_ends(helpers)
        service.wait_end()


DRY = """
    import os, subprocess, sys
    from mosec_cy import Server, Worker

    class Parent(Worker):
        example = 1

        def __init__(self):
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            helper = subprocess.Popen(["sleep", "1000"])
            print(f"helper {helper.pid}", flush=True)

        def forward(self, data):
            open(sys.argv[1]).read()  # a FIFO: until somebody writes
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Parent)
        server.run()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_helpers_end_with_a_dry_run(serve: Serve, gate: Path, killed: bool) -> None:
    service = serve(DRY, str(gate), "--dry-run")
    with watched([int(service.wait_output(r"^helper (\d+)")[1])]) as helpers:
        if killed:
            service.signal(signal.SIGKILL)
        else:
            gate.write_text("")
        wait_ends(helpers)
        assert service.wait_end() == (-signal.SIGKILL if killed else 0)
