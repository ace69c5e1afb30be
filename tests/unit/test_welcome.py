"""What is said once the service is ready: pure text, made from the plan."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
import pytest

from mosec_cy import SSEWorker, Worker
from mosec_cy._config.options import Options
from mosec_cy._config.plan import make_plan
from mosec_cy._master.welcome import block, place_of, trial
from mosec_cy.mixin import MsgpackMixin
from mosec_cy.runtime import Runtime


class Echo(Worker):
    def forward(self, data: Any) -> Any:
        return data


class Stream(SSEWorker):
    example = {"text": "a"}

    def forward(self, data: Any) -> Any:
        return data


class Packed(MsgpackMixin, Worker):
    example = {"x": 1}

    def forward(self, data: Any) -> Any:
        return data


class Own(Echo):
    example = "decoded"

    def deserialize(self, data: Any) -> Any:
        return bytes(data)


def command(example: Any = None, several: Any = (), batch: int = 1, base: type[Worker] = Echo) -> str:
    worker = type("Model", (base,), {"example": example, "multi_examples": several})
    runtime = Runtime(worker, max_batch_size=batch, start_method="fork")
    return trial(make_plan({"/inference": [runtime]}), "0.0.0.0:8000")


@pytest.mark.parametrize(
    ("address", "url", "curl"),
    [
        ("0.0.0.0:8000", "http://127.0.0.1:8000", ()),
        ("127.0.0.1:80", "http://127.0.0.1:80", ()),
        ("[::]:8000", "http://[::1]:8000", ()),
        ("[fe80::1]:8000", "http://[fe80::1]:8000", ()),
        ("unix:/run/a b.sock", "http://localhost", ("--unix-socket", "/run/a b.sock")),
    ],
)
def test_the_address_to_click(address: str, url: str, curl: tuple[str, ...]) -> None:
    assert place_of(address) == (url, curl)


@pytest.mark.parametrize(
    ("made", "item"),
    [
        ({"example": {"x": 4.0}}, {"x": 4.0}),
        ({"example": 0}, 0),
        ({"example": 'it\'s $HOME `x` "y" \\'}, 'it\'s $HOME `x` "y" \\'),
        ({"example": "日本"}, "日本"),
        ({"example": [{"x": 1}, {"x": 2}], "batch": 8}, {"x": 1}),
        ({"example": 1, "several": [[5, 6], [7]], "batch": 8}, 5),
        ({"example": 1, "several": [5, 6]}, 5),
        ({"example": np.arange(6, dtype=np.float32).reshape(3, 2), "batch": 8}, [0.0, 1.0]),
    ],
)
def test_a_request_made_of_the_example(made: dict[str, Any], item: Any) -> None:
    words = shlex.split(command(**made))  # what a shell makes of it
    assert words[:2] == ["curl", "-d"]
    assert json.loads(words[2]) == item
    assert words[3:] == ["http://127.0.0.1:8000/inference"]


class Hostile:
    """A question to it fails."""

    def __len__(self) -> int:
        raise ArithmeticError


FILE = "curl --data-binary @FILE http://127.0.0.1:8000/inference"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, f"{FILE}  # JSON; an `example` of Model would be shown here"),
        ({"base": Own, "example": "decoded"}, FILE),
        ({"base": Packed, "example": {"x": 1}}, f"{FILE}  # application/msgpack"),
        ({"example": {"image": "a" * 500}}, f"""{FILE}  # JSON like {'{"image":"' + "a" * 30}…"""),
        ({"example": "\x07" * 3000}, None),
        ({"example": bytes(1 << 20)}, f"{FILE}  # JSON"),
        ({"example": np.zeros(1 << 22)}, f"{FILE}  # JSON"),
        ({"example": object()}, f"{FILE}  # JSON"),
        ({"example": {"x": 1}, "batch": 8}, f"{FILE}  # JSON; an `example` of Model would be shown here"),
        ({"example": [], "batch": 8}, f"{FILE}  # JSON; an `example` of Model would be shown here"),
        ({"several": Hostile()}, f"{FILE}  # JSON; an `example` of Model would be shown here"),
        ({"example": property(lambda self: 1)}, f"{FILE}  # JSON"),
        ({"base": Stream, "example": {"text": "a"}}, """curl -N -d '{"text":"a"}' http://127.0.0.1:8000/inference"""),
    ],
)
def test_where_no_example_can_be_shown(made: dict[str, Any], expected: str | None) -> None:
    shown = command(**made)
    assert shown.isprintable()
    if expected is not None:
        assert shown == expected


def test_the_first_route_that_has_an_example_is_tried() -> None:
    plan = make_plan({"/a": [Runtime(Echo)], "/it's": [Runtime(Stream)]})
    assert shlex.split(trial(plan, "unix:/run/s")) == [
        "curl",
        "--unix-socket",
        "/run/s",
        "-N",
        "-d",
        '{"text":"a"}',
        "http://localhost/it's",
    ]


def test_all_routes_with_their_stages() -> None:
    shared = Runtime(Echo, num=2)
    stages = {
        "/a": [shared],
        "/longer": [shared, Runtime(Stream, max_batch_size=4), Runtime(Own, max_batch_size=8, max_wait_time=2)],
    }
    lines = block(make_plan(stages), Options(), "0.0.0.0:8000").splitlines()
    assert lines[:4] == [
        "http://127.0.0.1:8000",
        "",
        "  POST /a                 Echo × 2",
        "  POST /longer            Echo × 2 → Stream × 1 (batches of up to 4) → Own × 1 (batches of 8 in 2 ms)",
    ]
    assert [line.split()[:2] for line in lines if "GET" in line] == [
        ["GET", "/openapi/swagger/"],
        ["GET", "/metrics"],
        ["GET", "/health/ready"],
    ]


def test_many_routes_are_cut_short() -> None:
    lines = block(make_plan({f"/{n}": [Runtime(Echo)] for n in range(100)}), Options(), "unix:/s").splitlines()
    assert lines[0] == "unix:/s"
    assert sum("POST" in line for line in lines) == 20
    assert "  and 80 more" in lines
