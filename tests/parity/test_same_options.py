"""Options, environment and logs of one program under Mosec and under mosec_cy."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.parity.peer import mosec, mosec_cy, running
from tests.service import Service

PROGRAM = """
    import argparse
    import sys

    from PACKAGE import Server, Worker, get_logger

    logger = get_logger()

    class Echo(Worker):
        example = 1

        def forward(self, data):
            logger.debug("quiet")
            logger.info("said %s", "plainly")
            logger.warning("é and \\"quotes\\"")
            return data

    if __name__ == "__main__":
        parser = argparse.ArgumentParser()
        parser.add_argument("--model", default="none")
        known, _ = parser.parse_known_args()
        logger.error("model is %s", known.model)
        server = Server()
        server.append_worker(Echo, route="/echo")
        server.run()
        print("after")
"""

NO_EXAMPLE = PROGRAM.replace("example = 1", "pass")
BAD_EXAMPLE = PROGRAM.replace("return data", "raise ValueError(data)")
STARTS = {"theirs": mosec, "ours": mosec_cy}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=tmp_path) as directory:
        yield Path(directory)


def ended(
    who: str, directory: Path, *arguments: str, program: str = PROGRAM, env: Mapping[str, str] | None = None
) -> tuple[int, Service]:
    """The status that the program ends with by itself, and its service, for the output."""
    directory = Path(tempfile.mkdtemp(dir=directory))
    with STARTS[who](program, *arguments, env=env, directory=directory) as service:
        with contextlib.ExitStack() as stack:
            stack.callback(service.discard)
            return service.wait_end(), service


def test_flags_environment_and_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A flag goes before the environment, an argument that is not the server's to the program; its records agree."""
    arguments = ("--model", "m", "--namespace", "flag")
    env = {"MOSEC_NAMESPACE": "environment", "MOSEC_MAX_REQUEST_SIZE": "10"}
    with running(PROGRAM, tmp_path_factory, *arguments, env=env) as pair:
        assert {one.body for one in pair.ask("POST", "/echo", json=1)} == {1}
        assert {one.status for one in pair.ask("POST", "/echo", content=b"1" * 11)} == {413}
        for client in (pair.theirs, pair.ours):
            assert "flag_remaining_task" in client.get("/metrics").text
        services = (pair.their_service, pair.our_service)
        for service in services:
            service.stop()
            assert service.lines[-1] == "after"
        theirs, ours = ([record for record in service.records if "user::" in record["target"]] for service in services)
    stamps = [record.pop("timestamp") for record in theirs + ours]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ?", stamp) for stamp in stamps)
    assert ours == theirs
    assert ours[0]["fields"] == {"message": "model is m"}
    assert [record["level"] for record in ours] == ["ERROR"] + ["INFO", "WARNING"] * 2


@pytest.mark.parametrize(
    ("arguments", "env"),
    [(["--log-level", "error"], {}), ([], {"MOSEC_LOG_LEVEL": "error"})],
    ids=["flag", "environment"],
)
def test_log_level(directory: Path, arguments: list[str], env: dict[str, str]) -> None:
    for who in STARTS:
        status, service = ended(who, directory, "--dry-run", *arguments, env=env)
        assert status == 0
        assert {record["level"] for record in service.records} == {"ERROR"}


@pytest.mark.parametrize(
    ("program", "theirs", "ours"),
    [(PROGRAM, 0, 0), (BAD_EXAMPLE, 1, 1), (NO_EXAMPLE, 0, 1)],  # differs: what has no example was not tried
    ids=["good", "bad", "none"],
)
def test_dry_run(directory: Path, program: str, theirs: int, ours: int) -> None:
    for who, expected in (("theirs", theirs), ("ours", ours)):
        status, service = ended(who, directory, "--dry-run", program=program)
        assert status == expected, service.output
        assert "listening on" not in service.output and "http service is running" not in service.output
    for who in STARTS:
        status, service = ended(who, directory, program=PROGRAM, env={"MOSEC_DRY_RUN": "1"})
        assert status == 0


@pytest.mark.parametrize(
    "arguments", [("--timeout", "x"), ("--capacity", "1.5"), ("--log-level", "loud")], ids=" ".join
)
def test_wrong_options(directory: Path, arguments: tuple[str, str]) -> None:
    for who in STARTS:
        status, service = ended(who, directory, *arguments)
        assert status == 2
        assert f"{arguments[0]}: " in service.output


def test_wrong_environment_differs(directory: Path) -> None:
    theirs, ours = (ended(who, directory, env={"MOSEC_LOG_LEVEL": "loud"}) for who in STARTS)
    assert (theirs[0], ours[0]) == (1, 2)
    assert "KeyError: 'loud'" in theirs[1].output
    assert "environment variable MOSEC_LOG_LEVEL" in ours[1].output


def test_port_in_use(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for who in STARTS:
            status, service = ended(who, directory, "--address", "127.0.0.1", "--port", port)
            assert status == 1
            assert f"127.0.0.1:{port} is in use" in service.output
