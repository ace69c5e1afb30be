"""The log of whole services: levels, terminals, closed descriptors, and whatever their programs do to it."""

from __future__ import annotations

import itertools
import os
import pty
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest

from tests.service import ROOT, Serve, Service
from tests.until import PATIENCE, until

FAILING = """
    import io
    import logging
    import logging.config
    import sys

    from mosec_cy import Server, Worker

    def interfere():
        logging.config.dictConfig({"version": 1})
        logging.disable(logging.CRITICAL)
        logging.root.handlers.clear()
        sys.stderr = sys.stdout = io.StringIO()

    if WHERE == "main":
        interfere()

    class Model(Worker):
        def __init__(self):
            if WHERE == "init":
                interfere()
            raise RuntimeError("no such weights file")

        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Model, start_method=METHOD)
        server.run()
"""

LOGGING = """
    import logging
    import sys

    from mosec_cy import Server, Worker, get_logger

    logging.basicConfig(level=0)
    logging.root.addHandler(logging.FileHandler(sys.argv[1]))

    class ToLogger:
        def write(self, text):
            if text.strip():
                get_logger().warning(text.rstrip())

        def flush(self):
            pass

    class Model(Worker):
        def __init__(self):
            sys.stderr = sys.stdout = ToLogger()

        def forward(self, data):
            get_logger().warning("hello")
            print("printed", file=sys.stderr)
            if data == "end":
                sys.exit(3)
            raise ValueError("forward fails")

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Model, start_method=METHOD)
        server.run()
"""


@pytest.mark.parametrize("where", ["main", "init"])
@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_why_a_worker_does_not_start(serve: Serve, where: str, start_method: str) -> None:
    service = serve(FAILING.replace("WHERE", repr(where)).replace("METHOD", repr(start_method)))
    assert service.wait_end() == 1
    assert "RuntimeError: no such weights file" in service.output
    assert sum("never got ready" in message for message in service.messages) == 1


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_stderr_that_logs_and_handlers_of_the_root_logger(serve: Serve, start_method: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    place = ["--address", "127.0.0.1", "--port", "0"]
    service = serve(LOGGING.replace("METHOD", repr(start_method)), str(path), *place).wait_ready()
    with service.client() as client:
        assert [client.post("/inference", json=data).status_code for data in (1, "end")] == [500, 500]
    service.wait_output("ended by itself with status 1")
    service.stop()
    in_file = path.read_text()
    for text, count in {
        "hello": 2,
        "printed": 2,
        "<Model_1|1> inference internal error": 1,
        "<Model_1|1> ends by an exception": 1,
        "ended by itself with status 1": 1,
        "listening on": 1,
    }.items():
        assert sum(text in line for line in service.lines) == count, text
        assert sum(text in line for line in in_file.splitlines()) == count, text
    assert "SystemExit: 3" in in_file


# ---- descriptors that are closed -------------------------------------------------------------------------

CLOSED = [("spawn", closed) for count in (1, 2, 3) for closed in itertools.combinations((0, 1, 2), count)]
CLOSED += [("fork", closed) for closed in ((1,), (2,), (0, 1, 2))]

STANDARD_FILES = """
    import os, sys

    from mosec_cy import Server, Worker, get_logger

    class Tells(Worker):
        example = 1

        def forward(self, data):
            get_logger().info("in forward")
            print("printed", flush=True)
            print("printed", file=sys.stderr)
            return [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Tells, start_method=METHOD)
        server.run()
"""


def without(descriptors: tuple[int, ...], program: Path, *arguments: str) -> subprocess.Popen[bytes]:
    closing = " ".join(f"{number}>&-" for number in descriptors)
    return subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, str(program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_until_it_listens(service: subprocess.Popen[bytes], path: Path) -> None:
    def listens() -> bool:
        assert service.poll() is None
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(path)) == 0

    until(listens)


@pytest.mark.parametrize(("start_method", "closed"), CLOSED, ids=str)
def test_closed_descriptors(tmp_path: Path, start_method: str, closed: tuple[int, ...]) -> None:
    program, path = tmp_path / "service.py", tmp_path / "socket"
    program.write_text(textwrap.dedent(STANDARD_FILES.replace("METHOD", repr(start_method))))
    service = without(closed, program, "--address", f"unix:{path}")
    try:
        wait_until_it_listens(service, path)
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://service", timeout=PATIENCE) as client:
            assert client.post("/inference", json=1).json() == [os.devnull] * 3
            assert client.get("/metrics").status_code == 200
        service.terminate()
        assert service.wait(PATIENCE) == 0
    finally:
        service.kill()
        service.wait()


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_dry_run_with_closed_descriptors(tmp_path: Path, start_method: str) -> None:
    program = tmp_path / "service.py"
    program.write_text(textwrap.dedent(STANDARD_FILES.replace("METHOD", repr(start_method))))
    assert without((0, 1, 2), program, "--dry-run").wait(PATIENCE) == 0


# ---- form ------------------------------------------------------------------------------------------------


def on_a_terminal(program: Path, *arguments: str, **variables: str) -> str:
    """What a dry run shows on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, str(program), "--dry-run", *arguments]
    service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 1 << 16):
            shown += data
    except OSError:  # EIO: the last process has closed it
        pass
    os.close(ours)
    assert service.wait(PATIENCE) == 0
    return shown.decode().replace("\r\n", "\n")


TIME = r"\d\d:\d\d:\d\d"
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def test_text_on_a_terminal(tmp_path: Path) -> None:
    program = tmp_path / "service.py"
    program.write_text(textwrap.dedent(STANDARD_FILES.replace("METHOD", "'spawn'")))
    shown = on_a_terminal(program)
    plain = re.sub(r"\x1b\[[\d;]*[mK]", "", shown)
    assert COLOUR.search(shown)
    assert re.search(rf"^{TIME} INFO  Tells_1\|1  in forward$", plain, re.MULTILINE)
    assert re.search(rf"^{TIME} INFO  server     dry run successful$", plain, re.MULTILINE)
    uncoloured = on_a_terminal(program, NO_COLOR="1")
    assert not COLOUR.search(uncoloured)
    assert re.search(rf"^{TIME} INFO  server     dry run successful", uncoloured, re.MULTILINE)
    assert '{"timestamp"' in on_a_terminal(program, "--log-format", "json")


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_text_elsewhere(serve: Serve, start_method: str) -> None:
    service = serve(STANDARD_FILES.replace("METHOD", repr(start_method)), "--dry-run", env={"MOSEC_LOG_FORMAT": "text"})
    assert service.wait_end() == 0
    assert re.search(rf"^{TIME} INFO  Tells_1\|1  in forward$", service.output, re.MULTILINE)
    assert re.search(rf"^{TIME} INFO  server     dry run successful$", service.output, re.MULTILINE)
    assert not service.records
    assert "\x1b[" not in service.output


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_what_is_printed_unbuffered_appears_at_once(serve: Serve, start_method: str) -> None:
    source = STANDARD_FILES.replace("METHOD", repr(start_method)).replace(", flush=True)", ")")
    service = serve(source, env={"PYTHONUNBUFFERED": "1"}).wait_ready()
    service.wait_outputs("^printed", 2)


# ---- levels and formats --------------------------------------------------------------------------


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
