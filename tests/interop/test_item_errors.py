"""One item that fails does so alone, wherever it fails; the others of its batch are served."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from tests.service import Serve, Service

SERVICE = Path(__file__).with_name("item_error_service.py")
DIED = (500, "inference internal error: the worker process died")
INTERNAL = (500, "inference internal error")
BAD = (400, "bad request: c")
UNDECODED = (400, "decoding error: d")
INVALID = (422, "request validation error: v")
UNNAMED = (422, "request validation error: request validation error")
ANSWERS = {
    "client": BAD,
    "decoding": UNDECODED,
    "validation": INVALID,
    "value": INTERNAL,
    "cancelled": INTERNAL,
    "outside": INTERNAL,
    "unprintable": INTERNAL,
    "unspeakable": INTERNAL,
    "class": UNNAMED,
    "class without arguments": INTERNAL,
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(SERVICE, directory=tmp_path_factory.mktemp("failing")) as service:
        yield service.wait_ready()


def post_all(service: Service, path: str, bodies: Sequence[bytes]) -> list[httpx.Response]:
    """All at once, so that they are one batch."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool, service.client() as client:
        return list(pool.map(lambda body: client.post(path, content=body), bodies))


def items(*asked: dict[str, Any]) -> list[bytes]:
    return [json.dumps({"id": number, **item}).encode() for number, item in enumerate(asked)]


