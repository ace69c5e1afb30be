"""Workers whose attributes, methods and special methods have the engine's names, or behave as no engine expects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.interop.sse_service import message, read
from tests.service import Serve, Service

SERVICE = '''
    import abc
    import functools
    from dataclasses import dataclass, field
    from types import SimpleNamespace

    from mosec_cy import Server, SSEWorker, Worker
    from mosec_cy.mixin import MsgpackMixin, TypedJSONMixin

    class Private(Worker):
        """Attributes set in __init__."""

        def __init__(self):
            self._channel = self._sender = self._decode = self._redis = lambda *args: "mine"
            self._stage = self._worker_id = self._max_batch_size = self._replica = 16
            self.channel = self.sender = self.send = self.replica = self.name = self.run = 16
            self.decode = self.finish = self.collect = self.loop = self.events = 16

        def forward(self, data):
            mine = [self._channel(), self._stage, self._worker_id, self._max_batch_size, self.channel, self.run]
            return [mine, self.stage, self.worker_id, self.max_batch_size]

    class Batch(Worker):
        """And on the class."""

        _max_batch_size = 1
        _channel = _sender = "mine"

        def forward(self, data):
            return [[self._max_batch_size, self._channel, self.max_batch_size]] * len(data)

    class OwnProperties(Worker):
        """Read-only properties, a plain attribute and a method in the places of the public ones."""

        max_batch_size = 16

        @property
        def worker_id(self):
            return "left"

        def stage(self):
            return "a method"

        def forward(self, data):
            return [[self.worker_id, self.stage(), self.max_batch_size]] * len(data)

    class Mail:
        def send(self, text, index):
            return f"to a colleague: {text}"

    class Sender(SSEWorker):
        def __init__(self):
            self._sender = self.sender = Mail()
            self._channel = self.channel = SimpleNamespace(batch=[1, 2, 3])

        def forward(self, data):
            self.send_stream_event(self._sender.send("hello", 0))
            self.send_stream_event(f"{self.is_cancelled()}")

    class Logged(SSEWorker):
        """A method of the public interface, overridden, with another signature; and generators do not pass it."""

        def send_stream_event(self, kind, text):
            return super().send_stream_event(f"{kind}: {text}")

        def forward(self, data):
            self.send_stream_event("sent", "a")
            yield "yielded"

    @dataclass(frozen=True)
    class Frozen(Worker):
        names: list = field(default_factory=lambda: ["a", "b"])  # not hashable

        def forward(self, data):
            return [self.names, self.worker_id]

    @dataclass(frozen=True)
    class FrozenTyped(TypedJSONMixin, Worker):
        names: list = field(default_factory=lambda: ["a", "b"])

        def forward(self, data: int):
            return [self.names, data]

    class Slots(Worker):
        __slots__ = ("model",)

        def __init__(self):
            self.model = "m"

        def forward(self, data):
            return self.model

    class Odd(Worker):
        """Special methods that are no good to anybody."""

        __hash__ = None

        def __init__(self):
            object.__setattr__(self, "model", "m")

        def __eq__(self, other):
            raise RuntimeError("do not compare me")

        def __bool__(self):
            raise RuntimeError("I am neither")

        def __len__(self):
            return 0

        def __setattr__(self, name, value):
            raise RuntimeError(f"do not set {name}")

        def __getattr__(self, name):
            return lambda *args: name

        def __repr__(self):
            raise RuntimeError("no words")

        def forward(self, data):
            return [self.model, self.anything(), self.worker_id]

    class Watched(Worker):
        def __getattribute__(self, name):
            if name.startswith("_") and not name.startswith("__"):
                raise AttributeError(f"{name} is private")
            return super().__getattribute__(name)

        def forward(self, data):
            return self.stage

    class Module:
        """Keeps attributes as torch does."""

        def __init__(self):
            object.__setattr__(self, "_modules", {})

        def __setattr__(self, name, value):
            self._modules[name] = value

        def __getattr__(self, name):
            return self._modules[name]

    class Torch(Module, Worker):
        def __init__(self):
            super().__init__()
            self._channel = 3

        def forward(self, data):
            return [self._channel, self.max_batch_size]

        def zero_copy(self, data):  # a method of its own: no wish to read in place
            return data

        def deserialize(self, data):
            return self.zero_copy(super().deserialize(data.ljust(2)))

    class Empty(dict, Worker):
        """Not hashable, false, and equal to others."""

        def forward(self, data):
            return [self, self.max_batch_size]

    class EqualMeta(abc.ABCMeta):
        """Its classes have no hash."""

        def __eq__(self, other):
            return isinstance(other, EqualMeta)

        def __call__(self, *args, **kwargs):
            made = super().__call__(*args, **kwargs)
            made.called = True
            return made

    class Equal(Worker, metaclass=EqualMeta):
        def forward(self, data):
            return [self.called, self.stage]

    class EqualStream(SSEWorker, metaclass=EqualMeta):
        def forward(self, data):
            self.send_stream_event(self.stage)

    class Factory(Worker):
        """What __new__ makes is of a class derived from it."""

        def __new__(cls, *args):
            return object.__new__(Made)

        def forward(self, data):
            return "never"

    class Made(Factory):
        def __init__(self):
            self.at_init = self.max_batch_size

        def forward(self, data):
            return [[self.at_init, self.max_batch_size, self.stage]] * len(data)

    class Wrapped(MsgpackMixin, Worker):
        """An override that looks like the mixin's method, down to its attributes."""

        @functools.wraps(MsgpackMixin.deserialize)
        def deserialize(self, data):
            data += b"!"  # it is given a bytearray
            return bytes(data).decode()

        def serialize(self, data):
            return data.encode()

        def forward(self, data):
            return data

    class OnTheObject(Worker):
        """Methods that are attributes of the object."""

        def __init__(self):
            self.deserialize = lambda body: bytes(body).decode()
            self.serialize = str.encode
            self.forward = lambda data: data.upper()

        def forward(self, data):
            return "never"

    class Setting(Worker):
        def forward(self, data):
            try:
                setattr(self, data, 1)
            except AttributeError as error:
                return str(error)

    class Inner(SSEWorker):
        def forward(self, data):
            return self.send_stream_event(data)

    class Outer(Worker):
        """Makes workers of its own, which are as outside a server."""

        def forward(self, data):
            inner, other = Inner(), Inner()
            inner.max_batch_size = 3
            buffer = bytes(inner.new_buffer(2)).decode()
            return [inner.forward(data), inner.max_batch_size, other.max_batch_size, buffer]

    if __name__ == "__main__":
        server = Server()
        for worker in (Private, Sender, Logged, Frozen, FrozenTyped, Slots, Odd, Watched, Equal, EqualStream, Wrapped,
                       OnTheObject, Setting, Outer, Torch, Empty):
            server.append_worker(worker, route=f"/{worker.__name__}")
        for worker in (Batch, OwnProperties, Factory):
            server.append_worker(worker, max_batch_size=4, max_wait_time=1, route=f"/{worker.__name__}")
        server.run()
