"""Options: where each value comes from, and what is refused."""

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from mosec_cy._config import options
from mosec_cy._config.options import Options


def parse(arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None, **defaults: object) -> Options:
    return options.parse(arguments, environ or {}, defaults)


def test_defaults() -> None:
    parsed = parse()
    assert (parsed.capacity, parsed.timeout, parsed.wait, parsed.address, parsed.port) == (
        1024,
        3000,
        0,
        "0.0.0.0",
        8000,
    )
    assert (parsed.namespace, parsed.log_level, parsed.max_request_size) == ("mosec_service", "info", 10485760)
    assert parsed.budget >= 1 << 20


def test_precedence() -> None:
    environ = {"MOSEC_PORT": "2", "MOSEC_TIMEOUT": "20", "MOSEC_LOG_LEVEL": "error"}
    parsed = parse(["--port", "1"], environ, port=3, timeout=30, capacity=300)
    assert (parsed.port, parsed.timeout, parsed.capacity, parsed.log_level) == (1, 20, 300, "error")


def test_every_option_has_flag_and_variable() -> None:
    parsed = parse(["--max-request-size", "7", "--strict-warmup"], {"MOSEC_MAX_CONNECTIONS": "8"})
    assert (parsed.max_request_size, parsed.max_connections, parsed.strict_warmup) == (7, 8, True)


def test_unknown_arguments_are_left_alone() -> None:
    assert parse(["--model", "x", "--name", "y", "--port", "9", "positional"]).port == 9


def test_no_abbreviations() -> None:
    assert parse(["--time", "5"]).timeout == 3000  # it may be an option of the program's own


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_switches_in_the_environment(text: str, value: bool) -> None:
    assert parse(environ={"MOSEC_STRICT_WARMUP": text}).strict_warmup is value


def test_a_switch_of_the_environment_can_be_switched_off_again() -> None:
    assert not parse(["--no-strict-warmup"], {"MOSEC_STRICT_WARMUP": "1"}).strict_warmup


def test_debug_is_a_log_level() -> None:
    assert parse(["--debug"]).log_level == "debug"


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        (["--port", "70000"], {}, "--port: must be at most 65535, but is 70000"),
        (["--port", "x"], {}, "--port: must be a whole number, but is 'x'"),
        (["--timeout", "0"], {}, "--timeout: must be at least 1 (ms), but is 0"),
        (["--body-timeout", f"{2**63}"], {}, "--body-timeout: must be at most 1000000000000 (ms), but is 9223"),
        (["--capacity", f"{2**32}"], {}, "--capacity: must be at most 16777216, but is 4294967296"),
        (["--log-level", "loud"], {}, "--log-level: must be one of info, debug, warning, error, but is 'loud'"),
        (["--root-path", "models"], {}, "--root-path: must be the path of a URL that begins with a slash"),
        ([], {"MOSEC_PORT": "x"}, "environment variable MOSEC_PORT: must be a whole number"),
        ([], {"MOSEC_DEBUG": "perhaps"}, "environment variable MOSEC_DEBUG: must be true or false"),
    ],
)
def test_wrong_ones_end_the_program(
    arguments: list[str], environ: dict[str, str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments, environ)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("defaults", "error", "complaint"),
    [
        ({"prot": 1}, TypeError, "unknown option 'prot'; the options are path, "),
        ({"port": "1"}, TypeError, "port must be int, but is '1'"),
        ({"timeout": True}, TypeError, "timeout must be int .ms., but is True"),
        ({"timeout": 0}, ValueError, "timeout must be at least 1 .ms., but is 0"),
        ({"log_level": "loud"}, ValueError, "log_level must be one of"),
    ],
)
def test_wrong_defaults_of_the_program(defaults: dict[str, object], error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        parse(**defaults)


ROOTS = ["", "/", "/models", "/models/", "/models/v1.2/~a", "/a%20b", "/...", "/a:b@c"]
NO_ROOTS = ["models", "//host", "/a//b", "/a?b", "/a#b", "/a b", "/{a}", "/é", "/a%2", "/./a", "/a/..", "http://host/a"]


@pytest.mark.parametrize("path", ROOTS)
def test_root_paths(path: str) -> None:
    assert parse(["--root-path", path]).root_path == path


@pytest.mark.parametrize("path", NO_ROOTS)
def test_what_is_no_root_path(path: str) -> None:
    with pytest.raises(ValueError, match=r"root_path must be the path of a URL that begins with a slash, like /models"):
        parse(root_path=path)


def test_help_names_each_option_with_its_unit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in Options.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in shown
    for field in dataclasses.fields(Options):
        if unit := field.metadata["unit"]:
            assert f"--{field.name.replace('_', '-')} {unit.upper()} " in shown
    assert "(default: 3000 ms)" in shown
    assert "(default: 10485760 bytes)" in shown
    assert "MOSEC_PORT=8080" in shown


def another(field: dataclasses.Field[object]) -> object:
    """A value that is allowed and not the default."""
    default = getattr(parse(), field.name)
    if field.metadata["choices"]:
        return next(choice for choice in field.metadata["choices"] if choice != default)
    if isinstance(default, bool):
        return not default
    if field.name == "root_path":
        return "/x"
    return default + 1 if isinstance(default, int) else f"{default}x"


FREE = [field for field in dataclasses.fields(Options) if field.name not in ("debug", "dry_run")]


@pytest.mark.parametrize("field", FREE, ids=lambda field: field.name)
def test_each_option_comes_from_everywhere(field: dataclasses.Field[object]) -> None:
    value = another(field)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    flag = f"--{field.name.replace('_', '-')}"
    for parsed in (
        parse([flag] if value is True else [flag, text]),
        parse(environ={f"MOSEC_{field.name.upper()}": text}),
        parse(**{field.name: value}),
    ):
        assert parsed == dataclasses.replace(parse(), **{field.name: value})


@pytest.mark.parametrize(
    ("arguments", "environ", "defaults", "warning"),
    [
        (["--debug"], {}, {}, "--debug is deprecated: use --log-level debug"),
        ([], {"MOSEC_DEBUG": "yes"}, {}, "--debug is deprecated: use --log-level debug"),
        ([], {}, {"wait": 5}, "--wait is deprecated: pass max_wait_time to append_worker"),
        ([], {"MOSEC_WAIT": "5"}, {}, "--wait is deprecated: pass max_wait_time to append_worker"),
    ],
)
def test_deprecated_ones_warn(
    arguments: list[str],
    environ: dict[str, str],
    defaults: dict[str, object],
    warning: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    parse(arguments, environ, **defaults)
    assert warning in capfd.readouterr().err
    parse()
    assert "deprecated" not in capfd.readouterr().err
