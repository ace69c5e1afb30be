"""A mixin stands before `Worker` or after it: the class's own codecs come first, then the mixin's, then defaults."""

from __future__ import annotations

from pathlib import Path
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

    class Before(MsgpackMixin, Worker):
        def forward(self, data):
            return data

    class Derived(After):
        pass

    class OfDerivedMixin(Worker, Mixed):
        def forward(self, data):
            return data

    class OwnAfter(Worker, MsgpackMixin):
        def deserialize(self, data):
            return [type(data).__name__, super().deserialize(data)]

        def forward(self, data):
            return data

        def serialize(self, data):
            return super().serialize({"own": data})

    class OwnBefore(MsgpackMixin, Worker):
        def deserialize(self, data):
            return [type(data).__name__, super().deserialize(data)]

        def forward(self, data):
            return data

        def serialize(self, data):
            return super().serialize({"own": data})

    class Typed(Worker, TypedMsgPackMixin):
        def forward(self, data: Point) -> int:
            return data.x

    class Stream(SSEWorker, TypedJSONMixin):
        def forward(self, data: Point):
            yield str(data.x)

    class StreamBefore(TypedJSONMixin, SSEWorker):
        def forward(self, data: list[Point]):
            for index, point in enumerate(data):
                yield index, str(point.x)

    class Decode(Worker, MsgpackMixin, NumBinIPCMixin):
        def forward(self, data):
            return np.arange(data) if data else [1]

    class Sum(Worker, NumBinIPCMixin, MsgpackMixin):
        def forward(self, data):
            return [type(data.base).__name__, int(data.sum())]

    if __name__ == "__main__":
        server = Server()
        for worker in (After, Before, Derived, OfDerivedMixin, OwnAfter, OwnBefore, Typed, Stream):
            server.append_worker(worker, route=f"/{worker.__name__}")
        server.append_worker(StreamBefore, route="/StreamBefore", max_batch_size=4, max_wait_time=1)
        server.append_worker(Decode, route="/arrays")
        server.append_worker(Sum, route="/arrays")
        server.run()
"""
REDIS = """
    import sys
    from mosec_cy import Server, Worker
    from mosec_cy.mixin import RedisShmIPCMixin

    class First(Worker, RedisShmIPCMixin):
        def forward(self, data):
            return data

    class Second(RedisShmIPCMixin, Worker):
        def deserialize_ipc(self, data):
            return [data.startswith(b"mosec_cy:ipc:"), super().deserialize_ipc(data)]

        def forward(self, data):
            return data

    if __name__ == "__main__":
        RedisShmIPCMixin.set_redis_url(sys.argv[1])
        server = Server()
        server.append_worker(First)
        server.append_worker(Second)
        server.run()
"""


@pytest.fixture(scope="module")
def service(serve_module: Serve) -> Service:
    return serve_module(SERVICE).wait_ready()


def post(service: Service, path: str, body: Any) -> tuple[int, Any]:
    with service.client() as client:
        response = client.post(path, content=msgpack.packb(body))
    assert response.headers["content-type"] == "application/msgpack"
    return response.status_code, msgpack.unpackb(response.content)


@pytest.mark.parametrize("name", ["After", "Before", "Derived", "OfDerivedMixin"])
def test_both_orders(service: Service, name: str) -> None:
    assert post(service, f"/{name}", {"a": b"1"}) == (200, {"a": b"1"})


@pytest.mark.parametrize("name", ["OwnAfter", "OwnBefore"])
def test_own_codecs_come_first(service: Service, name: str) -> None:
    assert post(service, f"/{name}", 3) == (200, {"own": ["bytearray", 3]})


def test_typed(service: Service) -> None:
    assert post(service, "/Typed", {"x": 3}) == (200, 3)
    for name in ("Stream", "StreamBefore"):
        assert read(service, {"x": 3}, f"/{name}") == message("3")


def test_arrays_between_stages(service: Service) -> None:
    pytest.importorskip("numbin", reason="needs the extra 'numbin'")
    status, (_, total) = post(service, "/arrays", 4)
    assert (status, total) == (200, 6)
    with service.client() as client:
        assert client.post("/arrays", content=msgpack.packb(0)).text.startswith("encoding error: NumBin holds")


def test_redis_after_worker(serve: Serve, redis_url: str, tmp_path: Path) -> None:
    pytest.importorskip("redis", reason="needs the extra 'redis'")
    service = serve(REDIS, redis_url).wait_ready()
    with service.client() as client:
        assert client.post("/inference", json={"a": 1}).json() == [True, {"a": 1}]


@pytest.mark.parametrize("base", [Worker, SSEWorker])
@pytest.mark.parametrize(
    "mixin",
    [MsgpackMixin, NumBinIPCMixin, RedisShmIPCMixin, TypedJSONMixin, TypedMsgPackMixin, (MsgpackMixin, NumBinIPCMixin)],
)
def test_any_order_is_legal(base: type, mixin: Any) -> None:
    mixins = mixin if isinstance(mixin, tuple) else (mixin,)
    body = {"forward": lambda self, data: data}
    before, after = (type("X", bases, dict(body)) for bases in ((*mixins, base), (base, *mixins)))
    for name in ("deserialize", "serialize", "deserialize_ipc", "serialize_ipc"):
        assert getattr(before, name) is getattr(after, name)


def test_a_mixin_alone_is_a_worker() -> None:
    worker: Any = type("X", (NumBinIPCMixin,), {"forward": lambda self, data: data})
    pytest.importorskip("numbin", reason="needs the extra 'numbin'")
    assert worker().deserialize_ipc(worker().serialize_ipc(np.arange(3))).tolist() == [0, 1, 2]
