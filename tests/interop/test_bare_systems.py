"""Systems that lack something a service usually has: IPv6, /proc, threads."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import ECHO, echo
from tests.service import Serve, Service
from tests.tools import environment, require

BOTH = """
    import os, subprocess
    from mosec_cy import Server, Worker

    class Parent(Worker):
        def __init__(self):
            self.helper = subprocess.Popen(["sleep", "1000"])

        def forward(self, data):
            return self.helper.pid

    class Forked(Parent):
        pass

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Parent)
        server.append_worker(Forked, route="/forked", start_method="fork")
        server.run()
"""
Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program in namespaces of its own, after a script that changes what is there."""
    services = []

    def run(source: str, preparation: str, namespaces: list[str], *arguments: str) -> Service:
        isolated = [require("unshare"), "--mount", *namespaces]
        tried = subprocess.run([*isolated, "true"], env=environment(), capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"needs the right to make a namespace: {tried.stderr.strip()}")
        launcher = tmp_path / "launcher"
        inner = f'set -e\n{preparation}\nexec {shlex.quote(sys.executable)} "$@"'
        launcher.write_text(f'#!/bin/sh\nexec {shlex.join([*isolated, "sh", "-c", inner])} sh "$@"\n')
        launcher.chmod(0o755)
        script = tmp_path / "service.py"
        script.write_text(source)
        services.append(Service(script, *arguments, directory=tmp_path, python=str(launcher)))
        return services[-1]

    yield run
    for service in services:
        service.discard()
        service.assert_nothing_left()


def test_localhost_without_ipv6(start: Start, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    preparation = f"""
        echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
        mount --bind {shlex.quote(str(hosts))} /etc/hosts
    """
    source = textwrap.dedent(ECHO)
    service = start(source, preparation, ["--net"], "--address", "localhost", "--port", "8000")
    service.wait_output("localhost has several addresses, and is served without one: ::1:8000 is no address")
    assert service.wait_ready().address == "127.0.0.1:8000"
    service.stop()


def test_without_proc(start: Start, tmp_path: Path) -> None:
    """Titles and marks are missing then; helpers are known by their worker's group."""
    path = tmp_path / "socket"
    service = start(textwrap.dedent(BOTH), "mount -t tmpfs none /proc", [], "--address", f"unix:{path}").wait_ready()
    with service.client() as client:
        for route in ("/inference", "/forked"):
            pid = client.post(route, json=1).json()
            assert "sleep 1000" in service.processes()[pid]
    if "LD_PRELOAD" in os.environ:
        service.discard()  # the sanitizers read their options from /proc, and end each process with 1 without them
    else:
        service.stop()


def test_without_proc_the_death_of_the_master(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    service = start(textwrap.dedent(BOTH), "mount -t tmpfs none /proc", [], "--address", f"unix:{path}").wait_ready()
    service.process.kill()
    service.wait_end()
    service.assert_nothing_left()


# A filter of system calls (seccomp(2), classic BPF) by which no thread can be had, as with `ulimit -u`, which root
# ignores: clone3 is "not there", so that glibc takes clone, and that fails where it is asked for a thread.
NO_THREADS = """
import ctypes, errno, platform, struct
CLONE, CLONE3, CLONE_THREAD = {"x86_64": 56, "aarch64": 220}[platform.machine()], 435, 0x10000
def op(code, jt, jf, k): return struct.pack("=HBBI", code, jt, jf, k)
program = ctypes.create_string_buffer(
    op(0x20, 0, 0, 0)                                # the number of the call
    + op(0x15, 0, 1, CLONE3) + op(0x06, 0, 0, 0x50000 | errno.ENOSYS)
    + op(0x15, 0, 3, CLONE)
    + op(0x20, 0, 0, 16)                             # its first argument
    + op(0x45, 0, 1, CLONE_THREAD) + op(0x06, 0, 0, 0x50000 | errno.EAGAIN)
    + op(0x06, 0, 0, 0x7FFF0000)
)
header = ctypes.create_string_buffer(struct.pack("@HP", 8, ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
long = ctypes.c_ulong
assert libc.prctl(38, long(1), long(0), long(0), long(0)) == 0, "no new privileges"
assert libc.prctl(22, long(2), header, long(0), long(0)) == 0, "filter"
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_no_thread_to_be_had(serve: Serve, method: str) -> None:
    source = textwrap.dedent(echo(worker=f"start_method={method!r}"))
    source = source.replace("server = Server()", f"exec({NO_THREADS!r})\n    server = Server()")
    service = serve(source)
    assert service.wait_end() == 1
    failed = [message for message in service.messages if message.startswith("<Echo_1|1> failed to start")]
    assert len(failed) == 3
    assert all("can't start new thread" in message for message in failed)
    assert not [message for message in service.messages if "ready" in message.split() or "listening" in message]
