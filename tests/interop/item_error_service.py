"""A service whose items fail as they ask for, at the step that they name: started by test_item_errors.py."""

import asyncio
import functools
import os

from msgspec import Struct

from mosec_cy import ClientError, DecodingError, Server, SSEWorker, ValidationError, Worker
from mosec_cy._codecs.json_codec import decode, encode
from mosec_cy.mixin import TypedJSONMixin, TypedMsgPackMixin


class Unprintable(ValidationError):
    def __str__(self):
        raise RuntimeError("no text either")


class Unspeakable(ValidationError):
    def __str__(self):
        raise asyncio.CancelledError


class NeedsArguments(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)


class OutsideException(BaseException):
    pass


ERRORS = {
    "client": ClientError("c"),
    "decoding": DecodingError("d"),
    "validation": ValidationError("v"),
    "value": ValueError("secret"),
    "cancelled": asyncio.CancelledError(),
    "outside": OutsideException(),
    "unprintable": Unprintable(),
    "unspeakable": Unspeakable(),
    "long": ValidationError("long " * 20_000),
    "class": ValidationError,
    "class without arguments": NeedsArguments,
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
}


def fail(item, step):
    """Raise what the item asks for at this step."""
    if isinstance(item, dict) and item.get("at") == step:
        raise ERRORS[item["how"]]


def result_of(item, size):
    """What `forward` returns for it: perhaps an error in its place; else who has worked on how many."""
    if item.get("at") == "returned":
        return ERRORS[item["how"]]
    return item | {"sizes": [*item.get("sizes", []), size], "pids": [*item.get("pids", []), os.getpid()]}


class Failing(Worker):
    """Each step of the codecs does as the item says."""

    def deserialize(self, data):
        item = decode(data)
        fail(item, "deserialize")
        return item

    def serialize(self, data):
        fail(data, "serialize")
        return {"at": "str"} if data.get("at") == "no bytes" else encode(data)

    def serialize_ipc(self, data):
        fail(data, "serialize_ipc")
        return super().serialize_ipc(data)

    def deserialize_ipc(self, data):
        item = super().deserialize_ipc(data)
        fail(item, "deserialize_ipc")
        return item


class Single(Failing):
    def forward(self, data):
        fail(data, "forward")
        return result_of(data, 1)


class Batch(Failing):
    def forward(self, data):
        for item in data:
            fail(item, "forward")
        return [result_of(item, len(data)) for item in data]


class Last(Failing):
    def forward(self, data):
        return [item | {"sizes": [*item["sizes"], len(data)]} for item in data]


class Plain(Worker):
    """With the built-in codecs: between stages pickle, to the client JSON."""

    def forward(self, data):
        return [(lambda: 0) if item == "no pickle" else object if item == "a type" else item for item in data]


class PlainLast(Worker):
    def forward(self, data):
        return [{1j} if item == "no JSON" else item for item in data]


class Point(Struct):
    x: int


class Json(TypedJSONMixin, Worker):
    def forward(self, data: list[Point]) -> list[int]:
        return [point.x for point in data]


class Msgpack(TypedMsgPackMixin, Worker):
    def forward(self, data: list[Point]) -> list[int]:
        return [point.x for point in data]


class Stream(SSEWorker):
    def forward(self, data):
        for index, item in enumerate(data):
            self.send_stream_event(f"hello {item['id']}", index)
        results = [ERRORS[item["how"]] if "how" in item else None for item in data]
        return tuple(results) if data[0]["shape"] == "tuple" else results


class SingleStream(SSEWorker):
    def forward(self, data):
        self.send_stream_event("hello")
        return ERRORS[data["how"]] if "how" in data else [ERRORS["value"]]


if __name__ == "__main__":
    SIZE, LONG = 4, 20_000  # a batch of so many, and none before (ms)
    server = Server()
    # So many interpreters would take a second to start.
    server.append_worker = functools.partial(server.append_worker, start_method="fork")
    server.append_worker(Single, route="/single")
    server.append_worker(Batch, max_batch_size=SIZE, max_wait_time=LONG, route=["/batch", "/pipeline"])
    server.append_worker(Last, max_batch_size=SIZE, max_wait_time=50, route="/pipeline")
    server.append_worker(Plain, max_batch_size=SIZE, max_wait_time=LONG, route="/plain")
    server.append_worker(PlainLast, max_batch_size=SIZE, max_wait_time=50, route="/plain")
    server.append_worker(Json, max_batch_size=SIZE, max_wait_time=LONG, route="/json")
    server.append_worker(Msgpack, max_batch_size=SIZE, max_wait_time=LONG, route="/msgpack")
    server.append_worker(Stream, max_batch_size=SIZE, max_wait_time=LONG, route="/stream")
    server.append_worker(SingleStream, route="/stream/single")
    server.run()
