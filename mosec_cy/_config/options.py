"""Options of a server: command line, then MOSEC_* environment, then `Server(**defaults)`, then the default."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mosec_cy._base.limits import LONGEST_MS, default_budget
from mosec_cy.log import FORMATS, LEVELS, get_logger

_MOST_WAITING = 1 << 24  # requests: each has its place in several tables
# RFC 3986, section 3.3
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_EPILOG = """Each option can be set in the environment as well: MOSEC_ and its name in capitals, for example
MOSEC_PORT=8080 or MOSEC_MAX_REQUEST_SIZE=1048576. The command line wins over the environment, the
environment over the program's own Server(port=...). Arguments not listed here are left to the program."""


def _option(
    default: Any,
    text: str,
    unit: str = "",
    least: int = 0,
    most: int | None = None,
    choices: Sequence[str] = (),
    check: Callable[[str], str] = lambda _: "",
) -> Any:
    if unit == "ms":
        most = LONGEST_MS
    metadata = {"text": text, "unit": unit, "least": least, "most": most, "choices": tuple(choices), "check": check}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _complaint_of_root_path(value: str) -> str:
    if _ROOT_PATH.fullmatch(value):
        return ""
    return (
        "must be the path of a URL that begins with a slash, like /models/first "
        f"(ASCII, without //, ., .., spaces, ?, #, {{ or }}), but is {value!r}"
    )


@dataclass(frozen=True)
class Options:
    """The options of one server. Times are in ms and sizes in bytes, as on the command line."""

    path: str = _option("", "ignored, for programs written for Mosec: nothing lives in the file system")
    capacity: int = _option(
        1024, "requests that may wait for a first stage; beyond it the answer is 429", least=1, most=_MOST_WAITING
    )
    timeout: int = _option(3000, "time for one request; beyond it the answer is 408", "ms", 1)
    wait: int = _option(
        0, "(deprecated) max_wait_time of stages that give none; 0: as long as it pays, by automatic batching", "ms"
    )
    address: str = _option("0.0.0.0", "address to listen on: IPv4, IPv6, host name, or unix:/path/of/socket")
    port: int = _option(8000, "port to listen on; 0 takes a free one", most=65535)
    root_path: str = _option(
        "",
        "path under which a proxy serves the service, and which it takes off: for the OpenAPI description",
        check=_complaint_of_root_path,
    )
    namespace: str = _option("mosec_service", "prefix of the names of the Prometheus metrics")
    debug: bool = _option(False, "(deprecated) the same as --log-level debug")
    log_level: str = _option("info", "least level that is logged", choices=LEVELS)
    log_format: str = _option(
        "auto", "how the log is written; auto: text on a terminal and at level debug, JSON elsewhere", choices=FORMATS
    )
    dry_run: bool = _option(False, "pass the examples of the first stages through all routes, and end")
    compression: bool = _option(
        False, "decode request bodies with content-encoding gzip or zstd, compress answers by accept-encoding"
    )
    max_request_size: int = _option(10 << 20, "largest body of a request; beyond it the answer is 413", "bytes", 1)
    budget: int = _option(
        default_budget, "memory for payloads; default: a quarter of the machine's or container's", "bytes", 1 << 20
    )
    max_connections: int = _option(10000, "most open connections; further ones wait to be accepted", least=1)
    header_timeout: int = _option(10000, "time for a client to send the head of a request", "ms", 1)
    body_timeout: int = _option(10000, "time over which a body must bring 1 KiB a second", "ms", 1)
    write_timeout: int = _option(10000, "time over which an answer must be taken at 1 KiB a second", "ms", 1)
    idle_timeout: int = _option(75000, "time that a connection is kept open between requests", "ms", 1)
    kill_grace: int = _option(5000, "time after which a worker that ignores its timeout is killed", "ms", 1)
    rolling: str = _option(
        "surge",
        "how SIGHUP replaces workers: surge starts the new one first, replace ends the old one first",
        choices=("surge", "replace"),
    )
    stall_margin: int = _option(
        10000, "time beyond timeout and kill grace without progress, after which /health/live reports a stage", "ms", 1
    )
    strict_warmup: bool = _option(False, "a worker whose warm-up fails does not start")


_FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def parse(arguments: Sequence[str], environ: Mapping[str, str], defaults: Mapping[str, Any]) -> Options:
    """The options of a server.

    Args:
        arguments: the command line without the program's name; unknown arguments are left alone.
        environ: the environment.
        defaults: what the program itself passed to `Server`.

    Raises:
        TypeError, ValueError: a default of the program is wrong.
        SystemExit: the command line or environment is wrong (status 2, message on stderr), or asks for help.
    """
    _check_defaults(defaults)
    parser = _Parser(allow_abbrev=False, description="mosec_cy server", epilog=_EPILOG)
    for field in _FIELDS.values():
        parser.add_option(field)
    parsed, _ = parser.parse_known_args(arguments)
    values = dict(defaults) | parser.from_environment(environ) | vars(parsed)
    if values.pop("debug", False):
        get_logger().warning("--debug is deprecated: use --log-level debug")
        values["log_level"] = "debug"
    if "wait" in values:
        get_logger().warning("--wait is deprecated: pass max_wait_time to append_worker")
    return Options(**values)


class _Parser(argparse.ArgumentParser):
    """Takes the option's description from the fields; absent options leave no trace in its result."""

    def add_option(self, field: dataclasses.Field[Any]) -> None:
        text = field.metadata["text"].replace("%", "%%")
        unit = field.metadata["unit"]
        if field.default is not dataclasses.MISSING and field.default != "" and not isinstance(field.default, bool):
            text += f" (default: {field.default}{' ' + unit if unit else ''})"
        if field.type == "bool":
            self.add_argument(
                _flag(field.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
            return
        self.add_argument(
            _flag(field.name),
            type=lambda raw: _from_text(field, raw),
            default=argparse.SUPPRESS,
            metavar=unit.upper() or field.name.upper(),
            help=text,
        )

    def from_environment(self, environ: Mapping[str, str]) -> dict[str, Any]:
        values = {}
        for name, field in _FIELDS.items():
            variable = f"MOSEC_{name.upper()}"
            if variable in environ:
                try:
                    values[name] = _from_text(field, environ[variable])
                except argparse.ArgumentTypeError as error:
                    self.error(f"environment variable {variable}: {error}")
        return values

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _from_text(field: dataclasses.Field[Any], raw: str) -> Any:
    value: Any = raw
    if field.type == "bool":
        word = raw.strip().lower()
        if word not in _TRUE | _FALSE:
            raise argparse.ArgumentTypeError(f"must be true or false, but is {raw!r}")
        value = word in _TRUE
    elif field.type == "int":
        try:
            value = int(raw)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number{_in_unit(field)}, but is {raw!r}") from None
    complaint = _complaint(field, value)
    if complaint:
        raise argparse.ArgumentTypeError(complaint)
    return value


def _in_unit(field: dataclasses.Field[Any]) -> str:
    return f" ({field.metadata['unit']})" if field.metadata["unit"] else ""


def _complaint(field: dataclasses.Field[Any], value: Any) -> str:
    """What is wrong with a value of the right type; empty if nothing is."""
    least, most, choices = (field.metadata[key] for key in ("least", "most", "choices"))
    if field.type == "int" and value < least:
        return f"must be at least {least}{_in_unit(field)}, but is {value}"
    if field.type == "int" and most is not None and value > most:
        return f"must be at most {most}{_in_unit(field)}, but is {value}"
    if choices and value not in choices:
        return f"must be one of {', '.join(choices)}, but is {value!r}"
    complaint: str = field.metadata["check"](value)
    return complaint


def _check_defaults(defaults: Mapping[str, Any]) -> None:
    types = {"int": int, "str": str, "bool": bool}
    for name, value in defaults.items():
        field = _FIELDS.get(name)
        if field is None:
            raise TypeError(f"unknown option {name!r}; the options are {', '.join(_FIELDS)}")
        expected = types[str(field.type)]
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise TypeError(f"{name} must be {expected.__name__}{_in_unit(field)}, but is {value!r}")
        complaint = _complaint(field, value)
        if complaint:
            raise ValueError(f"{name} {complaint}")
