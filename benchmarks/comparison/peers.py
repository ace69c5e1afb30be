"""The servers that are compared: their environments, how each is started and stopped."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .processes import command_line, tree

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
TORCH = ROOT / "tests" / "examples" / "heavy" / "constraints.txt"
SERVICES = Path(__file__).parent / "services"
START_SECONDS = 60
STOP_SECONDS = 10


@dataclass(frozen=True)
class Peer:
    name: str
    script: str
    """File in services/."""
    api: str = ""
    """Module that workers.py imports."""
    group: str = ""
    """The dependency group of pyproject.toml that its own environment holds; empty: it runs in ours."""
    extra: str = ""
    """An extra of pyproject.toml that its environment holds too."""
    requirements: str = ""
    """A file of requirements in this folder, in place of a group and of the lock, whose versions it does not admit."""
    services: frozenset[str] | None = None
    """The services it can run; None: all."""
    core: str = ""
    """Words of the command line of its HTTP process."""
    distribution: str = ""
    """Its name on the package index; with the extra it names its environment too."""
    path: str = "/inference"
    variants: dict[str, str] = field(default_factory=dict)
    """Services that it runs in another form than the one named."""

    def supports(self, service: str) -> bool:
        return self.services is None or service in self.services

    def home(self, root: Path) -> Path:
        return root / "-".join(filter(None, (self.distribution, self.extra)))


PEERS = {
    peer.name: peer
    for peer in (
        Peer("mosec_cy", "workers.py", api="mosec_cy", core="mosec_cy: core", distribution="mosec_cy"),
        Peer(
            "mosec",
            "workers.py",
            api="mosec",
            group="bench-mosec",
            core="bin/mosec ",
            distribution="mosec",
            variants={"raw-zero-copy": "raw"},
        ),
        Peer(
            "litserve",
            "litserve_app.py",
            group="bench-litserve",
            services=frozenset({"echo", "batch", "embedding"}),
            distribution="litserve",
        ),
        Peer(
            "fastapi",
            "fastapi_app.py",
            group="bench-fastapi",
            services=frozenset({"echo", "raw", "embedding"}),
            distribution="fastapi",
        ),
    )
}


class ServerFailed(RuntimeError):
    """A server did not start, or ended while it was measured; the message holds the end of its log."""


@dataclass(frozen=True)
class Environment:
    """A Python interpreter and the variables that its servers get."""

    python: str
    variables: dict[str, str]

    def version(self, distribution: str) -> str:
        code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
        done = subprocess.run(
            [self.python, "-c", code], check=False, capture_output=True, text=True, env=self.variables
        )
        return done.stdout.strip() or "not installed"


def installed(peer: Peer, root: Path) -> bool:
    """Whether the peer's environment under `root` is whole and holds what is wanted now."""
    complete = peer.home(root) / "complete"
    return complete.exists() and complete.read_text() == LOCK.read_text()


def environment(peer: Peer, root: Path) -> Environment:
    """The peer's own virtual environment under `root`, made at its first use."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MOSEC_")}
    path = variables.pop("PYTHONPATH", "")
    if not peer.group and not peer.requirements:
        # Servers run in a folder of their own: relative entries would lead nowhere.
        absolute = [str(Path(entry).resolve()) for entry in path.split(os.pathsep) if entry]
        return Environment(sys.executable, variables | {"PYTHONPATH": os.pathsep.join(absolute)})
    home = peer.home(root)
    python = home / "bin" / "python"
    if not installed(peer, root):
        print(f"making {home}: packages of {peer.requirements or f'the group {peer.group!r}'}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
        subprocess.run([*install, *wanted(peer)], check=True)
        (home / "complete").write_text(LOCK.read_text())
    return Environment(str(python), variables)


def wanted(peer: Peer) -> list[str]:
    """Arguments of `uv pip install`."""
    if peer.requirements:
        packages = ["--requirement", str(Path(__file__).with_name(peer.requirements))]
    else:
        project = ROOT / "pyproject.toml"
        packages = ["--constraint", str(LOCK), "--group", f"{project}:{peer.group}"]
        packages += ["--requirement", str(project), "--extra", peer.extra] if peer.extra else []
    if not peer.extra and not peer.requirements:
        return packages
    links = os.environ.get("PIP_FIND_LINKS")  # a build of torch for the CPU alone may be kept there
    return [*packages, "--constraint", str(TORCH), *(["--find-links", links] if links else [])]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    core: str
    path: str = "/inference"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def core_pid(self) -> int:
        """The process that holds the connections."""
        for stat in tree(self.pid):
            if self.core and self.core in command_line(stat.pid) + " ":
                return stat.pid
        raise ServerFailed(f"no process of the server is named {self.core!r}")

    def post(self, body: bytes, content_type: str) -> bytes:
        """One request; raises ServerFailed for anything but 200."""
        request = urllib.request.Request(self.url, body, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                data: bytes = answer.read()
                return data
        except (urllib.error.URLError, OSError) as error:
            raise ServerFailed(f"probe of {self.url}: {error}\n{self.log_tail()}") from error

    def wait_ready(self, body: bytes, content_type: str) -> bytes:
        """Repeats the request until the server takes connections; returns the answer."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerFailed(f"ended with {self.process.returncode} at its start\n{self.log_tail()}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self.post(body, content_type)
            time.sleep(0.02)
        raise ServerFailed(f"not ready in {START_SECONDS} s\n{self.log_tail()}")


@contextmanager
def running(peer: Peer, env: Environment, service: str) -> Iterator[Server]:
    """Starts the peer in a session of its own; ends all of it afterwards, whatever happened."""
    port = free_port()
    variables = env.variables | {"BENCH_API": peer.api, "BENCH_SERVICE": peer.variants.get(service, service)}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [env.python, str(SERVICES / peer.script), "--port", str(port)],
                env=variables,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield Server(process, port, log, peer.core, peer.path)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    members = [stat.pid for stat in tree(process.pid)]
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in members:
        # A pid may have been given to another process meanwhile: only those still in the session are ours.
        with suppress(ProcessLookupError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
    process.wait()
