"""A service with --compression, and requests to it as they go over the wire."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from tests.codings import MIB
from tests.http_client import Answer, Client, request
from tests.service import Service

LIMIT = 1 * MIB
LARGE = list(range(1000))
LARGE_JSON = json.dumps(LARGE, separators=(",", ":")).encode()


KINDS = """
    from mosec_cy import ClientError, Server, Worker

    class Echo(Worker):
        def forward(self, data):
            return data

    class Raw(Worker):
        resp_mime_type = "application/octet-stream"

        def deserialize(self, data):
            return data

        def forward(self, data):
            return f"{type(data).__name__} {len(data)}".encode().ljust(2000)

        def serialize(self, data):
            return data

    class InPlace(Raw):
        zero_copy = True

        def forward(self, data):
            data[0:1] = b"!"
            return data

        def serialize(self, data):
            buffer = self.new_buffer(len(data))
            buffer[:] = data
            return buffer

    class Picture(InPlace):
        resp_mime_type = "image/png"

    class First(Worker):
        def forward(self, data):
            return ["first", data]

    class Second(Worker):
        def forward(self, data):
            return ["second", data]

    class Batches(Worker):
        def forward(self, data):
            return [{"size": len(data), "data": item} for item in data]

    class Refusing(Worker):
        def forward(self, data):
            raise ClientError("x" * 5000)

    if __name__ == "__main__":
        server = Server(max_request_size=1 << 20)
        for worker in (Echo, Raw, InPlace, Picture, Refusing):
            server.append_worker(worker, route=f"/{worker.__name__.lower()}")
        server.append_worker(First, route="/stages")
        # Second is the last stage of both, and the first of one.
        server.append_worker(Second, route=["/stages", "/short"], num=2)
        server.append_worker(Batches, route="/batches", max_batch_size=4, max_wait_time=20000)
        server.run()
"""


def exchange(service: Service, *requests: bytes) -> list[Answer]:
    """Pipelined requests on one connection, and their answers as they came."""
    with Client(service) as client:
        client.send(b"".join(requests))
        answers = [client.answer() for _ in requests]
        assert client.rest == b""
    return answers


def ask(service: Service, body: bytes, path: str = "/echo", **headers: str) -> Answer:
    """One request; `accept_encoding="gzip"` and the like become its headers."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    (answer,) = exchange(service, request(body, path, lines))
    return answer


def running(directory: Path) -> Service:
    """The service above, to be entered and waited for."""
    script = directory / "service.py"
    script.write_text(textwrap.dedent(KINDS))
    return Service(script, "--compression", directory=directory)
