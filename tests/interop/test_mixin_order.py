"""A mixin stands before `Worker` or, as in Mosec, after it, where the defaults of `Worker` win."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from mosec_cy import SSEWorker, Worker
from mosec_cy.mixin import MsgpackMixin, NumBinIPCMixin, RedisShmIPCMixin, TypedJSONMixin, TypedMsgPackMixin
from tests.interop.sse_service import message, read
from tests.service import Serve, Service

SERVICE = """
    import numpy as np
    from msgspec import Struct
    from mosec_cy import Server, SSEWorker, Worker
    from mosec_cy.mixin import MsgpackMixin, NumBinIPCMixin, TypedJSONMixin, TypedMsgPackMixin

    class Point(Struct):
        x: int

    class Mixed(MsgpackMixin):
        req_mime_type = "application/x-msgpack"

    class After(Worker, MsgpackMixin):
        def forward(self, data):
            return data

    class Derived(After):
        pass

    class AfterDerivedMixin(Worker, Mixed):
        def forward(self, data):
            return data

    class OwnAfter(Worker, MsgpackMixin):
        def deserialize(self, data):
            return [type(data).__name__, super().deserialize(data)]

        def forward(self, data):
            return data

        def serialize(self, data):
            return super().serialize({"own": data})

    class Before(MsgpackMixin, Worker):
        def forward(self, data):
            return data

    class OwnBefore(MsgpackMixin, Worker):
        def deserialize(self, data):
            return [type(data).__name__, super().deserialize(data)]

        def forward(self, data):
            return data

        def serialize(self, data):
            return super().serialize({"own": data})

    class Typed(TypedMsgPackMixin, Worker):
        def forward(self, data: Point) -> int:
            return data.x

    class Stream(TypedJSONMixin, SSEWorker):
        def forward(self, data: list[Point]):
            for index, point in enumerate(data):
                yield index, str(point.x)

    class Decode(Worker, NumBinIPCMixin):
        def forward(self, data):
            return np.arange(data) if data else [1]

    class Sum(Worker, NumBinIPCMixin):
        def forward(self, data):
            return int(sum(data))

    if __name__ == "__main__":
        server = Server()
        for worker in (After, Derived, AfterDerivedMixin, OwnAfter, Before, OwnBefore, Typed):
            server.append_worker(worker, route=f"/{worker.__name__}")
        server.append_worker(Stream, route="/Stream", max_batch_size=4, max_wait_time=1)
        server.append_worker(Decode, route="/arrays")
        server.append_worker(Sum, route="/arrays")
        server.run()
"""
MIXINS = [MsgpackMixin, NumBinIPCMixin, RedisShmIPCMixin, TypedJSONMixin, TypedMsgPackMixin]
CODECS = ("deserialize", "serialize", "deserialize_ipc", "serialize_ipc")


@pytest.fixture(scope="module")
def service(serve_module: Serve) -> Service:
    return serve_module(SERVICE).wait_ready()


def post(service: Service, path: str, body: Any) -> Any:
    with service.client() as client:
        response = client.post(path, content=msgpack.packb(body))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/msgpack")
    return msgpack.unpackb(response.content)


def post_json(service: Service, path: str, body: Any) -> Any:
    with service.client() as client:
        response = client.post(path, json=body)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    return response.json()


def test_before_worker_the_mixin_wins(service: Service) -> None:
    assert post(service, "/Before", {"a": b"1"}) == {"a": b"1"}
    assert post(service, "/Typed", {"x": 3}) == 3
    assert read(service, {"x": 3}, "/Stream") == message("3")


@pytest.mark.parametrize("name", ["After", "Derived", "AfterDerivedMixin"])
def test_after_worker_its_defaults_win(service: Service, name: str) -> None:
    assert post_json(service, f"/{name}", {"a": "1"}) == {"a": "1"}
    told = f"{name} is served without the codecs of MsgpackMixin, which stands after Worker: write class {name}("
    assert any(line.startswith(told) for line in service.messages)


def test_own_codecs_come_first(service: Service) -> None:
    assert post(service, "/OwnBefore", 3) == {"own": ["bytearray", 3]}
    assert post_json(service, "/OwnAfter", 3) == {"own": ["bytearray", 3]}
    assert not any("class OwnAfter" in line for line in service.messages)


def test_between_stages(service: Service) -> None:
    pytest.importorskip("numbin", reason="needs the extra 'numbin'")
    assert post_json(service, "/arrays", 4) == 6
    assert post_json(service, "/arrays", 0) == 1, "no array, which NumBin cannot hold"


@pytest.mark.parametrize("base", [Worker, SSEWorker])
@pytest.mark.parametrize("mixins", [*((mixin,) for mixin in MIXINS), (MsgpackMixin, NumBinIPCMixin)])
def test_any_order_is_legal(base: type, mixins: tuple[type, ...]) -> None:
    body = {"forward": lambda self, data: data}
    before, after = (type("X", bases, dict(body)) for bases in ((*mixins, base), (base, *mixins)))
    for name in CODECS:
        assert getattr(after, name) is getattr(Worker, name)
    assert all(getattr(before, name) is vars(mixin)[name] for mixin in mixins for name in CODECS if name in vars(mixin))


def test_a_mixin_alone_is_a_worker() -> None:
    worker: Any = type("X", (NumBinIPCMixin,), {"forward": lambda self, data: data})
    pytest.importorskip("numbin", reason="needs the extra 'numbin'")
    assert worker().deserialize_ipc(worker().serialize_ipc(np.arange(3))).tolist() == [0, 1, 2]
