"""The codecs of `mosec_cy.mixin` as clients of a service meet them."""

import textwrap
from collections.abc import Iterator
from typing import Any

import httpx
import msgpack
import pytest

from tests.service import Service

MSGPACK = "application/msgpack"
MISFIT = "not what the annotation asks for: "

SERVICE = """
    import functools
    import msgspec
    import numpy as np

    from mosec_cy import Server, Worker
    from mosec_cy.mixin import MsgpackMixin, NumBinIPCMixin, TypedJSONMixin, TypedMsgPackMixin

    class Request(msgspec.Struct):
        name: str
        data: bytes = b""

    class View(msgspec.Struct):
        data: memoryview

    class Packed(MsgpackMixin, Worker):
        def forward(self, data):
            return {"echo": data, "array": np.arange(2)} if data != "bad" else object()

    class Typed(TypedMsgPackMixin, Worker):
        def forward(self, data: Request) -> Request:
            return data

    class TypedBatch(TypedMsgPackMixin, Worker):
        def forward(self, data: list[Request]) -> list[Request]:
            return data

    class Json(TypedJSONMixin, Worker):
        def forward(self, data: Request) -> Request:
            return data

    class InPlace(TypedMsgPackMixin, Worker):
        def forward(self, data: View):
            return [type(data.data.obj).__name__, data.data.readonly, bytes(data.data)]

    class Keeps(TypedMsgPackMixin, Worker):
        def __init__(self):
            self.kept = []

        def forward(self, data: View):
            self.kept.append(data.data)
            return self.kept

    class KeepsRaw(Keeps):
        def forward(self, data: msgspec.Raw):
            self.kept.append(data)
            return self.kept

    class Overrides(TypedMsgPackMixin, Worker):
        def deserialize(self, data):
            return type(data).__name__, super().deserialize(data).data

        def forward(self, data: Request):
            return data

    class Decode(MsgpackMixin, NumBinIPCMixin, Worker):
        def forward(self, data):
            return np.frombuffer(data, np.float32).reshape(-1, 4) if data != b"bad" else [1]

    class Double(NumBinIPCMixin, Worker):
        def forward(self, data):
            data *= 2  # in place: what it gets is writable
            return data

    class Sum(MsgpackMixin, NumBinIPCMixin, Worker):
        def forward(self, data):
            held = data
            while isinstance(held, np.ndarray):
                held = held.base
            return {"sum": float(data.sum()), "of": type(held.obj).__name__, "misplaced": data.ctypes.data % 64}

    if __name__ == "__main__":
        server = Server()
        # So many interpreters would take a second to start.
        server.append_worker = functools.partial(server.append_worker, start_method="fork")
        server.append_worker(Packed, route="/packed")
        server.append_worker(Typed, route="/typed")
        server.append_worker(TypedBatch, route="/typed-batch", max_batch_size=4)
        server.append_worker(Json, route="/json")
        server.append_worker(InPlace, route="/in-place")
        server.append_worker(Keeps, route="/keeps")
        server.append_worker(KeepsRaw, route="/keeps-raw")
        server.append_worker(Overrides, route="/overrides")
        for stage in (Decode, Double, Sum):
            server.append_worker(stage, route="/arrays")
        server.run()
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    pytest.importorskip("numbin", reason="needs the extra 'numbin'")
    directory = tmp_path_factory.mktemp("mixins")
    script = directory / "service.py"
    script.write_text(textwrap.dedent(SERVICE))
    with Service(script, directory=directory) as service:
        yield service.wait_ready()


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def pack(value: Any) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def unpacked(response: httpx.Response) -> Any:
    assert (response.status_code, response.headers["content-type"]) == (200, MSGPACK), response.text
    return msgpack.unpackb(response.content)


def test_msgpack(client: httpx.Client) -> None:
    value = {"n": [1, 2.5, None], "raw": b"\0\xff"}
    assert unpacked(client.post("/packed", content=pack(value))) == {"echo": value, "array": [0, 1]}


def test_bad_msgpack(client: httpx.Client) -> None:
    response = client.post("/packed", content=b"\xc1")
    assert response.status_code == 400
    assert response.text.startswith("decoding error: the body is not MessagePack that can be read: ")
    response = client.post("/packed", content=pack("bad"))
    assert response.status_code == 500
    assert response.text.startswith("encoding error: MessagePack cannot hold object: return dict, ")


@pytest.mark.parametrize("route", ["/typed", "/typed-batch"])
def test_typed_msgpack(client: httpx.Client, route: str) -> None:
    value = {"name": "é", "data": b"\0" * 100_000}
    assert unpacked(client.post(route, content=pack(value))) == value
    response = client.post(route, content=pack({"name": 1}))
    assert response.status_code == 422
    assert response.text.startswith(f'request validation error: the field "name" is {MISFIT}')
    response = client.post(route, content=pack(value)[:-1])
    assert response.status_code == 400
    assert response.text.startswith("decoding error: the body ends before its MessagePack object does, after 100")


def test_typed_json(client: httpx.Client) -> None:
    response = client.post("/json", json={"name": "a", "data": "AA=="})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {"name": "a", "data": "AA=="}
    response = client.post("/json", json={"name": "a", "data": ["AA=="]})
    assert response.status_code == 422
    assert response.text.startswith(f'request validation error: the field "data" is {MISFIT}')
    response = client.post("/json", content=b'{"name": "a"')
    assert response.status_code == 400
    assert response.text.startswith("decoding error: the body is not JSON, at byte 12, where it ends: ")


def test_requests_are_read_in_place(client: httpx.Client) -> None:
    assert unpacked(client.post("/in-place", content=pack({"data": b"123"}))) == ["Item", False, b"123"]


@pytest.mark.parametrize("route", ["/keeps", "/keeps-raw"])
def test_what_is_kept_stays_as_it_is(client: httpx.Client, route: str) -> None:
    requests = [{"data": bytes([n]) * 1000} for n in range(20)]
    for n, request in enumerate(requests):
        kept = [request["data"] for request in requests] if route == "/keeps" else requests
        assert unpacked(client.post(route, content=pack(request))) == kept[: n + 1]


def test_overrides_get_a_bytearray(client: httpx.Client) -> None:
    assert unpacked(client.post("/overrides", content=pack({"name": "", "data": b"123"}))) == ["bytearray", b"123"]


def test_arrays_are_written_once_and_looked_into(client: httpx.Client) -> None:
    body = pack(b"\0\0\x80?" * 4000)
    assert unpacked(client.post("/arrays", content=body)) == {"sum": 8000.0, "of": "Item", "misplaced": 0}
    response = client.post("/arrays", content=pack(b"bad"))
    assert (response.status_code, response.text) == (500, "encoding error: NumBin holds one NumPy array, not list")


@pytest.mark.parametrize("extra", ["numbin", "redis"])
def test_an_extra_that_is_not_installed_is_missed_at_the_start(serve: Any, extra: str) -> None:
    name = {"numbin": "NumBinIPCMixin", "redis": "RedisShmIPCMixin"}[extra]
    service = serve(
        f"""
        import sys
        from mosec_cy import Server, Worker
        from mosec_cy.mixin import {name}

        sys.modules[{extra!r}] = None

        class Model({name}, Worker):
            def forward(self, data):
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Model)
            server.run()
        """
    )
    assert service.wait_end() == 1
    service.wait_output(f"Model needs the package '{extra}': pip install .*mosec_cy\\[{extra}\\]")
