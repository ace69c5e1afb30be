"""The OpenAPI description of a service, as it follows from the plan."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import openapi_spec_validator
import pytest

from mosec_cy import Runtime, Worker, log
from mosec_cy.forward_types import ParseTarget
from mosec_cy.openapi import OpenAPI, describe
from mosec_cy.options import Options
from mosec_cy.plan import make_plan

Description = dict[str, Any]
Logged = Callable[[], list[dict[str, Any]]]


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


class Arrays(Worker):
    def forward(self, data: np.ndarray) -> np.ndarray | int:  # type: ignore[type-arg]
        return data


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Logged:
    """The records of the log, once they are written."""
    log.configure("info")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def describe_runtimes(routes: Mapping[str, list[Runtime]], **options: Any) -> Description:
    """The valid description of these routes."""
    description = describe(make_plan(routes), Options(**options))
    openapi_spec_validator.validate(json.loads(json.dumps(description)))
    assert description["openapi"].startswith("3.1.")
    return description


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


def test_without_annotations_anything_is_admitted() -> None:
    description = describe_runtimes({"/inference": [Runtime(Untyped)]})
    assert schemas(description, "/inference") == ({}, {})
    assert description["components"]["schemas"] == {}


def test_annotations_are_the_schemas() -> None:
    description = describe_runtimes({"/inference": [Runtime(Typed)]})
    request, answer = schemas(description, "/inference")
    assert request == {"$ref": "#/components/schemas/Request"}
    assert answer == {"$ref": "#/components/schemas/Answer"}
    assert description["components"]["schemas"]["Request"] == {
        "title": "Request",
        "type": "object",
        "properties": {"text": {"type": "string"}, "limit": {"type": "integer", "default": 10}},
        "required": ["text"],
    }
    assert description["components"]["schemas"]["Answer"]["properties"]["words"]["items"] == {"type": "string"}


@pytest.mark.parametrize(
    ("worker", "size", "request_schema"),
    [
        (Batched, 4, {"$ref": "#/components/schemas/Request"}),
        (Batched, 1, {"type": "array", "items": {"$ref": "#/components/schemas/Request"}}),
        (Typed, 1, {"$ref": "#/components/schemas/Request"}),
    ],
)
def test_lists_are_unwrapped_only_where_batches_are_formed(
    worker: type[Worker], size: int, request_schema: Description
) -> None:
    description = describe_runtimes({"/inference": [Runtime(worker, max_batch_size=size)]})
    assert schemas(description, "/inference")[0] == request_schema


def test_a_pipeline_takes_what_its_first_stage_takes_and_answers_as_its_last() -> None:
    class Count(Worker):
        """Counts words."""

        resp_mime_type = "text/x-count"

        def forward(self, data: Answer) -> int:
            return len(data.words)

    description = describe_runtimes({"/count": [Runtime(Typed), Runtime(Count, start_method="fork")]})
    request, answer = bodies(description, "/count")
    assert request == {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}}
    assert answer == {"text/x-count": {"schema": {"type": "integer"}}}
    operation = description["paths"]["/count"]["post"]
    assert operation["summary"] == "Typed → Count"
    assert operation["description"] == (
        "**Typed**\n\nSplits texts.\n\nAt spaces.\n\nAnd nowhere else.\n\n**Count**\n\nCounts words."
    )


def test_a_shared_runtime_is_described_on_each_of_its_routes() -> None:
    shared = Runtime(Typed)
    description = describe_runtimes({"/a": [shared], "/b": [shared, Runtime(Untyped)]})
    assert schemas(description, "/a")[0] == schemas(description, "/b")[0] == {"$ref": "#/components/schemas/Request"}
    assert schemas(description, "/b")[1] == {}
    assert set(description["components"]["schemas"]) == {"Request", "Answer"}


def test_names_of_operations_are_unique() -> None:
    paths = ["/v1/a-b", "/v1/a_b", "/v1/a.b", "/v1/a_b_2", "/Ü".encode().hex()]
    paths[-1] = "/" + paths[-1]
    description = describe_runtimes({path: [Runtime(Untyped)] for path in paths})
    operations = [operation for item in description["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names) == len(paths) + 2
    assert names[:4] == ["post_v1_a_b", "post_v1_a_b_2", "post_v1_a_b_3", "post_v1_a_b_2_2"]
    assert {tag for operation in operations for tag in operation["tags"]} == {
        tag["name"] for tag in description["tags"]
    }


def test_a_path_that_openapi_takes_for_a_template_is_left_out() -> None:
    description = describe_runtimes({"/{id}": [Runtime(Untyped)], "/id": [Runtime(Untyped)]})
    assert list(description["paths"]) == ["/id", "/", "/metrics"]


@pytest.mark.parametrize("compression", [False, True])
def test_errors_are_texts(compression: bool) -> None:
    # The option itself is checked where options are read.
    description = describe_runtimes({"/inference": [Runtime(Untyped)]}, compression=compression)
    responses = description["paths"]["/inference"]["post"]["responses"]
    expected = {"200", "400", "408", "413", "422", "429", "500", "503"} | ({"415"} if compression else set())
    assert set(responses) == expected
    shared = description["components"]["responses"]
    for status in expected - {"200"}:
        response = shared[responses[status]["$ref"].removeprefix("#/components/responses/")]
        assert response["content"] == {"text/plain": {"schema": {"type": "string"}}}


def test_the_servers_own_pages() -> None:
    description = describe_runtimes({"/inference": [Runtime(Untyped)]})
    for path in ("/", "/metrics"):
        answer = description["paths"][path]["get"]["responses"]["200"]
        assert answer["content"] == {"text/plain": {"schema": {"type": "string"}}}


# ---- media types ------------------------------------------------------------------------------------


class OwnRequests(Worker):
    def deserialize(self, data: Any) -> Any:
        return bytes(data)

    def forward(self, data: bytes) -> int:
        return len(data)


class OwnAnswers(Worker):
    resp_mime_type = "image/png"

    def forward(self, data: int) -> bytes:
        return bytes(data)

    def serialize(self, data: Any) -> Any:
        return data


class SaysItsType(OwnRequests):
    req_mime_type = "image/jpeg"


class SaysItsSchema(OwnRequests):
    @classmethod
    def get_forward_json_schema(cls, target: ParseTarget, ref_template: str) -> tuple[Description, Description]:
        return {"type": "array"}, {}


class Streams(OwnAnswers):
    resp_mime_type = "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    ("worker", "request_body", "answer"),
    [
        (OwnRequests, {"application/octet-stream": {}}, {"application/json": {"type": "integer"}}),
        (SaysItsType, {"image/jpeg": {}}, {"application/json": {"type": "integer"}}),
        (SaysItsSchema, {"application/json": {"type": "array"}}, {"application/json": {"type": "array"}}),
        (OwnAnswers, {"application/json": {"type": "integer"}}, {"image/png": {}}),
        (
            Streams,
            {"application/json": {"type": "integer"}},
            {"text/event-stream; charset=utf-8": {"type": "string"}},
        ),
    ],
)
def test_an_own_codec_is_not_described_by_annotations(
    worker: type[Worker], request_body: Description, answer: Description
) -> None:
    description = describe_runtimes({"/inference": [Runtime(worker)]})
    for content, expected in zip(bodies(description, "/inference"), (request_body, answer)):
        assert {name: media["schema"] for name, media in content.items()} == expected


# ---- schemas of the workers' own ---------------------------------------------------------------------


def custom(schema: Callable[[str], Any], name: str = "Custom") -> Runtime:
    def get_forward_json_schema(cls: type[Worker], target: ParseTarget, ref_template: str) -> Any:
        return schema(ref_template) if target is ParseTarget.INPUT else ({}, {})

    names = {"get_forward_json_schema": classmethod(get_forward_json_schema), "__module__": __name__}
    return Runtime(type(name, (Untyped,), names))


def named(properties: Description, **others: Description) -> Callable[[str], Any]:
    """A schema that refers to a component `Item`."""
    return lambda template: ({"$ref": template.format(name="Item")}, {"Item": {"properties": properties}, **others})


def test_an_own_schema() -> None:
    description = describe_runtimes({"/a": [custom(lambda _: ({"type": "string", "maxLength": 3}, {}))]})
    assert schemas(description, "/a") == ({"type": "string", "maxLength": 3}, {})


def test_different_components_of_one_name_are_kept_apart_and_equal_ones_shared() -> None:
    number, text = {"x": {"type": "integer"}}, {"x": {"type": "string"}}
    runtimes = [custom(named(number)), custom(named(text)), custom(named(number), "Other"), custom(named(text))]
    description = describe_runtimes({f"/{place}": [runtime] for place, runtime in enumerate(runtimes)})
    references = [schemas(description, f"/{place}")[0]["$ref"].rpartition("/")[2] for place in range(4)]
    assert references == ["Item", "Item_2", "Item", "Item_2"]
    assert description["components"]["schemas"] == {"Item": {"properties": number}, "Item_2": {"properties": text}}


def test_what_refers_to_a_component_that_got_another_name_follows_it() -> None:
    def tree(leaf: str) -> Callable[[str], Any]:
        def schema(template: str) -> Any:
            node = {"properties": {"next": {"$ref": template.format(name="Node")}}, "const": 1 if leaf == "a" else True}
            mapping = {"node": template.format(name="Node")}
            union = {"anyOf": [{"$ref": template.format(name="Node")}], "discriminator": {"mapping": mapping}}
            return {"items": union}, {"Node": node}

        return schema

    description = describe_runtimes({"/a": [custom(tree("a"))], "/b": [custom(tree("b"))]})
    for path, place in (("/a", "#/components/schemas/Node"), ("/b", "#/components/schemas/Node_2")):
        union = schemas(description, path)[0]["items"]
        assert union == {"anyOf": [{"$ref": place}], "discriminator": {"mapping": {"node": place}}}
        node = description["components"]["schemas"][place.rpartition("/")[2]]
        assert node["properties"]["next"] == {"$ref": place}


def test_types_of_one_name_in_two_workers() -> None:
    class First(Worker):
        def forward(self, data: Any) -> int:
            return 0

    First.forward.__annotations__["data"] = msgspec.defstruct("Request", [("x", int)])
    description = describe_runtimes({"/a": [Runtime(First, start_method="fork")], "/b": [Runtime(Typed)]})
    assert schemas(description, "/a")[0] == {"$ref": "#/components/schemas/Request"}
    assert schemas(description, "/b")[0] == {"$ref": "#/components/schemas/Request_2"}
    properties = {name: set(c["properties"]) for name, c in description["components"]["schemas"].items()}
    assert properties == {"Request": {"x"}, "Request_2": {"text", "limit"}, "Answer": {"words"}}


def failing(_: str) -> Any:
    raise RuntimeError("no schema today")


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (failing, "no schema today"),
        (lambda _: {}, "must return (schema, components), two dicts, not {}"),
        (lambda _: ({}, []), "must return (schema, components), two dicts"),
        (lambda _: ({}, {"a/b": {}}), "not 'a/b': {}"),
        (lambda _: ({}, {1: {}}), "not 1: {}"),
        (lambda _: ({}, {"a": 1}), "not 'a': 1"),
        (lambda _: ({"default": object()}, {}), "object"),
        (lambda template: ({"$ref": template.format(name="X")}, {}), "'#/components/schemas/X' refers to none of the"),
        (lambda template: ({"a": [{"$ref": template.format(name="X")}]}, {"Y": {}}), "none of the components: Y"),
    ],
)
def test_a_worker_that_cannot_say_costs_only_its_own_schema(
    schema: Callable[[str], Any], complaint: str, logged: Logged
) -> None:
    runtime = custom(schema, "Silent")
    description = describe_runtimes({"/a": [runtime], "/b": [runtime], "/c": [Runtime(Typed)]})
    assert schemas(description, "/a") == schemas(description, "/b") == ({}, {})
    assert schemas(description, "/c")[0] == {"$ref": "#/components/schemas/Request"}
    (record,) = logged()
    assert record["level"] == "WARNING"
    assert record["fields"]["message"].startswith("no schema of what Silent.forward takes")
    assert complaint in record["fields"]["exc_info"].splitlines()[-1]


def test_a_batch_whose_annotation_is_no_list_is_told_of(logged: Logged) -> None:
    description = describe_runtimes({"/a": [Runtime(Typed, max_batch_size=2)]})
    assert schemas(description, "/a") == ({}, {})
    records = logged()
    assert ["takes" in record["fields"]["message"] for record in records] == [True, False]
    assert all("annotate it with list[...]" in record["fields"]["exc_info"] for record in records)


def test_what_json_schema_cannot_express_may_be_anything(logged: Logged) -> None:
    class Features(msgspec.Struct):
        name: str
        values: np.ndarray  # type: ignore[type-arg]

    class Partly(Worker):
        def forward(self, data: Features) -> Any:
            return data

    description = describe_runtimes({"/a": [Runtime(Arrays)], "/b": [Runtime(Partly, start_method="fork")]})
    assert schemas(description, "/a") == ({"title": "ndarray"}, {})
    properties = description["components"]["schemas"]["Features"]["properties"]
    assert properties == {"name": {"type": "string"}, "values": {"title": "ndarray"}}
    assert logged() == []


def test_the_workers_own_hook_for_subclasses_does_not_hear_of_the_description() -> None:
    heard: list[type] = []

    class Registers(Batched):
        def __init_subclass__(cls, **keywords: Any) -> None:
            heard.append(cls)

    description = describe_runtimes({"/a": [Runtime(Registers, max_batch_size=2, start_method="fork")]})
    assert schemas(description, "/a")[0] == {"$ref": "#/components/schemas/Request"}
    assert heard == []


# ---- what is served -----------------------------------------------------------------------------------


def test_the_description_is_made_once_and_on_request() -> None:
    asked: list[str] = []

    def counted(template: str) -> Any:
        asked.append(template)
        return {}, {}

    pages = OpenAPI(make_plan({"/a": [custom(counted)]}), Options())
    assert asked == []
    first, second = pages.resource("/openapi/metadata.json"), pages.resource("/openapi/metadata.json")
    assert first is not None and second is not None
    assert first.body is second.body
    assert first.content_type == "application/json"
    assert json.loads(first.body)["paths"]["/a"]
    assert asked == ["#/components/schemas/{name}"]


@pytest.mark.parametrize(
    "path", ["/openapi", "/openapi/", "/openapi/metadata.json/", "/openapi/metadata", "/openapi/swagge"]
)
def test_elsewhere_is_nothing(path: str) -> None:
    assert OpenAPI(make_plan({"/a": [Runtime(Untyped)]}), Options()).resource(path) is None
