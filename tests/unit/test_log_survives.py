"""The service's log, whatever a program does to `logging` and to `sys.stderr`; and the program's own handlers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.service import ROOT

INTERFERENCES = {
    "dictConfig": 'logging.config.dictConfig({"version": 1})',
    "dictConfig of all": """
        logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL", "handlers": []},
            "loggers": {"mosec_cy": {"level": "CRITICAL", "handlers": [], "propagate": False}}})
    """,
    "fileConfig": """
        logging.config.fileConfig(io.StringIO(
            "[loggers]\\nkeys=root\\n[handlers]\\nkeys=\\n[formatters]\\nkeys=\\n"
            "[logger_root]\\nlevel=CRITICAL\\nhandlers=\\n"))
    """,
    "disable": "logging.disable(logging.CRITICAL)",
    "disabled loggers": """
        for name in [*logging.root.manager.loggerDict, "mosec_cy"]:
            logging.getLogger(name).disabled = True
        get_logger().disabled = True
    """,
    "cleared handlers": """
        for logger in (logging.root, logging.getLogger("mosec_cy"), get_logger()):
            logger.handlers.clear()
            logger.propagate = False
    """,
    "levels": """
        logging.root.setLevel(logging.CRITICAL)
        logging.getLogger("mosec_cy").setLevel(logging.CRITICAL)
    """,
    "shutdown": "logging.shutdown()",
    "captureWarnings": "logging.captureWarnings(True)",
    "setLoggerClass": """
        class Silent(logging.Logger):
            def handle(self, record):
                pass
        logging.setLoggerClass(Silent)
    """,
    "record factory": """
        def factory(*args, **kwargs):
            raise RuntimeError("no record")
        logging.setLogRecordFactory(factory)
    """,
    "basicConfig": 'logging.basicConfig(level="CRITICAL", force=True)',
    "basicConfig to stdout": "logging.basicConfig(stream=sys.stdout, level=0)",
    "a root handler to stderr": 'logging.root.addHandler(logging.StreamHandler(open("/dev/stderr", "w")))',
    "stderr closed": "sys.stderr.close()",
    "stderr gone": "sys.stderr = sys.stdout = None",
    "stderr that logs": """
        class ToLogger:
            def write(self, text):
                get_logger().warning(text)
        sys.stderr = sys.stdout = ToLogger()
        logging.basicConfig()
        logging.root.addHandler(logging.StreamHandler(sys.stdout))
    """,
    "stderr that logs to the root logger": """
        class ToLogger:
            def write(self, text):
                logging.warning(text)
            def flush(self):
                raise OSError
        sys.stderr = sys.stdout = ToLogger()
    """,
    "a handler that raises": """
        class Raising(logging.Handler):
            def emit(self, record):
                raise RuntimeError("broken")
        logging.root.addHandler(Raising())
    """,
    "a handler that logs": """
        class Logging(logging.Handler):
            def emit(self, record):
                if "again" not in record.getMessage():
                    get_logger().warning("again")
        logging.root.addHandler(Logging())
    """,
    "a handler that recurses": """
        class Recursing(logging.Handler):
            def emit(self, record):
                self.handle(record)
        logging.root.addHandler(Recursing())
    """,
}


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which `own()` logs a line as a module of the service does."""
    prologue = """
        import io, logging, logging.config, os, sys
        from mosec_cy import get_logger, log

        def own(text, *values):
            get_logger().handle(get_logger().makeRecord(
                "mosec_cy", logging.ERROR, log.__file__, 1, text, values, None, "f"))
    """
    text = textwrap.dedent(prologue) + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def said(output: str) -> list[str]:
    """The messages of the log in it."""
    return [json.loads(line)["fields"]["message"] for line in output.splitlines() if line.startswith('{"timestamp"')]


