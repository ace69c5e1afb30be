"""What a service tells of itself: its OpenAPI description (3.1.1), and the page that shows it."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mosec_cy import __version__
from mosec_cy._base import replica
from mosec_cy._codecs import json_codec
from mosec_cy._codecs.annotations import ParseTarget, Schema, codec_is_ours
from mosec_cy._config.options import Options
from mosec_cy._config.plan import HTML, JSON, PNG, SCRIPT, STYLE, TEXT, Plan, Resource
from mosec_cy.log import get_logger
from mosec_cy.runtime import Runtime
from mosec_cy.worker import BaseWorker, streams

_BYTES = "application/octet-stream"
_EVENTS = "text/event-stream"
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_ERRORS = {
    400: ("BadRequest", "The body cannot be decoded, or the worker refuses it; or a header is malformed."),
    408: ("Timeout", "The request took longer than its client, the service or one of its stages allows."),
    413: ("TooLarge", "The body is larger than the service allows."),
    415: ("UnknownCoding", "The body's content-encoding is none that the service can decode."),
    422: ("Invalid", "The body was decoded but is not valid."),
    429: ("TooMany", "Too many requests wait already."),
    500: ("Failed", "The worker failed."),
    503: ("Unavailable", "The service is shutting down, has no memory left for the body, or would answer too late."),
}
_WITH_COMPRESSION = {415}
_SERVER_ERRORS = (408, 500, 503)
_RETRY_AFTER = {429, 503}
_RETRY_HEADER = {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}}


class OpenAPI:
    """Answers what is asked for below `/openapi`. The description is made when it is first asked for, and kept."""

    def __init__(self, plan: Plan, options: Options) -> None:
        self._plan = plan
        self._options = options

    def resource(self, path: str) -> Resource | None:
        """What lies at the path of a URL; None: nothing."""
        if path == "/openapi/metadata.json":
            return Resource(self._description, JSON)
        if path.startswith("/openapi/swagger"):
            return swagger_resource(path.removeprefix("/openapi/swagger"))
        return None

    @cached_property
    def _description(self) -> bytes:
        return json_codec.encode(describe(self._plan, self._options))


def describe(plan: Plan, options: Options) -> dict[str, Any]:
    """The description of a service: the users' routes, then the server's own that say how it is."""
    schemas = Schemas()
    errors = [status for status in _ERRORS if options.compression or status not in _WITH_COMPRESSION]
    paths = {}
    for path, name in _operation_ids(plan.routes):
        runtimes = [plan.stages[number - 1].runtime for number in plan.routes[path]]
        paths[path] = {"post": {"operationId": name, **_operation(runtimes, schemas, errors)}}
    return {
        "openapi": "3.1.1",
        "info": {"title": "MOSEC service", "version": __version__},
        # Without the option relative to this document's own place, which is one folder below that of the routes.
        "servers": [{"url": options.root_path.rstrip("/") or ".."}],
        "tags": [
            {"name": "inference", "description": "What the service is for."},
            {"name": "server", "description": "The state of the service."},
        ],
        "paths": paths | _SERVER_PATHS,
        "components": {
            "schemas": schemas.components,
            "parameters": {"Timeout": _timeout_parameter(options)},
            "headers": {"RetryAfter": _RETRY_HEADER},
            "responses": {_ERRORS[status][0]: _response(status) for status in errors},
        },
    }


def _operation(runtimes: Sequence[Runtime], schemas: Schemas, errors: Sequence[int]) -> dict[str, Any]:
    """How a route is asked, and what it answers."""
    first, last = runtimes[0].worker, runtimes[-1].worker
    request = schemas.of(runtimes[0], ParseTarget.INPUT)
    # The mixin of its requests' codec may have named another type.
    answer_type = _EVENTS if streams(last) else last.resp_mime_type
    # What `forward` returns is no part of a stream, and JSON Schema has no word for events.
    answer = {} if answer_type.startswith(_EVENTS) else schemas.of(runtimes[-1], ParseTarget.RETURN)
    return {
        "tags": ["inference"],
        "summary": " → ".join(runtime.worker.__name__ for runtime in runtimes),
        "description": "\n\n".join(_documentation([runtime.worker for runtime in runtimes])),
        "parameters": [{"$ref": "#/components/parameters/Timeout"}],
        "requestBody": {"content": {_request_type(first, request): {"schema": request}}},  # may be empty
        "responses": {
            "200": {
                "description": "The result. An empty body is answered `no data provided`, as text.",
                "content": {**({answer_type: {"schema": answer}} if answer_type else {}), **_TEXT},
            },
            **_references(errors),
        },
    }


def _request_type(worker: type[BaseWorker], schema: Schema) -> str:
    """By the worker's own word or codec; of another codec only its schema may tell that it reads JSON."""
    if worker.req_mime_type:
        return worker.req_mime_type
    return JSON if schema or codec_is_ours(worker, ParseTarget.INPUT) else _BYTES


