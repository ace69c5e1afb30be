"""Rules for all tests."""

import contextlib
import os
import signal
import tempfile
import textwrap
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from tests.redis_server import redis_server
from tests.service import Service
from tests.tools import notice

# No test fails for the time that it takes, and no example of a random one does.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# When the tests of a folder begin, where several processes run them: those of modules that take long come first.
_RANKS = {"stress": 0, "parity": 1, "interop": 2, "examples": 3, "fuzz": 4, "unit": 5}


def pytest_configure() -> None:
    # What a shell starts in the background ignores SIGINT, and so would every service that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Each start of a service would compile the package anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_report_header() -> str | None:
    return notice()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes what takes long begins first: at the end it would run alone."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _RANKS.get(item.path.parent.name, 0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With MOSEC_CY_REQUIRE_TOOLS=1 a test that would be skipped fails: nothing passes by absence."""
    report = yield
    if os.environ.get("MOSEC_CY_REQUIRE_TOOLS") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although MOSEC_CY_REQUIRE_TOOLS=1: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole modules (`pytest.importorskip`)."""
    report = yield
    if os.environ.get("MOSEC_CY_REQUIRE_TOOLS") == "1" and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped although MOSEC_CY_REQUIRE_TOOLS=1: {report.longrepr}"
    return report


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services: `serve(source, *arguments, env=...)`, where `source` is the program's text or path.

    A service that still runs at the end of the test is shut down in order; none may leave anything behind.
    """
    with _services(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """The same for services that the tests of a module share; they run until its last test has ended."""
    with _services(tmp_path_factory.mktemp("services")) as start:
        yield start


@contextlib.contextmanager
def _services(folder: Path) -> Iterator[Callable[..., Service]]:
    with contextlib.ExitStack() as services:

        def start(
            source: str | Path, *arguments: str, env: Mapping[str, str] | None = None, terminal: bool = False
        ) -> Service:
            directory = Path(tempfile.mkdtemp(dir=folder))
            if isinstance(source, str):
                script = directory / "service.py"
                script.write_text(textwrap.dedent(source))
                source = script
            return services.enter_context(Service(source, *arguments, env=env, directory=directory, terminal=terminal))

        yield start


@pytest.fixture
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of the test's own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO: whoever opens it to read, as user code of a test may, waits until the test opens it to write."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path
