"""The OpenAPI description of a service, as it follows from the plan."""

import json
from typing import Any

import pytest

from mosec_cy import Runtime, SSEWorker, Worker
from mosec_cy._codecs.annotations import ParseTarget
from mosec_cy._config.options import Options
from mosec_cy._config.plan import make_plan
from mosec_cy._web.openapi import OpenAPI
from mosec_cy.mixin import MsgpackMixin
from tests.unit.descriptions import (
    Answer,
    Batched,
    Description,
    Typed,
    Untyped,
    bodies,
    custom,
    describe_runtimes,
    schemas,
)


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


def test_one_class_with_batches_and_without() -> None:
    description = describe_runtimes({"/many": [Runtime(Batched, max_batch_size=4)], "/one": [Runtime(Batched)]})
    item = {"$ref": "#/components/schemas/Request"}
    assert schemas(description, "/many")[0] == item
    assert schemas(description, "/one")[0] == {"type": "array", "items": item}


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


def test_clients_learn_of_deadlines_and_of_when_to_come_back() -> None:
    description = describe_runtimes({"/inference": [Runtime(Typed)]})
    assert description["paths"]["/inference"]["post"]["parameters"] == [{"$ref": "#/components/parameters/Timeout"}]
    parameter = description["components"]["parameters"]["Timeout"]
    assert (parameter["name"], parameter["in"]) == ("x-request-timeout-ms", "header")
    assert parameter["schema"] == {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}
    assert "required" not in parameter
    assert str(Options().timeout) in parameter["description"]
    responses = description["components"]["responses"]
    with_retry = {name for name, response in responses.items() if "Retry-After" in response.get("headers", {})}
    assert with_retry == {"TooMany", "Unavailable"}


@pytest.mark.parametrize(("root", "server"), [("", ".."), ("/", ".."), ("/a/b", "/a/b"), ("/a/", "/a")])
def test_where_the_service_is(root: str, server: str) -> None:
    description = describe_runtimes({"/inference": [Runtime(Untyped)]}, root_path=root)
    assert description["servers"] == [{"url": server}]


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


class Streams(Worker):
    resp_mime_type = "text/event-stream; charset=utf-8"

    def forward(self, data: int) -> None:
        pass


class StreamsByMsgpack(MsgpackMixin, SSEWorker):
    def forward(self, data: int) -> None:
        pass


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
            {"text/event-stream; charset=utf-8": {}},
        ),
        (StreamsByMsgpack, {"application/msgpack": {"type": "integer"}}, {"text/event-stream": {}}),
    ],
)
def test_an_own_codec_is_not_described_by_annotations(
    worker: type[Worker], request_body: Description, answer: Description
) -> None:
    description = describe_runtimes({"/inference": [Runtime(worker)]})
    for content, expected in zip(bodies(description, "/inference"), (request_body, answer)):
        assert {name: media["schema"] for name, media in content.items()} == expected


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