def told(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.text


def sizes(response: httpx.Response, number: int) -> list[int]:
    """Of the batches that it was in."""
    assert response.status_code == 200, response.text
    assert response.json()["id"] == number
    return response.json()["sizes"]


@pytest.mark.parametrize("how", ANSWERS)
def test_an_item_that_cannot_be_decoded(failing: Service, how: str) -> None:
    first, bad, *others = post_all(failing, "/batch", items({}, {"at": "deserialize", "how": how}, {}, {}))
    assert told(bad) == ANSWERS[how]
    assert [sizes(first, 0), *(sizes(other, number) for number, other in enumerate(others, 2))] == [[3]] * 3


@pytest.mark.parametrize("step", ["returned", "serialize"])
@pytest.mark.parametrize("how", ANSWERS)
def test_an_item_with_an_error_for_a_result(failing: Service, how: str, step: str) -> None:
    *others, bad = post_all(failing, "/batch", items({}, {}, {}, {"at": step, "how": how}))
    assert told(bad) == ANSWERS[how]
    assert [sizes(other, number) for number, other in enumerate(others)] == [[4]] * 3


def test_each_its_own(failing: Service) -> None:
    asked = [{"at": "deserialize", "how": "client"}, {"at": "returned", "how": "validation"}]
    asked += [{"at": "serialize", "how": "value"}, {"at": "no bytes"}]
    answers = post_all(failing, "/batch", items(*asked))
    assert [told(answer) for answer in answers] == [BAD, INVALID, INTERNAL, INTERNAL]
    answers = post_all(failing, "/batch", items(*[{"at": "deserialize", "how": "decoding"}] * 4))
    assert [told(answer) for answer in answers] == [UNDECODED] * 4


def test_bytes_that_are_no_json(failing: Service) -> None:
    bad, *others = post_all(failing, "/batch", [b"{", *items({}, {}, {})])
    assert bad.status_code == 400
    assert bad.text.startswith("decoding error: ")
    assert [sizes(other, number) for number, other in enumerate(others)] == [[3]] * 3


@pytest.mark.parametrize(
    ("step", "seen"), [("deserialize", [3, 3]), ("serialize_ipc", [4, 3]), ("returned", [4, 3]), ("serialize", [4, 4])]
)
def test_between_stages_and_at_both_ends(failing: Service, step: str, seen: list[int]) -> None:
    """Who has failed goes no further; the size of the next stage's batch says so."""
    bad, *others = post_all(failing, "/pipeline", items({"at": step, "how": "validation"}, {}, {}, {}))
    assert told(bad) == INVALID
    assert [sizes(other, number) for number, other in enumerate(others, 1)] == [seen] * 3


def test_what_the_next_stage_cannot_decode(failing: Service) -> None:
    others = [{}, {}, {}]
    bad, *answers = post_all(failing, "/pipeline", items({"at": "deserialize_ipc", "how": "outside"}, *others))
    assert told(bad) == INTERNAL
    assert [sizes(answer, number) for number, answer in enumerate(answers, 1)] == [[4, 3]] * 3


def test_built_in_codecs(failing: Service) -> None:
    answers = post_all(failing, "/plain", [b'"no pickle"', b'"no JSON"', b'"a type"', b'"good"'])
    assert told(answers[0]) == INTERNAL
    assert answers[1].status_code == answers[2].status_code == 500
    assert answers[1].text.startswith("encoding error: ")
    assert answers[2].text.startswith("encoding error: ")  # a class that is no error is a result
    assert told(answers[3]) == (200, '"good"')


@pytest.mark.parametrize("how", ["value", "cancelled", "outside"])
def test_forward_that_raises_fails_its_batch_and_lives_on(failing: Service, how: str) -> None:
    before = post_all(failing, "/batch", items({}, {}, {}, {}))[0].json()["pids"]
    answers = post_all(failing, "/batch", items({}, {"at": "forward", "how": how}, {}, {}))
    assert [told(answer) for answer in answers] == [INTERNAL] * 4
    assert post_all(failing, "/batch", items({}, {}, {}, {}))[0].json()["pids"] == before


@pytest.mark.parametrize("step", ["deserialize", "forward", "returned", "serialize"])
def test_one_by_one(failing: Service, step: str) -> None:
    with failing.client() as client:
        pids = client.post("/single", json={}).json()["pids"]
        for how, answer in ANSWERS.items():
            assert told(client.post("/single", json={"at": step, "how": how})) == answer
        assert client.post("/single", json={}).json()["pids"] == pids


def test_a_long_text_reaches_the_client_whole_and_the_log_in_part(failing: Service) -> None:
    """What an error quotes is mostly the request: clients shall not fill the log by the megabyte."""
    with failing.client() as client:
        answer = client.post("/single", json={"at": "forward", "how": "long"})
    assert told(answer) == (422, "request validation error: " + "long " * 20_000)
    failing.wait_output("request validation error: long")
    (logged,) = (message for message in failing.messages if " long" in message)
    assert len(logged) < 1100


@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_what_ends_a_program_is_only_an_error_when_it_is_returned(failing: Service, how: str) -> None:
    before = post_all(failing, "/batch", items({}, {}, {}, {}))[0].json()["pids"]
    bad, *others = post_all(failing, "/batch", items({"at": "returned", "how": how}, {}, {}, {}))
    assert told(bad) == INTERNAL
    assert [other.json()["pids"] for other in others] == [before] * 3


@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_what_ends_a_program_ends_the_worker(failing: Service, how: str) -> None:
    """Its batch is told at once, and another process takes its place."""
    before = post_all(failing, "/batch", items({}, {}, {}, {}))[0].json()["pids"]
    answers = post_all(failing, "/batch", items({"at": "deserialize", "how": how}, {}, {}, {}))
    assert [told(answer) for answer in answers] == [DIED] * 4
    again = post_all(failing, "/batch", items({}, {}, {}, {}))
    assert [sizes(answer, number) for number, answer in enumerate(again)] == [[4]] * 4
    assert again[0].json()["pids"] != before


@pytest.mark.parametrize(("path", "encode"), [("/json", lambda x: json.dumps(x).encode()), ("/msgpack", msgpack.packb)])
def test_typed_requests(failing: Service, path: str, encode: Any) -> None:
    answers = post_all(failing, path, [encode({"x": 1}), encode({"x": "one"}), encode({"y": 1}), encode({"x": 2})])
    assert [answer.status_code for answer in answers] == [200, 422, 422, 200]
    assert all(answer.text.startswith("request validation error: ") for answer in answers[1:3])
    answers = post_all(failing, path, [encode({"x": 1}), b"\xc1{", encode({"x": 3}), encode({"x": 2})])
    assert [answer.status_code for answer in answers] == [200, 400, 200, 200]


def test_streams(failing: Service) -> None:
    """An error in an item's place ends that stream with it; the others end as ever."""
    for shape in ("list", "tuple"):
        asked = [{}, {"how": "validation"}, {"how": "class"}, {"how": "outside"}]
        answers = post_all(failing, "/stream", items(*({**item, "shape": shape} for item in asked)))
        ends = [
            "",
            event("422: Unprocessable Content: request validation error: v"),
            event("422: Unprocessable Content: request validation error: request validation error"),
            event("500: Internal Server Error: inference internal error"),
        ]
        for number, (answer, end) in enumerate(zip(answers, ends, strict=True)):
            assert told(answer) == (200, f"data: hello {number}\n\n{end}")


def test_single_streams(failing: Service) -> None:
    with failing.client() as client:
        answer = client.post("/stream/single", json={"how": "client"})
        assert told(answer) == (200, "data: hello\n\n" + event("400: Bad Request: bad request: c"))
        # A list is no error: what a stream's `forward` returns is ignored.
        assert told(client.post("/stream/single", json={})) == (200, "data: hello\n\n")


def event(text: str) -> str:
    return f"event: error\ndata: SSE inference error: {text}\n\n"


EXAMPLES = """
    import asyncio, sys
    from mosec_cy import Server, SSEWorker, ValidationError, Worker

    class First(Worker):
        multi_examples = [["good"], ["good", sys.argv[1]]]

        def forward(self, data):
            if "raised" in data:
                raise asyncio.CancelledError
            return [ValidationError("no such thing") if item == "returned" else item for item in data]

    class Last(SSEWorker):
        def forward(self, data):
            return [ValidationError("no such stream") if item == "stream" else None for item in data]

    if __name__ == "__main__":
        server = Server()
        server.append_worker(First, max_batch_size=2, max_wait_time=1)
        server.append_worker(Last, max_batch_size=2, max_wait_time=1)
        server.run()
"""


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_warm_up(serve: Serve, how: str) -> None:
    """The service starts, whatever its examples come to."""
    service = serve(EXAMPLES, how).wait_ready()
    service.wait_output("warm-up failed" if how == "raised" else "> ready")
    with service.client() as client:
        assert told(client.post("/inference", json="good")) == (200, "")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("returned", "ValidationError: no such thing"),
        ("stream", "ValidationError: no such stream"),
        ("good", ""),
    ],
)
def test_dry_run(serve: Serve, how: str, said: str) -> None:
    """An example that would be answered with an error fails it, and the traceback says which."""
    service = serve(EXAMPLES, how, "--dry-run")
    assert service.wait_end() == (1 if said else 0)
    assert said in service.output
