"""The log: one line a record, machine-readable unless someone is debugging."""

import copy
import datetime
import json
import logging
import pickle
from collections.abc import Iterator

import pytest

from mosec_cy import get_logger, log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    log.configure("info")


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().err.splitlines()


def test_json_line(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    get_logger().info("two\nlines %s", "é")
    (line,) = lines(capfd)
    record = json.loads(line)
    assert record["level"] == "INFO"
    assert record["fields"] == {"message": "two\nlines é"}
    assert record["target"] == "user::test_log.py:test_json_line"
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(
        record["timestamp"].replace("Z", "+00:00")
    )
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)


def test_exception_in_json(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("warning")
    try:
        raise ValueError("why")
    except ValueError:
        get_logger().exception("oh")
    (line,) = lines(capfd)
    fields = json.loads(line)["fields"]
    assert fields["message"] == "oh"
    assert fields["exc_info"].endswith("ValueError: why")


def test_levels(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("error")
    get_logger().warning("hidden")
    get_logger().error("shown")
    (line,) = lines(capfd)
    assert json.loads(line)["fields"]["message"] == "shown"


def test_coloured_text_for_debugging(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("debug")
    get_logger().debug("detail")
    (line,) = lines(capfd)
    assert "\x1b[34m" in line
    assert line.endswith("detail")
    assert "user::test_log.py:" in line


def test_own_records_are_told_from_the_users(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    record = logging.LogRecord("mosec_cy", logging.INFO, log.__file__, 1, "x", None, None, "f")
    get_logger().handle(record)
    (line,) = lines(capfd)
    assert json.loads(line)["target"] == "mosec_cy::log.py:f"


def test_other_loggers_are_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    root = list(logging.getLogger().handlers)
    get_logger().info("once")
    assert len(lines(capfd)) == 1
    assert logging.getLogger().handlers == root


def test_loggers_are_copied_and_sent_by_name() -> None:
    for logger in (get_logger(), get_logger().getChild("of.mine")):
        assert pickle.loads(pickle.dumps(logger)) is logger
        assert copy.deepcopy({"logger": logger})["logger"] is logger
