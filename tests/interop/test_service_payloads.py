"""What user code gets and may return: bodies, JSON, arrays that it keeps; in a real service."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.load import drive, exchange
from tests.service import Serve

BODIES = """
    import functools
    import numpy as np
    from mosec_cy import Server, Worker

    class Raw(Worker):
        resp_mime_type = "application/octet-stream"

        def deserialize(self, data):
            return data

        def forward(self, data):
            return f"{type(data).__name__} {len(data)} ".encode() + bytes(data)[::-1]

        def serialize(self, data):
            return data

    class InPlace(Raw):
        zero_copy = True

        def forward(self, data):
            return data

        def serialize(self, data):
            buffer = self.new_buffer(len(data))
            buffer[:] = data
            return buffer

    class Identity(InPlace):
        def serialize(self, data):
            return data

    class Odd(Worker):
        def forward(self, data):
            return {
                "bytearray": bytearray(b"abc"), "view": memoryview(b"abc"), "array": np.frombuffer(b"abc", np.uint8),
                "empty": b"", "text": "abc", "number": 3, "none": None, "strided": memoryview(b"abcdef")[::2],
            }[data]

        def serialize(self, data):
            return data

    class Plain(Worker):
        def forward(self, data):
            if data == "numpy":
                return {"matrix": np.arange(6.0).reshape(2, 3), "scalar": np.float32(0.5), "count": np.int64(7)}
            if data == "nan":
                return [float("nan"), float("inf")]
            return data

    if __name__ == "__main__":
        server = Server()
        # So many interpreters would take a second to start.
        server.append_worker = functools.partial(server.append_worker, start_method="fork")
        for worker in (Raw, InPlace, Identity, Odd, Plain):
            server.append_worker(worker, route=f"/{worker.__name__.lower()}")
        server.run()
"""


def test_bodies(serve: Serve) -> None:
    service = serve(BODIES).wait_ready()
    with service.client() as client:
        response = client.post("/raw", content=b"abc")
        assert response.content == b"bytearray 3 cba"
        assert response.headers["content-type"] == "application/octet-stream"
        for route in ("/inplace", "/identity"):
            for size in (1, 1000, 100_000, 5_000_000):
                body = bytes(range(256)) * (size // 256) + bytes([size % 256]) * (size % 256)
                assert client.post(route, content=body).content == body
        for name in ("bytearray", "view", "array"):
            assert client.post("/odd", json=name).content == b"abc"
        assert (response := client.post("/odd", json="empty")).status_code == 200
        assert response.content == b""
        for name in ("text", "number", "none", "strided"):
            response = client.post("/odd", json=name)
            assert (response.status_code, response.text) == (500, "inference internal error")
        assert client.post("/odd", json="view").content == b"abc"  # by the same worker


def test_json(serve: Serve) -> None:
    service = serve(BODIES).wait_ready()
    with service.client() as client:
        for value in ({"x": 2}, [], "é\u2028\U0001f600", 1.5, True, {"deep": [[[{}]]]}, 2**60, "\0"):
            response = client.post("/plain", json=value)
            assert response.headers["content-type"] == "application/json"
            assert response.json() == value
        assert client.post("/plain", content=b' {"x" : 2}\n').content == b'{"x":2}'
        assert client.post("/plain", content=b"null").content == b"null"
        assert client.post("/plain", json="numpy").json() == {
            "matrix": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
            "scalar": 0.5,
            "count": 7,
        }
        assert client.post("/plain", json="nan").json() == [None, None]
        assert client.post("/plain", content=b"\xef\xbb\xbf[1]").json() == [1]
        assert client.post("/plain", content=b"[NaN]").json() == [None]
        big = [list(range(1000))] * 500
        assert client.post("/plain", content=json.dumps(big).encode()).json() == big


KEEPING = """
    import numpy as np
    from mosec_cy import Server, Worker

    SIZE = 20_000

    def pattern(seed):
        return np.random.default_rng(seed).integers(0, 255, SIZE, dtype=np.uint8)

    class Make(Worker):
        def forward(self, data):
            return {"seed": data, "array": pattern(data)}

    class Keep(Worker):
        def __init__(self):
            self.kept = {}

        def forward(self, data):
            if "check" in data:
                return [
                    seed for seed, array in self.kept.items() if not np.array_equal(array, pattern(seed)[-len(array):])
                ]
            array = data["array"]
            assert not array.flags.owndata
            if data["seed"] < 10:
                self.kept[data["seed"]] = array[7:] if data["seed"] % 2 else array
            return int(array[0])

    class KeepViews(Worker):
        zero_copy = True

        def __init__(self):
            self.kept = []

        def deserialize(self, data):
            return data

        def forward(self, data):
            if data == b"check":
                return [number for number, view in enumerate(self.kept) if view != bytes([number]) * 5000]
            if len(self.kept) < 10:
                self.kept.append(data)
            return len(data)

    class Check(Worker):
        def forward(self, data):
            return {"check": True}

    if __name__ == "__main__":
        from mosec_cy import Runtime
        server = Server()
        keep = Runtime(Keep)
        server.register_runtime({
            "/arrays": [Runtime(Make), keep], "/check": [Runtime(Check), keep], "/views": [Runtime(KeepViews)],
        })
        server.run()
"""


def answered(status: int, body: bytes) -> bool:
    return status == 200


@pytest.mark.timeout(120)
def test_an_array_that_user_code_keeps(serve: Serve) -> None:
    """10,000 more requests later it is what it was."""
    service = serve(KEEPING).wait_ready()
    with service.client() as client:
        for seed in range(10):
            first = int(np.random.default_rng(seed).integers(0, 255, 20_000, dtype=np.uint8)[0])
            assert client.post("/arrays", json=seed).json() == first
            assert client.post("/views", content=bytes([seed]) * 5000).json() == 5000
    more = [exchange("/arrays", b"%d" % (100 + number % 100), answered) for number in range(5000)]
    more += [exchange("/views", bytes([number % 256]) * 5000, answered) for number in range(5000)]
    assert drive(service.port, more) == {200: 10_000}
    with service.client() as client:
        assert client.post("/check", json=1).json() == []
        assert client.post("/views", content=b"check").json() == []
