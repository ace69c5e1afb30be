"""Options as a user gives them (command line, environment, the program's own), and what each does to a service."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from mosec_cy._base.limits import LONGEST_MS
from mosec_cy._config.options import Options
from tests.http_client import Client, request
from tests.programs import ECHO, GATED, LARGE, echo
from tests.service import Serve, Service
from tests.until import until


def inside(service: Service) -> int:
    """Requests whose clients wait, as /metrics says."""
    with service.client() as client:
        (count,) = re.findall(r"^mosec_service_remaining_task (\d+)", client.get("/metrics").text, re.MULTILINE)
    return int(count)


WAYS = {
    "command line": lambda option, value: (ECHO, [f"--{option.replace('_', '-')}", value], {}),
    "environment": lambda option, value: (ECHO, [], {f"MOSEC_{option.upper()}": value}),
    "program": lambda option, value: (echo(server=f"{option}={value}"), [], {}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_max_request_size(serve: Serve, way: Callable[[str, str], tuple[str, list[str], dict[str, str]]]) -> None:
    program, arguments, environment = way("max_request_size", "10")
    service = serve(program, *arguments, env=environment).wait_ready()
    with service.client() as client:
        assert client.post("/inference", content=b"[1,2,3,45]").json() == [1, 2, 3, 45]
        answer = client.post("/inference", content=b"[1,2,3,456]")
    assert (answer.status_code, answer.text) == (413, "request body is too large")


def test_capacity(serve: Serve, gate: Path) -> None:
    service = serve(GATED, str(gate), "--timeout", "30000", env={"MOSEC_CAPACITY": "1"}).wait_ready()
    with Client(service) as runs, Client(service) as waits, service.client() as client:
        runs.send_post(b'"wait"')
        service.wait_output("forward of wait")
        waits.send_post(b'"next"')
        until(lambda: inside(service) == 2)
        answer = client.post("/inference", json="too much")
        assert (answer.status_code, answer.text) == (429, "too many request: task queue is full")
        gate.write_text("")
        assert [each.answer().body for each in (runs, waits)] == [b'"wait"', b'"next"']


def test_timeout(serve: Serve, gate: Path) -> None:
    service = serve(GATED, str(gate), env={"MOSEC_TIMEOUT": "100"}).wait_ready()
    with service.client() as client:
        assert client.post("/inference", json="wait").status_code == 408


def test_wait_is_deprecated_and_works(serve: Serve) -> None:
    service = serve(GATED, "-", "--wait", "30000", "--timeout", "60000").wait_ready()
    assert "--wait is deprecated: pass max_wait_time to append_worker" in service.messages
    with Client(service) as first, Client(service) as second:
        first.send_post(b"1", "/together")
        until(lambda: inside(service) == 1)  # it has come by itself, and waits for another
        second.send_post(b"2", "/together")
        assert [each.answer().body for each in (first, second)] == [b"2", b"2"]


def test_path_is_ignored(serve: Serve, tmp_path: Path) -> None:
    service = serve(ECHO, "--path", str(tmp_path / "nothing"), env={"MOSEC_PATH": "/nowhere"}).wait_ready()
    with service.client() as client:
        assert client.post("/inference", json=1).json() == 1
    assert not (tmp_path / "nothing").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_address_and_port_from_the_environment(serve: Serve, address: str) -> None:
    port = free_port()
    program = ECHO.replace("server = Server()", "import sys; sys.argv[1:] = []; server = Server()")
    service = serve(program, env={"MOSEC_ADDRESS": address, "MOSEC_PORT": str(port)}).wait_ready()
    assert service.port == port
    assert httpx.post(f"http://127.0.0.1:{port}/inference", json=[7]).json() == [7]


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 on this machine")
@pytest.mark.parametrize("address", ["::1", "::"])
def test_ipv6(serve: Serve, address: str) -> None:
    service = serve(ECHO, "--address", address, "--port", "0").wait_ready()
    assert service.address == f"[{address}]:{service.port}"
    hosts = ["[::1]", "127.0.0.1"] if address == "::" else ["[::1]"]
    for host in hosts:
        assert httpx.post(f"http://{host}:{service.port}/inference", json=[host]).json() == [host]


def test_unix_socket_from_the_environment(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    program = ECHO.replace("server = Server()", "import sys; sys.argv[1:] = []; server = Server()")
    service = serve(program, env={"MOSEC_ADDRESS": f"unix:{path}"}).wait_ready()
    assert service.address == f"unix:{path}"
    with service.client() as client:
        assert client.post("/inference", json=[8]).json() == [8]


def test_max_connections(serve: Serve) -> None:
    service = serve(ECHO, env={"MOSEC_MAX_CONNECTIONS": "1"}).wait_ready()
    with Client(service) as first, Client(service) as second:
        second.send_post(b"2")
        for _ in range(10):
            assert first.post(b"1").body == b"1"
        assert not second.readable()
        first.leave()
        assert second.answer().body == b"2"


@pytest.mark.parametrize(
    ("variable", "sent", "status"),
    [
        ("MOSEC_HEADER_TIMEOUT", b"POST /inference HTT", b"408"),
        ("MOSEC_BODY_TIMEOUT", request(b"[1, 2, 3]")[:-1], b"408"),
        ("MOSEC_IDLE_TIMEOUT", request(b"[1]"), b"200"),
    ],
)
def test_time_for_a_client(serve: Serve, variable: str, sent: bytes, status: bytes) -> None:
    service = serve(ECHO, env={variable: "100"}).wait_ready()
    with service.connect() as client:
        client.sendall(sent)
        said = b"".join(iter(lambda: client.recv(65536), b""))
    assert said[9:12] == status


def test_write_timeout(serve: Serve) -> None:
    service = serve(LARGE, env={"MOSEC_WRITE_TIMEOUT": "100"}).wait_ready()
    core = service.wait_process("mosec_cy: core")
    before = len(service.descriptors(core))
    size = 64 << 20
    with service.connect() as client:
        client.sendall(request(str(size).encode()))
        until(lambda: len(service.descriptors(core)) > before)
        until(lambda: len(service.descriptors(core)) == before)
        received = 0
        try:
            while part := client.recv(1 << 20):
                received += len(part)
        except ConnectionResetError:
            pass
    assert received < size


def test_budget(serve: Serve) -> None:
    service = serve(ECHO, env={"MOSEC_BUDGET": str(8 << 20)}).wait_ready()
    with service.client() as client:
        answer = client.post("/inference", content=b"[" + b" " * (6 << 20) + b"]")
    assert answer.status_code == 503
    assert "--budget" in answer.text


def test_the_longest_times(serve: Serve) -> None:
    """Nothing is over before it has begun."""
    times = [field.name for field in dataclasses.fields(Options) if field.metadata["unit"] == "ms"]
    options = [f"--{name.replace('_', '-')}={LONGEST_MS}" for name in times if name != "wait"]
    assert len(options) > 5
    service = serve(echo(worker=f"timeout={LONGEST_MS // 1000}"), *options, f"--capacity={1 << 24}").wait_ready()
    with service.client() as client:
        for _ in range(2):
            assert client.post("/inference", json=1).json() == 1
        assert client.get("/health/live").status_code == 200
