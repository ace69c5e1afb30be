"""Examples run as their users run them: server and client, each a program."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.service import ROOT, Service
from tests.until import PATIENCE

EXAMPLES = ROOT / "examples"


@contextlib.contextmanager
def running(
    name: str, directory: Path, env: Mapping[str, str] | None = None, patience: float = PATIENCE
) -> Iterator[Service]:
    """The server of an example, ready within `patience` s; shut down in order at the end, with nothing left behind."""
    with Service(EXAMPLES / name / "server.py", directory=directory, env=env) as service:
        yield service.wait_ready(patience)


def client(name: str, service: Service, *arguments: str, path: str = "") -> list[str]:
    """The lines that the example's client prints; `path` follows the service's address in its `--url`."""
    program = EXAMPLES / name / "client.py"
    command = [sys.executable, str(program), "--url", f"http://{service.address}{path}", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=60).stdout.splitlines()