@pytest.mark.parametrize("interference", INTERFERENCES.values(), ids=INTERFERENCES)
def test_each_line_appears_once(interference: str) -> None:
    calls = 'get_logger().info("first %s", 1); own("second %d", 2); get_logger().getChild("x").info("third")'
    ended = run(f"{textwrap.dedent(interference)}\n{calls}")
    lines = [message for message in said(ended.stderr) if message.startswith(("first", "second", "third"))]
    assert lines == ["first 1", "second 2", "third"]
    assert "first 1" not in ended.stdout
    assert len(ended.stderr.split("first 1")) == 2


def test_own_lines_whatever_style_the_programs_records_have() -> None:
    ended = run("""
        class Braces(logging.LogRecord):
            def getMessage(self):
                return self.msg.format(*self.args)
        logging.setLogRecordFactory(Braces)
        get_logger().info("in {}", "braces")
        own("%s in percent", "signs")
    """)
    assert said(ended.stderr) == ["in braces", "signs in percent"]


@pytest.mark.parametrize("call", ['info("%d", "x")', 'info("%s %s", 1)', "info(b'x', {1: 2})"])
def test_record_that_cannot_be_formatted(call: str) -> None:
    (message,) = said(run(f"get_logger().{call}").stderr)
    assert "cannot be formatted" in message or message == "b'x'"


def test_text_that_is_no_unicode() -> None:
    ended = run(r'log.configure("info", "text"); get_logger().info("half \ud800")')
    assert ended.stderr.endswith("half \\ud800\n")


# ---- handlers of the program's own -----------------------------------------------------------------------


def handled(program: str, tmp_path: Path) -> list[str]:
    """What the program has in the file that it is given."""
    path = tmp_path / "file"
    run(program, str(path))
    return path.read_text().splitlines()


def test_root_handlers_get_each_record_once(tmp_path: Path) -> None:
    lines = handled(
        """
        logging.config.dictConfig({"version": 1,
            "formatters": {"f": {"format": "%(name)s %(levelname)s %(message)s"}},
            "handlers": {
                "file": {"class": "logging.FileHandler", "filename": sys.argv[1], "formatter": "f"},
                "stderr": {"class": "logging.StreamHandler"}},
            "root": {"handlers": ["file", "stderr"]}})
        get_logger().info("first")
        own("second")
        get_logger().debug("not logged")
        """,
        tmp_path,
    )
    assert lines == ["mosec_cy INFO first", "mosec_cy ERROR second"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", ["info", "error"]),
        ("handler.setLevel(logging.ERROR)", ["error"]),
        ("logging.disable(logging.INFO)", ["error"]),
        ('logging.getLogger("mosec_cy").setLevel(logging.ERROR)', ["error"]),
        ('logging.getLogger("mosec_cy").disabled = True', []),
        ('logging.getLogger("mosec_cy").propagate = False', []),
        ('logging.getLogger("mosec_cy").addHandler(handler)', ["info", "error"]),
        ('logging.getLogger("mosec_cy").addFilter(lambda record: "info" in record.getMessage())', ["info"]),
        ("get_logger().addHandler(handler)", ["info", "error"]),
    ],
)
def test_the_programs_configuration_holds_for_its_handlers(setting: str, expected: list[str], tmp_path: Path) -> None:
    program = f"""
        handler = logging.FileHandler(sys.argv[1])
        logging.root.addHandler(handler)
        {setting}
        get_logger().info("info")
        get_logger().error("error")
    """
    assert handled(program, tmp_path) == expected


def test_a_handler_that_fails_is_reported_once() -> None:
    ended = run(INTERFERENCES["a handler that raises"].strip("\n") + '\n        get_logger().info("said")' * 3)
    assert said(ended.stderr).count("said") == 3
    assert len([message for message in said(ended.stderr) if "Raising" in message]) == 1


@pytest.mark.parametrize("level", ["error", "info", "nonsense", ""])
def test_level_of_the_environment_holds_from_the_start(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSEC_LOG_LEVEL", level)
    expected = ["error"] if level == "error" else ["info", "error"]
    assert said(run('get_logger().info("info"); get_logger().error("error")').stderr) == expected
