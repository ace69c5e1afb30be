"""Typed workers are checked when they are appended: what their codec cannot decode is no request's fault."""

import sys
from typing import Any

import msgspec
import pytest

from mosec_cy import Runtime, Server, Worker
from mosec_cy.mixin import TypedJSONMixin, TypedMsgPackMixin


class Measured(msgspec.Struct):
    length: float


class Typed(TypedJSONMixin, Worker):
    def forward(self, data: Measured) -> float:
        return data.length


class Undecodable(TypedMsgPackMixin, Worker):
    def forward(self, data: list[int] | tuple[int, ...]) -> None: ...


class Unresolvable(TypedJSONMixin, Worker):
    def forward(self, data: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        ...


class OwnCodec(Undecodable):
    def deserialize(self, data: Any) -> Any:
        return data


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(sys, "argv", ["program"])
    return Server()


@pytest.mark.parametrize(
    ("worker", "size", "complaint"),
    [
        (Typed, 2, r"Typed.forward gets and returns lists .*: annotate it with list\[...\]"),
        (Undecodable, 1, "Undecodable.forward cannot be given list.*msgspec.Struct or models of pydantic"),
        (
            Unresolvable,
            1,
            "annotations of Unresolvable.forward cannot be read: .*'Nowhere'.* not only under",
        ),
    ],
)
def test_what_a_typed_codec_cannot_decode_is_refused_at_once(
    server: Server, worker: type[Worker], size: int, complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        server.append_worker(worker, max_batch_size=size)
    with pytest.raises(TypeError, match=complaint):
        server.register_runtime({"/inference": [Runtime(worker, max_batch_size=size)]})
    assert server._routes == {}
    server.append_worker(Typed)
    server.append_worker(worker, max_batch_size=size)  # it decodes no requests there
    with pytest.raises(TypeError, match=complaint):
        server.append_worker(worker, max_batch_size=size, route=["/inference", "/other"])


def test_an_own_codec_makes_of_requests_what_it_likes(server: Server) -> None:
    server.append_worker(OwnCodec)
