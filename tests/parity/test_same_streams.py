"""Streams of one program under Mosec and under mosec_cy: the same events, but for what is listed as different."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from tests.parity.peer import ERRORS, TEXT, Pair, running

PROGRAM = """
    import time
    from PACKAGE import (
        ClientError, DecodingError, EncodingError, Server, ServerError, SSEWorker, ValidationError, Worker,
    )
    from PACKAGE.errors import MosecError, MosecTimeoutError

    ERRORS = {
        cls.__name__: cls
        for cls in (ClientError, DecodingError, EncodingError, ServerError, ValidationError,
                    MosecError, MosecTimeoutError, ValueError)
    }

    def fail(data):
        if "error" in data:
            raise ERRORS[data["error"]](*data["arguments"])

    class Before(Worker):
        def forward(self, data):
            if data.get("early"):
                fail(data)
            return data

    class Stream(SSEWorker):
        def forward(self, data):
            for text in data.get("texts", []):
                self.send_stream_event(text)
            if "index" in data:
                self.send_stream_event("elsewhere", data["index"])
            time.sleep(data.get("seconds", 0))
            fail(data)
            return {"ignored": True}

    class Batch(SSEWorker):
        def forward(self, data):
            for number in range(3):
                for index, item in enumerate(data):
                    self.send_stream_event(f"{item['name']}:{number}", index=index)
            for item in data:
                fail(item)
            if not any(item.get("returns nothing") for item in data):
                return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Before)
        server.append_worker(Stream)
        server.append_worker(Stream, route="/alone", timeout=10)
        server.append_worker(Stream, route="/wrong-index")
        server.append_worker(Stream, route="/short", timeout=1)
        server.append_worker(Batch, max_batch_size=4, max_wait_time=2000, route="/batch")
        server.run()
"""

EVENT_STREAM = "text/event-stream"
Events = list[tuple[str, str]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(PROGRAM, tmp_path_factory) as pair:
        yield pair


def read(response: httpx.Response) -> Events:
    """(name, data) of each event of a stream."""
    assert (response.status_code, response.headers["content-type"]) == (200, EVENT_STREAM), response.text
    return [(event.event, event.data) for event in EventSource(response).iter_sse()]


def events(pair: Pair, path: str, *bodies: Any) -> list[tuple[Events, Events]]:
    """For each of the bodies, asked at once, what both services send: theirs, ours."""
    with ThreadPoolExecutor(2 * len(bodies)) as pool:
        asked = [[pool.submit(client.post, path, json=body) for client in (pair.theirs, pair.ours)] for body in bodies]
        return [(read(theirs.result()), read(ours.result())) for theirs, ours in asked]


def message(*texts: str) -> Events:
    return [("message", text) for text in texts]


def error(text: str) -> Events:
    return [("error", f"SSE inference error: {text}")]


@pytest.mark.parametrize("path", ["/inference", "/alone"])
@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["a"],
        ["a", " lead", "trail "],
        ["b\nc", "end\n", "\n"],
        ["data: x\n\nevent: y", ":"],
        ["\u00e4 \u20ac"],
        ["a\rb"],
    ],
    ids=repr,
)
def test_events(pair: Pair, path: str, texts: list[str]) -> None:
    [(theirs, ours)] = events(pair, path, {"texts": texts})
    assert ours == theirs == message(*(text.replace("\r", "\n") for text in texts))


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("early", [True, False], ids=["before", "within"])
def test_errors(pair: Pair, name: str, early: bool) -> None:
    for arguments in ([], ["why"], ["one\ntwo"], ["a", "b"]):
        body = {"texts": ["a"], "early": early, "error": name, "arguments": arguments}
        [(theirs, ours)] = events(pair, "/inference", body)
        assert ours == theirs
        assert len(ours) == 2 - early and ours[-1][0] == "error"


@pytest.mark.parametrize("failing", [False, True])
def test_batches(pair: Pair, failing: bool) -> None:
    bodies: list[dict[str, Any]] = [{"name": name} for name in "abcd"]
    if failing:
        bodies[2].update(error="ValidationError", arguments=["all of you"])
    for body, (theirs, ours) in zip(bodies, events(pair, "/batch", *bodies), strict=True):
        failed = error("422: Unprocessable Content: request validation error: all of you") if failing else []
        assert ours == theirs == message(*(f"{body['name']}:{number}" for number in range(3))) + failed


def test_what_is_no_stream(pair: Pair) -> None:
    theirs, ours = pair.ask("GET", "/inference")
    assert ours.status == theirs.status == 405
    theirs, ours = pair.ask("POST", "/inference", content=bytes(11 << 20))
    assert (ours.status, ours.body) == (theirs.status, theirs.body) == (413, b"request body is too large")


# ---- on purpose different; both sides are stated ---------------------------------------------------


def test_type_of_no_data_differs(pair: Pair) -> None:
    theirs, ours = pair.ask("POST", "/inference")
    assert (ours.status, ours.body) == (theirs.status, theirs.body) == (200, b"no data provided")
    assert (theirs.content_type, ours.content_type) == ("application/octet-stream", TEXT)


def test_a_decoding_error_says_more(pair: Pair) -> None:
    theirs, ours = (read(client.post("/inference", content=b"{")) for client in (pair.theirs, pair.ours))
    assert theirs == error("400: Bad Request: decoding error: decoding error")
    (event,) = ours
    assert event[0] == "error"
    assert event[1].startswith("SSE inference error: 400: Bad Request: decoding error: the body is not JSON, at byte 1")


@pytest.mark.parametrize(
    ("text", "theirs", "ours"),
    [
        ("a\r\nb", message("a\n\nb"), message("a\nb")),  # one line break, not two
        ("", [], message("")),  # what is sent arrives, if empty
    ],
)
def test_text_differs(pair: Pair, text: str, theirs: Events, ours: Events) -> None:
    assert events(pair, "/alone", {"texts": [text]}) == [(theirs, ours)]


def test_the_end_by_time_outs_differs(pair: Pair) -> None:
    """Mosec's stream ends without a word at the service's time-out; with the stage's it names the frame."""
    failed = error("408: Request Timeout: inference timeout")
    assert events(pair, "/alone", {"texts": ["a"], "seconds": 4}) == [([*message("a")], message("a") + failed)]
    [(theirs, ours)] = events(pair, "/short", {"texts": ["a"], "seconds": 2})
    assert ours == message("a") + error("408: Request Timeout: mosec timeout error: `forward` timeout")
    assert theirs[:-1] == message("a") and theirs[-1][0] == "error"
    assert theirs[-1][1].startswith("SSE inference error: 408: Request Timeout: mosec timeout error: ")


def test_a_batch_that_returns_nothing_differs(pair: Pair) -> None:
    """Ours ignores what `forward` returns in each stream; Mosec counts it where there are batches."""
    sent = message("a:0", "a:1", "a:2")
    failed = error("500: Internal Server Error: inference internal error")
    assert events(pair, "/batch", {"name": "a", "returns nothing": True}) == [(sent + failed, sent)]


def test_a_wrong_index_differs(pair: Pair) -> None:
    """In Mosec no client is told of it until the service's time-out."""
    failed = error("500: Internal Server Error: inference internal error")
    assert events(pair, "/wrong-index", {"texts": ["a"], "index": 1}) == [(message("a"), message("a") + failed)]
    assert read(pair.ours.post("/wrong-index", json={"texts": ["b"]})) == message("b")
