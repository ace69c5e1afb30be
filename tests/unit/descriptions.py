"""Workers whose service is described, and ways to look into the description."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mosec_cy import Runtime, Worker
from mosec_cy._codecs.annotations import ParseTarget
from mosec_cy._config.options import Options
from mosec_cy._config.plan import make_plan
from mosec_cy._web.openapi import describe

Description = dict[str, Any]


class Request(msgspec.Struct):
    text: str
    limit: int = 10


@dataclasses.dataclass
class Answer:
    words: list[str]


class Untyped(Worker):
    def forward(self, data):  # type: ignore[no-untyped-def]
        return data


class Typed(Worker):
    """Splits texts."""

    def forward(self, data: Request) -> Answer:
        """At spaces.

        And nowhere else.
        """
        return Answer(data.text.split())


class Batched(Worker):
    def forward(self, data: list[Request]) -> list[Answer]:
        return []


def describe_runtimes(routes: Mapping[str, list[Runtime]], **options: Any) -> Description:
    """The valid description of these routes."""
    description = describe(make_plan(routes), Options(**options))
    assert_valid(json.loads(json.dumps(description)))
    assert description["openapi"].startswith("3.1.")
    return description


def assert_valid(description: Description) -> None:
    """It is an OpenAPI description."""
    from openapi_spec_validator import validate  # slow to import, and each process of a parallel run imports all tests

    validate(description)


def bodies(description: Description, path: str) -> tuple[Any, Any]:
    """Content of the request and of the answer 200 of a route."""
    operation = description["paths"][path]["post"]
    answer = dict(operation["responses"]["200"]["content"])
    assert answer.pop("text/plain") == {"schema": {"type": "string"}}  # to an empty body
    return operation["requestBody"]["content"], answer


def schemas(description: Description, path: str) -> tuple[Any, Any]:
    request, answer = bodies(description, path)
    assert list(request) == list(answer) == ["application/json"]
    return request["application/json"]["schema"], answer["application/json"]["schema"]


def custom(schema: Callable[[str], Any], name: str = "Custom") -> Runtime:
    """A runtime of a worker whose requests have the schema that `schema` returns for a template of references."""

    def get_forward_json_schema(cls: type[Worker], target: ParseTarget, ref_template: str) -> Any:
        return schema(ref_template) if target is ParseTarget.INPUT else ({}, {})

    names = {"get_forward_json_schema": classmethod(get_forward_json_schema), "__module__": __name__}
    return Runtime(type(name, (Untyped,), names), start_method="fork")  # nobody finds it by its name