def _documentation(workers: Sequence[type[BaseWorker]]) -> Iterator[str]:
    """Paragraphs: what the classes and their `forward` say of themselves, under their names if there are several."""
    for worker in workers:
        texts = [text for text in (worker.__doc__, worker.forward.__doc__) if isinstance(text, str)]
        if texts and len(workers) > 1:
            yield f"**{worker.__name__}**"
        yield from map(inspect.cleandoc, texts)


def _operation_ids(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Paths, each with a name that no other has."""
    taken: set[str] = set()
    for path in paths:
        if "{" in path or "}" in path:  # OpenAPI would take it for a template
            continue
        plain = name = "post_" + re.sub("[^A-Za-z0-9]+", "_", path).strip("_")
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name)
        yield path, name


def _references(errors: Iterable[int]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/{_ERRORS[status][0]}"} for status in errors}


def _response(status: int) -> dict[str, Any]:
    headers = {"headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}}
    return {"description": _ERRORS[status][1], **(headers if status in _RETRY_AFTER else {}), "content": _TEXT}


def _timeout_parameter(options: Options) -> dict[str, Any]:
    description = (
        f"ms that the client waits for its answer; above {options.timeout}, the service's own limit, that holds."
    )
    schema = {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}
    return {"name": "x-request-timeout-ms", "in": "header", "description": description, "schema": schema}


def _page(name: str, summary: str, errors: Sequence[int]) -> dict[str, Any]:
    """A page of the server itself, of plain text."""
    responses = {"200": {"description": summary, "content": _TEXT}, **_references(errors)}
    return {"get": {"operationId": name, "tags": ["server"], "summary": summary, "responses": responses}}


_SERVER_PATHS = {
    "/": _page("get_root", "Says that the service is there.", ()),
    "/metrics": _page("get_metrics", "Metrics in Prometheus' text format.", _SERVER_ERRORS),
}


# ---- schemas ----------------------------------------------------------------------------------------

_PLACE = "#/components/schemas/"
_REF_TEMPLATE = _PLACE + "{name}"
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # OpenAPI 3.1.1, section 4.8.7.2


class Schemas:
    """Asks workers for their schemas; `components` is what these refer to, by name.

    Components of several workers may have one name: those that are equal are shared, others get a number.
    """

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._encoded: dict[str, bytes] = {}
        self._known: dict[tuple[int, ParseTarget, bool], Schema] = {}  # by id: not every class has a hash

    def of(self, runtime: Runtime, target: ParseTarget) -> Schema:
        """The schema of one item, or of its result. A worker that cannot say gets {}, and a line in the log."""
        key = (id(runtime.worker), target, runtime.max_batch_size > 1)
        if key not in self._known:
            try:
                self._known[key] = self._add(*_asked(runtime, target))
            except (Exception, SystemExit):  # from the user's own method
                get_logger().warning(
                    "no schema of what %s.forward %s: the OpenAPI description admits anything there",
                    runtime.worker.__name__,
                    "takes" if target is ParseTarget.INPUT else "returns",
                    exc_info=True,
                )
                self._known[key] = {}
        return self._known[key]

    def _add(self, schema: Schema, components: Mapping[str, Schema]) -> Schema:
        for number in itertools.count(1):
            ending = "" if number == 1 else f"_{number}"
            places = {_PLACE + name: _PLACE + name + ending for name in components}
            named = {name + ending: _moved(component, places) for name, component in components.items()}
            encoded = {name: json_codec.encode(component) for name, component in named.items()}
            if all(self._encoded.get(name, text) == text for name, text in encoded.items()):
                self.components.update(named)
                self._encoded.update(encoded)
                return _moved(schema, places)
        raise AssertionError("there is always a next number")


def _asked(runtime: Runtime, target: ParseTarget) -> tuple[Schema, dict[str, Schema]]:
    """What the worker says, checked: a broken description is of no use to any route."""
    with replica.described(runtime.max_batch_size):
        answer = runtime.worker.get_forward_json_schema(target, _REF_TEMPLATE)
    if not isinstance(answer, tuple) or [isinstance(part, dict) for part in answer] != [True, True]:
        raise TypeError(f"get_forward_json_schema must return (schema, components), two dicts, but returned {answer!r}")
    schema, components = answer
    for name, component in components.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(component, dict):
            raise TypeError(
                f"components must be dicts by names of letters, digits, '.', '_' and '-', not {name!r}: {component!r}"
            )
    json_codec.encode([schema, components])
    for reference in _references_in([schema, components]):
        if reference.removeprefix(_PLACE).partition("/")[0] not in components:
            raise ValueError(
                f"{reference!r} refers to none of the components: {', '.join(components) or 'there are none'}"
            )
    return schema, components


def _moved(value: Any, places: Mapping[str, str]) -> Any:
    """A copy in which references lead to new places. (msgspec also lists some of them by tag, as plain strings.)"""
    if isinstance(value, dict):
        return {key: _moved(item, places) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value


def _references_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_PLACE):
            yield reference
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _references_in(item)


# ---- the page that shows it -----------------------------------------------------------------------

# Swagger UI: the files in `swagger_ui/` and the few lines that join them. It needs nothing from elsewhere. Links are
# relative, so that the page also works where a proxy serves it below another path. The policy has the browser refuse
# any other origin; Swagger UI sets style attributes, and shows and offers answers as blob: and data: URLs.
_SWAGGER_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'self'; style-src 'self' 'unsafe-inline'; \
img-src 'self' blob: data:; media-src 'self' blob: data:; object-src 'none'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Swagger UI</title>
<link rel="icon" type="image/png" href="favicon-32x32.png">
<link rel="stylesheet" href="swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
"""
# Without `validatorUrl: null` the description would be sent to a validator on the internet.
_SWAGGER_START = b"""SwaggerUIBundle({
  url: "../metadata.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  validatorUrl: null,
});
"""
# What a redirect would do, were there one: the relative links need the slash at the end.
_TO_SWAGGER_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=swagger/">
<link rel="icon" type="image/png" href="swagger/favicon-32x32.png">
<title>Swagger UI</title>
</head>
<body><a href="swagger/">Swagger UI</a></body>
</html>
"""
_SWAGGER_FILES = {
    "swagger-ui-bundle.js": SCRIPT,
    "swagger-ui.css": STYLE,
    "favicon-32x32.png": PNG,
    "swagger-ui-bundle.js.LICENSE.txt": TEXT,
}


def swagger_resource(path: str) -> Resource | None:
    """What lies at `path` below the place of the page ("": without a slash, "/": the page); None: nothing."""
    if path == "":
        return Resource(_TO_SWAGGER_PAGE, HTML)
    if path == "/":
        return Resource(_SWAGGER_PAGE, HTML)
    if path == "/start.js":
        return Resource(_SWAGGER_START, SCRIPT)
    slash, name = path[:1], path[1:]
    return Resource(_swagger_file(name), _SWAGGER_FILES[name]) if slash == "/" and name in _SWAGGER_FILES else None


@cache
def _swagger_file(name: str) -> bytes:
    return (Path(__file__).parent / "swagger_ui" / name).read_bytes()
