"""Rules for all tests."""

import os
from collections.abc import Generator

import pytest


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
