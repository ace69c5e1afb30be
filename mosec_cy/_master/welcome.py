"""What the program's user is told once the service is ready: where it is, what it serves, and a request to try."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mosec_cy._codecs import json_codec
from mosec_cy._codecs.annotations import ParseTarget, codec_is_ours
from mosec_cy._config.options import Options
from mosec_cy._config.plan import JSON, Plan, Stage, batching
from mosec_cy.errors import EncodingError
from mosec_cy.runtime import Runtime
from mosec_cy.worker import BaseWorker, steps, streams

_LONGEST_EXAMPLE = 300  # characters that a command line shows
_LARGEST_ENCODED = 10_000  # bytes
_HINT = 40  # characters of a longer one
_MOST_ROUTES = 20
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_SERVER_PAGES = (
    ("/openapi/swagger/", "the interface, to read and to try"),
    ("/metrics", "for Prometheus"),
    ("/health/ready", "and /health/live, for probes"),
)


class Place(NamedTuple):
    """How the service is reached from this machine: `url` without a path, and what curl needs besides."""

    url: str
    curl: tuple[str, ...]


def place_of(address: str) -> Place:
    """Of the address that a `Listener` names."""
    if address.startswith("unix:"):
        return Place("http://localhost", ("--unix-socket", address.removeprefix("unix:")))
    host, _, port = address.rpartition(":")
    return Place(f"http://{_ANY.get(host, host)}:{port}", ())


def block(plan: Plan, options: Options, address: str) -> str:
    """For a person at a terminal: lines of which the first is the address."""
    place = place_of(address)
    routes = [(f"POST {path}", _stages(plan, numbers, options)) for path, numbers in plan.routes.items()]
    shown = routes[:_MOST_ROUTES]
    if len(routes) > len(shown):
        shown.append((f"and {len(routes) - len(shown)} more", ""))
    table = [*shown, ("", ""), *((f"GET  {path}", text) for path, text in _SERVER_PAGES)]
    width = max(len(left) for left, _ in table)
    lines = [address if place.curl else place.url, ""]
    lines += [f"  {left:<{width}}  {right}" for left, right in table]
    lines += ["", f"  {trial(plan, address)}", ""]
    return "\n".join(line.rstrip() for line in lines)


def trial(plan: Plan, address: str) -> str:
    """A command that asks the service: with the example of the first route that has one for its stage."""
    firsts = {path: plan.stages[numbers[0] - 1].runtime for path, numbers in plan.routes.items()}
    examples = {path: _item(runtime) for path, runtime in firsts.items()}
    path = next((path for path, example in examples.items() if example is not None), next(iter(firsts)))
    data, comment = _data(firsts[path].worker, examples[path])
    last = plan.stages[plan.routes[path][-1] - 1].runtime.worker
    place = place_of(address)
    words = ["curl", *place.curl, *(["-N"] if streams(last) else []), *data, place.url + path]
    return shlex.join(words) + (f"  # {comment}" if comment else "")


def _data(worker: type[BaseWorker], example: Any) -> tuple[tuple[str, str], str]:
    """The arguments of curl that make the body, and what is to be said of them."""
    own_file = "--data-binary", "@FILE"
    kind = worker.req_mime_type or JSON
    if kind != JSON or not codec_is_ours(worker, ParseTarget.INPUT):
        return own_file, "" if kind == JSON else kind  # what `forward` gets does not tell what the codec reads
    if example is None:
        return own_file, f"JSON; an `example` of {worker.__name__} would be shown here"
    try:
        body = json_codec.encode(example).decode() if _size(example) < _LARGEST_ENCODED else ""
    except (EncodingError, RecursionError):
        return own_file, "JSON"
    if not body:
        return own_file, "JSON"
    if len(body) > _LONGEST_EXAMPLE or not body.isprintable():
        return own_file, f"JSON like {ascii(body[:_HINT])[1:-1]}…"
    return ("-d", body), ""


def _item(runtime: Runtime) -> Any:
    """What one request brings, as far as the class itself says so; None: it does not."""
    worker = runtime.worker
    batched = runtime.max_batch_size > 1 and not steps(worker)
    try:
        example = worker.multi_examples[0] if len(worker.multi_examples) else worker.example
        return example[0] if batched and example is not None else example
    except Exception:  # a property, or of another shape, which the warm-up complains of
        return None


def _size(value: Any) -> int:
    """Roughly the bytes that it has: only what is small is worth encoding here."""
    if isinstance(value, Mapping):
        return sum(_size(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple)):
        return len(value) + sum(map(_size, value[:_LONGEST_EXAMPLE]))
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return getattr(value, "nbytes", 1)


def _stages(plan: Plan, numbers: Sequence[int], options: Options) -> str:
    return " → ".join(" ".join(_words(plan.stages[number - 1], options)) for number in numbers)


def _words(stage: Stage, options: Options) -> Iterator[str]:
    runtime = stage.runtime
    yield f"{runtime.worker.__name__} × {runtime.num}"
    if steps(runtime.worker):
        yield f"(up to {runtime.max_batch_size} at a time)"
    elif runtime.max_batch_size > 1:
        automatic, wait = batching(runtime, options)
        yield f"(batches of {'up to ' * automatic}{runtime.max_batch_size}{f' in {wait} ms' if wait else ''})"
