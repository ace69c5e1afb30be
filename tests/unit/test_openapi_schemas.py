"""The schemas in a service's description: of annotations, of the workers' own making, and of neither."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosec_cy import Runtime, Worker, log
from mosec_cy._config.options import Options
from mosec_cy._config.plan import make_plan
from mosec_cy._web.openapi import describe
from tests.unit.descriptions import Batched, Description, Typed, custom, describe_runtimes, schemas

Logged = Callable[[], list[dict[str, Any]]]


class Arrays(Worker):
    def forward(self, data: np.ndarray) -> np.ndarray | int:  # type: ignore[type-arg]
        return data


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Logged:
    """The records of the log, once they are written."""
    log.configure("info")
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


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
        (lambda _: {}, "must return (schema, components), two dicts, but returned {}"),
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


NAMES = st.sampled_from("ABC")
GRAPHS = st.dictionaries(NAMES, st.sets(NAMES), min_size=1)  # of components, each with those that its fields refer to


def of_graph(template: str, graph: Mapping[str, set[str]]) -> tuple[Description, Description]:
    def field(name: str) -> Description:
        return {"$ref": template.format(name=name)} if name in graph else {"type": "string"}

    components = {name: {"properties": {to: field(to) for to in sorted(others)}} for name, others in graph.items()}
    return {"properties": {name: field(name) for name in graph}}, components


def unfolded(schema: Description, components: Description, depth: int = 5) -> Description:
    """The schema with all references replaced by what they lead to."""
    if "$ref" not in schema:
        fields = schema.get("properties", {})
        return {name: unfolded(field, components, depth) for name, field in fields.items()}
    name = schema["$ref"].rpartition("/")[2]
    return unfolded(components[name], components, depth - 1) if depth else {}


@given(graphs=st.lists(GRAPHS, min_size=1, max_size=4))
def test_references_of_each_worker_lead_to_what_it_said(graphs: list[dict[str, set[str]]]) -> None:
    workers = [custom(partial(of_graph, graph=graph)) for graph in graphs]
    description = describe(make_plan({f"/{place}": [worker] for place, worker in enumerate(workers)}), Options())
    for place, graph in enumerate(graphs):
        request = description["paths"][f"/{place}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        said = unfolded(*of_graph("{name}", graph))
        assert unfolded(request, description["components"]["schemas"]) == said
