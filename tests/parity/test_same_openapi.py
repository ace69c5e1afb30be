"""What Mosec and mosec_cy say of one program's routes in OpenAPI: the same media types and schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.parity.peer import Pair, running

PROGRAM = """
    from typing import Dict, List, Optional

    import msgspec

    from PACKAGE import Server, Worker
    from PACKAGE.mixin import MsgpackMixin, TypedMsgPackMixin

    class Inner(msgspec.Struct):
        words: List[str]
        weight: float = 0.5

    class Request(msgspec.Struct):
        text: str
        count: int = 1
        inner: Optional[Inner] = None

    class Response(msgspec.Struct, kw_only=True):
        scores: Dict[str, float]
        inner: Inner

    class Typed(TypedMsgPackMixin, Worker):
        def forward(self, data: Request) -> Response:
            return Response(scores={}, inner=Inner([]))

    class TypedBatch(TypedMsgPackMixin, Worker):
        def forward(self, data: List[Request]) -> List[Response]:
            return [Response(scores={}, inner=Inner([])) for _ in data]

    class Json(Worker):
        def forward(self, data: Inner) -> Inner:
            return data

    class Builtin(Worker):
        def forward(self, data: Dict[str, List[int]]) -> List[str]:
            return list(data)

    class Untyped(Worker):
        def forward(self, data):
            return data

    class First(TypedMsgPackMixin, Worker):
        def forward(self, data: Request) -> Inner:
            return Inner([])

    class Last(Worker):
        resp_mime_type = "application/x-last"

        def forward(self, data: Inner) -> float:
            return 1.0

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Typed, route="/typed")
        server.append_worker(TypedBatch, route="/batch", max_batch_size=4)
        server.append_worker(Json, route="/json")
        server.append_worker(Builtin, route="/builtin")
        server.append_worker(Untyped, route="/untyped")
        server.append_worker(First, route="/stages")
        server.append_worker(Last, route="/stages")
        server.run()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(PROGRAM, tmp_path_factory) as pair:
        yield pair


def described(client: httpx.Client) -> dict[str, Any]:
    """The document, each of its references replaced by what is referred to."""
    document = client.get("/openapi/metadata.json").json()

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                target = document
                for key in part["$ref"].removeprefix("#/").split("/"):
                    target = target[key]
                return resolved(target)
            return {key: resolved(value) for key, value in part.items()}
        return [resolved(item) for item in part] if isinstance(part, list) else part

    found: dict[str, Any] = resolved(document["paths"])
    return found


TYPED = ["/typed", "/batch", "/json", "/builtin", "/stages"]


@pytest.mark.parametrize("path", TYPED)
def test_requests_and_answers(pair: Pair, path: str) -> None:
    theirs, ours = (described(client)[path] for client in (pair.theirs, pair.ours))
    assert set(ours) == set(theirs) == {"post"}
    theirs, ours = theirs["post"], ours["post"]
    assert ours["requestBody"]["content"] == theirs["requestBody"]["content"]
    assert set(ours["responses"]) == set(theirs["responses"])
    answers = ours["responses"]["200"]["content"]
    assert answers.pop("text/plain") == {"schema": {"type": "string"}}  # differs: ours tells of `no data provided`
    assert answers == theirs["responses"]["200"]["content"]


def test_untyped_routes_differ(pair: Pair) -> None:
    """Mosec says nothing of them, ours that any JSON goes in and out."""
    theirs, ours = (described(client)["/untyped"]["post"] for client in (pair.theirs, pair.ours))
    assert "requestBody" not in theirs and "content" not in theirs["responses"]["200"]
    assert ours["requestBody"]["content"] == {"application/json": {"schema": {}}}
    assert ours["responses"]["200"]["content"]["application/json"] == {"schema": {}}


def test_the_same_paths(pair: Pair) -> None:
    theirs, ours = (described(client) for client in (pair.theirs, pair.ours))
    assert set(ours) == set(theirs) == {*TYPED, "/untyped", "/", "/metrics"}
    for path in ("/", "/metrics"):
        assert set(ours[path]) == set(theirs[path]) == {"get"}


def test_the_swagger_page(pair: Pair) -> None:
    theirs, ours = pair.ask("GET", "/openapi/swagger/")
    assert ours.status == theirs.status == 200
    assert [str(answer.content_type).split(";")[0] for answer in (theirs, ours)] == ["text/html"] * 2
