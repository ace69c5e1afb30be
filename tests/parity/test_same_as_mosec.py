"""One program, run with Mosec and with mosec_cy, asked the same: the answers agree, but where we differ on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.parity.peer import ERRORS, TEXT, Answer, Pair, running

PROGRAM = """
    from typing import Any, List

    import msgspec
    from PACKAGE import (
        ClientError, DecodingError, EncodingError, Runtime, Server, ServerError, ValidationError, Worker, get_logger,
    )
    from PACKAGE.errors import MosecError, MosecTimeoutError

    logger = get_logger()
    ERRORS = {
        cls.__name__: cls
        for cls in (ClientError, DecodingError, EncodingError, ServerError, ValidationError,
                    MosecError, MosecTimeoutError, ValueError, KeyError)
    }

    class Square(Worker):
        def forward(self, data: dict):
            logger.debug("received %s", data)
            try:
                return data["x"]
            except KeyError as error:
                raise ValidationError(error) from error

    class Batched(Worker):
        example = [1, 2]

        def forward(self, data: List[int]) -> List[dict]:
            return [{"x": x * x} for x in data]

    class Raises(Worker):
        def forward(self, data):
            raise ERRORS[data["error"]](*data["arguments"])

    class Raw(Worker):
        resp_mime_type = "image/x-raw"

        def deserialize(self, data):
            return type(data).__name__.encode() + b" " + bytes(data)

        def forward(self, data):
            return data

        def serialize(self, data):
            return data[::-1]

    class FailsInDeserialize(Worker):
        def deserialize(self, data):
            raise ClientError("not like this")

        def forward(self, data):
            return data

    class FailsInSerialize(Worker):
        def forward(self, data):
            return data

        def serialize(self, data):
            raise ServerError("cannot say it")

    class Unencodable(Worker):
        def forward(self, data):
            return object()

    class TooFew(Worker):
        def forward(self, data):
            return data[1:]

    class About(Worker):
        def forward(self, data):
            return [self.stage, self.worker_id, self.max_batch_size]

    class Sleeper(Worker):
        def forward(self, data):
            import time
            time.sleep(data)

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Square, num=2, route="/square")
        server.append_worker(Batched, max_batch_size=8, max_wait_time=5, route="/square")
        server.append_worker(Raises, route=["/raises", "/raises/too"])
        server.append_worker(Raw, route="/raw")
        server.append_worker(FailsInDeserialize, route="/deserialize")
        server.append_worker(FailsInSerialize, route="/serialize")
        server.append_worker(Unencodable, route="/unencodable")
        server.append_worker(TooFew, max_batch_size=4, route="/few")
        server.append_worker(About, route="/about")
        server.append_worker(Sleeper, timeout=1, route="/sleep")
        server.run()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(PROGRAM, tmp_path_factory) as pair:
        yield pair


def raising(error: str, *arguments: Any) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/raises", {"json": {"error": error, "arguments": arguments}}


SAME: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("POST", "/", {}),
    ("POST", "/metrics", {}),
    ("GET", "/nowhere", {}),
    ("POST", "/square/", {"json": {"x": 3}}),
    ("GET", "/square", {}),
    ("PUT", "/square", {"json": {"x": 3}}),
    ("POST", "/square", {}),
    ("POST", "/square", {"json": {"x": 3}}),
    ("POST", "/square?a=b", {"json": {"x": 3}}),
    ("POST", "/square", {"json": {"x": -4.5}}),
    ("POST", "/square", {"json": {"msg": 2}}),
    ("POST", "/square", {"json": {"x": "no number"}}),
    ("POST", "/about", {"json": 0}),
    ("POST", "/raw", {"content": bytes(range(256))}),
    ("POST", "/deserialize", {"json": 0}),
    ("POST", "/serialize", {"json": 0}),
    ("POST", "/few", {"json": 0}),
    ("POST", "/sleep", {"json": 0}),
    *(
        raising(error, *arguments)
        for error in (*ERRORS, "KeyError")
        for arguments in ((), ("why",), ("a", "b"), ({"k": 1},), ("é",), ("one\ntwo",), ("",))
    ),
    ("POST", "/raises/too", {"json": {"error": "ClientError", "arguments": ["second route"]}}),
]

# Of these only the status is Mosec's, the text says more.
SAME_STATUS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/square", {"content": b"no json"}),
    ("POST", "/square", {"content": b'{"x": 1'}),
    ("POST", "/square", {"content": b"\xff"}),
    ("POST", "/unencodable", {"json": 0}),
    ("POST", "/sleep", {"json": 2}),  # over the stage's timeout
    # Mosec closes the connection after this one, and says nothing of it.
    ("POST", "/square", {"content": bytes(11 << 20), "headers": {"connection": "close"}}),
]


def expected(theirs: Answer) -> Answer:
    if theirs.status == 404:
        return Answer(404, TEXT, b"not found")
    if theirs.status == 405:
        return Answer(405, TEXT, b"method not allowed")
    return theirs.with_type()


def test_the_same_answers(pair: Pair) -> None:
    for method, path, content in SAME:
        theirs, ours = pair.ask(method, path, **content)
        assert ours == expected(theirs), (method, path, content)


def test_the_same_statuses(pair: Pair) -> None:
    for method, path, content in SAME_STATUS:
        theirs, ours = pair.ask(method, path, **content)
        assert ours.status == theirs.status, (method, path, ours, theirs)


def test_the_same_metrics(pair: Pair) -> None:
    """The names, label names and buckets that a dashboard for Mosec relies on."""
    for one in (pair.theirs, pair.ours):
        assert one.post("/square", json={"x": 3}).json() == {"x": 9}
        assert one.post("/square", json={}).status_code == 422
    assert samples(pair.theirs) <= samples(pair.ours)


def samples(client: httpx.Client) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Names and labels of what /metrics counts for the pipeline, without who and how often."""
    from prometheus_client.parser import text_string_to_metric_families

    page = client.get("/metrics").text.replace("# EOF\n", "")
    found = set()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("endpoint", "/square") != "/square" or labels.get("code", "200") not in ("200", "422"):
                continue
            if labels.get("stage", "total") not in ("total", "Square_1", "Batched_2"):
                continue
            bucket = {"le": str(float(labels["le"]))} if "le" in labels else {}
            named = {key: value for key, value in labels.items() if key not in ("connection", "le")}
            found.add((sample.name, frozenset((named | bucket).items())))
    return found
