"""A service as process 1 of a PID namespace, as in a container. It reaps children without owner, and ends in order."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import broken_start, slow_start
from tests.service import Service
from tests.tools import environment, require
from tests.until import until

LEAVES_CHILDREN = """
    import multiprocessing, os, subprocess, sys
    from mosec_cy import Server, Worker

    class Careless(Worker):
        def forward(self, count):
            for _ in range(count):
                between = os.fork()
                if between == 0:
                    if os.fork() == 0:
                        open(sys.argv[1]).read()  # a FIFO: until its writer closes it
                    os._exit(0)
                os.waitpid(between, 0)
            return os.getppid()

    if __name__ == "__main__":
        program = subprocess.Popen(["sh", "-c", "exit 7"])
        copy = multiprocessing.get_context("fork").Process(target=os._exit, args=(9,))
        copy.start()
        server = Server()
        server.append_worker(Careless)
        server.append_worker(Careless, route="/forked", start_method="fork")
        server.run()
        copy.join()
        print("statuses", program.wait(), copy.exitcode)
"""

Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program as process 1 of a namespace of its own; `discard`s it in the end."""
    namespace = [require("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        namespace.append("--map-root-user")
    tried = subprocess.run([*namespace, "true"], env=environment(), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"needs the right to make a PID namespace: {tried.stderr.strip()}")
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join([*namespace, sys.executable])} "$@"\n')
    launcher.chmod(0o755)
    services = []

    def run(source: str, *arguments: str) -> Service:
        script = tmp_path / "service.py"
        script.write_text(textwrap.dedent(source))
        service = Service(script, *arguments, directory=tmp_path, python=str(launcher))
        services.append(service)
        return service

    yield run
    for service in services:
        service.discard()
        service.assert_nothing_left()


def master_of(service: Service) -> int:
    """The pid that the master has outside."""
    return service.wait_process("mosec_cy: master")


def children(pid: int) -> set[int]:
    """All that are in the process table: zombies too."""
    return {int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()}


def test_children_without_an_owner_are_reaped_and_others_left_to_their_owners(start: Start, gate: Path) -> None:
    service = start(LEAVES_CHILDREN, str(gate)).wait_ready()
    service.wait_output("<Careless_2.1> ready")
    master = master_of(service)
    before = children(master)  # core, guard, two workers, and two that have ended and whose owners have not asked
    assert len(before) == 6
    with service.client() as client:
        assert client.post("/inference", json=3).json() == 1
        assert client.post("/forked", json=3).json() == 1
    ownerless = children(master) - before
    assert len(ownerless) == 6
    gate.write_text("")
    until(lambda: not ownerless & children(master))
    assert children(master) == before
    os.kill(master, signal.SIGTERM)
    assert service.wait_end() == 0
    assert "statuses 7 9" in service.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_also_before_anything_listens(start: Start, gate: Path, number: signal.Signals) -> None:
    service = start(slow_start(), str(gate))
    service.wait_output("loading")
    os.kill(master_of(service), number)
    assert service.wait_end() == 0
    assert f"{number.name}: shutting down" in service.messages


def test_the_status_is_seen_outside(start: Start) -> None:
    service = start(broken_start())
    assert service.wait_end() == 1


def test_its_sudden_death_leaves_nothing(start: Start, gate: Path) -> None:
    service = start(LEAVES_CHILDREN, str(gate)).wait_ready()
    with service.client() as client:
        assert client.post("/inference", json=2).json() == 1
    os.kill(master_of(service), signal.SIGKILL)
    assert service.wait_end() != 0
    service.assert_nothing_left()
