"""A pytest plugin (`-p tests.progress`) that says in counts how far the tests are: one line that is kept up to date on
a terminal, elsewhere a line every ten seconds. A test that fails is named at once.
"""

import time
from collections.abc import Generator
from typing import Any

import pytest

_Status = tuple[str, str, Any]  # category, letter, word
EVERY = 10.0  # s; between two lines of a log
EVERY_ON_TERMINAL = 0.1  # s


class Progress:
    """Takes the place of the terminal reporter's dots; what it writes before and after the tests stays."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal = config.pluginmanager.get_plugin("terminalreporter")
        self._terminal.showfspath = False
        self._overwrite = self._terminal.isatty
        self._total = 0
        self._done = self._failed = self._skipped = 0
        self._began = self._told = time.monotonic()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)  # each node collects all tests

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, _Status, _Status]:
        category, _, word = yield
        return category, "", word  # no letter, which would be a dot

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed += report.failed
        self._skipped += report.skipped
        self._done += report.when == "teardown"
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_line(f"failed: {report.nodeid}", red=True)
        now = time.monotonic()
        if now - self._told >= (EVERY_ON_TERMINAL if self._overwrite else EVERY):
            self._told = now
            self._tell()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if self._done:
            self._tell()
            self._terminal.ensure_newline()

    def _tell(self) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        line = f"{self._done} of {self._total} tests{skipped}, {self._failed} failed, {minutes}:{seconds:02}"
        if self._overwrite:
            self._terminal.rewrite(line, erase=True)
        else:
            self._terminal.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("terminalreporter") and config.option.verbose == 0:
        config.pluginmanager.register(Progress(config))
