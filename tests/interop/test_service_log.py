"""The log of a service: the same level and format in the program and in its workers."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.service import Serve, Service
from tests.until import until

TALKING = """
    from mosec_cy import Server, Worker, get_logger

    def say(who):
        for level in ("debug", "info", "warning", "error"):
            getattr(get_logger(), level)("%s says %s", who, level)

    class Talking(Worker):
        def __init__(self):
            say("worker")

        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        say("main")
        server.append_worker(Talking, start_method=METHOD)
        server.run()
"""
LEVELS = ["debug", "info", "warning", "error"]


def shown(service: Service, who: str) -> list[str]:
    return re.findall(rf"{who} says (\w+)", service.output)


@pytest.fixture
def quiet(serve: Serve, tmp_path: Path) -> Serve:
    """Starts a service that may say nothing when it listens, and waits until it does."""

    def start(program: str, *arguments: str, env: dict[str, str] | None = None) -> Service:
        path = tmp_path / "socket"
        service = serve(program, "--address", f"unix:{path}", *arguments, env=env)

        def listens() -> bool:
            assert service.process.poll() is None
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(str(path)) == 0

        until(listens)
        service.stop()  # so that all it said is read
        return service

    return start


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_level_in_main_and_worker(quiet: Serve, level: str, start_method: str) -> None:
    service = quiet(TALKING.replace("METHOD", repr(start_method)), "--log-level", level)
    expected = LEVELS[LEVELS.index(level) :]
    assert shown(service, "main") == shown(service, "worker") == expected
    if level != "debug":
        said = [record for record in service.records if " says " in record["fields"]["message"]]
        assert [record["level"] for record in said] == [name.upper() for name in expected] * 2
        assert {record["target"] for record in said} == {"user::service.py:say"}
        assert "\x1b[" not in service.output


def test_coloured_text(quiet: Serve) -> None:
    service = quiet(TALKING.replace("METHOD", "'spawn'"), "--log-level", "debug")
    assert not service.records
    for level, colour in (("debug", 34), ("info", 32), ("warning", 33), ("error", 31)):
        for who in ("main", "worker"):
            (line,) = (line for line in service.lines if f"{who} says {level}" in line)
            head = rf"\S+Z \x1b\[{colour}m *{level.upper()}\x1b\[0m user::service\.py:\d+ \[\d+\]"
            assert re.fullmatch(rf"{head}: {who} says {level}", line)


def test_log_level_of_the_environment(quiet: Serve) -> None:
    service = quiet(TALKING.replace("METHOD", "'spawn'"), env={"MOSEC_LOG_LEVEL": "error"})
    assert shown(service, "main") == shown(service, "worker") == ["error"]


@pytest.mark.parametrize(("arguments", "env"), [(["--debug"], {}), ([], {"MOSEC_DEBUG": "1"})])
def test_debug_is_deprecated_and_works(quiet: Serve, arguments: list[str], env: dict[str, str]) -> None:
    service = quiet(TALKING.replace("METHOD", "'spawn'"), *arguments, env=env)
    assert "--debug is deprecated: use --log-level debug" in service.output
    assert shown(service, "worker") == LEVELS
    assert not any(record for record in service.records if " says " in record["fields"]["message"])