'''


@pytest.fixture(scope="module")
def service(serve_module: Serve) -> Service:
    return serve_module(SERVICE).wait_ready()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("Private", [["mine", 16, 16, 16, 16, 16], "Private_1", 1, 1]),
        ("Batch", [1, "mine", 4]),
        ("OwnProperties", ["left", "a method", 16]),
        ("Frozen", [["a", "b"], 1]),
        ("FrozenTyped", [["a", "b"], 3]),
        ("Slots", "m"),
        ("Torch", [3, 1]),
        ("Empty", [{}, 1]),
        ("Odd", ["m", "anything", 1]),
        ("Watched", "Watched_8"),
        ("Equal", [True, "Equal_9"]),
        ("Factory", [4, 4, "Factory_19"]),
    ],
)
def test_own_names_change_nothing(service: Service, name: str, answer: Any) -> None:
    with service.client() as client:
        response = client.post(f"/{name}", json=3)
        assert (response.status_code, response.json()) == (200, answer)


def test_own_names_in_streams(service: Service) -> None:
    assert read(service, 1, "/Sender") == message("to a colleague: hello", "False")
    assert read(service, 1, "/EqualStream") == message("EqualStream_10")


def test_an_override_of_sending(service: Service) -> None:
    assert read(service, 1, "/Logged") == message("sent: a", "yielded")


def test_overridden_codecs(service: Service) -> None:
    with service.client() as client:
        assert client.post("/Wrapped", content=b"body").text == "body!"
        assert client.post("/OnTheObject", content=b"body").text == "BODY"


@pytest.mark.parametrize("name", ["worker_id", "stage", "max_batch_size"])
def test_what_the_server_decides_cannot_be_set(service: Service, name: str) -> None:
    with service.client() as client:
        answer = client.post("/Setting", json=name).json()
    assert answer.startswith(f"{name} says how the server runs this worker (")
    assert "another name" in answer


def test_workers_within_a_worker(service: Service) -> None:
    with ThreadPoolExecutor(4) as pool, service.client() as client:
        answers = list(pool.map(lambda number: client.post("/Outer", json=str(number)).json(), range(8)))
    assert answers == [[True, 3, 1, "\0\0"]] * 8


def test_the_description_knows_batches(service: Service) -> None:
    """It asks classes, of which some cannot be compared."""
    with service.client() as client:
        assert client.get("/openapi/metadata.json").status_code == 200


def test_what_is_no_worker_is_told(serve: Serve) -> None:
    service = serve("""
        from mosec_cy import Server, Worker

        class Proxy(Worker):
            def __new__(cls):
                return "no worker"

            def forward(self, data):
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Proxy)
            server.run()
    """)
    service.wait_output(r"Proxy\(\) made a str, which is no worker")
    assert service.wait_end() == 1
