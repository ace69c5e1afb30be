"""One program under Mosec and under mosec_cy: both services, and what of their answers is compared."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import socket
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service import Service
from tests.until import PATIENCE

PEER = "0.9.8"
TEXT = "text/plain; charset=utf-8"
# What a worker may raise, by name.
ERRORS = (
    "ClientError",
    "DecodingError",
    "EncodingError",
    "ServerError",
    "ValidationError",
    "MosecError",
    "MosecTimeoutError",
    "ValueError",
)


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str | None
    body: Any

    @classmethod
    def of(cls, response: httpx.Response) -> Answer:
        content_type = response.headers.get("content-type")
        body: Any = response.content
        with contextlib.suppress(ValueError):
            if content_type == "application/json":
                body = json.loads(body)
        return cls(response.status_code, content_type, body)

    def with_type(self) -> Answer:
        """As ours has to be: Mosec says no content type with its texts."""
        return Answer(self.status, self.content_type or TEXT, self.body)


class Mosec(Service):
    """A program under Mosec. It cannot choose a free port by itself, and keeps its sockets in a directory."""

    def wait_ready(self, patience: float = PATIENCE) -> Mosec:
        line = self.wait_output("http service is running", patience).string
        found = re.search(r"127\.0\.0\.1:\d+", line)
        assert found, line
        self.address = found.group()
        return self


def mosec(program: str, *arguments: str, env: Mapping[str, str] | None = None, directory: Path) -> Mosec:
    """Start the program under Mosec; skips the test where that is not installed."""
    pytest.importorskip("mosec", reason="Mosec is not installed")
    if importlib.metadata.version("mosec") != PEER:
        pytest.fail(f"these tests know Mosec {PEER}, not {importlib.metadata.version('mosec')}")
    script = write(program, "mosec", directory)
    place = () if "--port" in arguments else ("--address", "127.0.0.1", "--port", str(free_port()))
    return Mosec(script, *arguments, *place, "--path", str(directory / "ipc"), env=env, directory=directory)


def mosec_cy(program: str, *arguments: str, env: Mapping[str, str] | None = None, directory: Path) -> Service:
    """Start the program under mosec_cy."""
    return Service(write(program, "mosec_cy", directory), *arguments, env=env, directory=directory)


def write(program: str, package: str, directory: Path) -> Path:
    script = directory / "service.py"
    script.write_text(textwrap.dedent(program).replace("PACKAGE", package))
    return script


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Pair:
    """The program under Mosec (`theirs`) and under mosec_cy (`ours`), and a client of each."""

    their_service: Service
    our_service: Service
    theirs: httpx.Client
    ours: httpx.Client

    def ask(self, method: str, path: str, **content: Any) -> tuple[Answer, Answer]:
        """Both answers to one request: theirs, ours."""
        theirs = Answer.of(self.theirs.request(method, path, **content))
        return theirs, Answer.of(self.ours.request(method, path, **content))


@contextlib.contextmanager
def running(
    program: str, directories: pytest.TempPathFactory, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    """The program under both, with `PACKAGE` in its text replaced, until the block ends."""
    with contextlib.ExitStack() as stack:
        their = stack.enter_context(mosec(program, *arguments, env=env, directory=directories.mktemp("mosec")))
        our = stack.enter_context(mosec_cy(program, *arguments, env=env, directory=directories.mktemp("mosec_cy")))
        clients = [stack.enter_context(service.wait_ready().client()) for service in (their, our)]
        yield Pair(their, our, *clients)
