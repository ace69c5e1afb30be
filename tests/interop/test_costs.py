"""Costs from the payload or from the stage before: which requests share a batch, and what is said of a wrong one."""

from __future__ import annotations

import re

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import Engine
from tests.http_client import Client, clients
from tests.interop.slots import TEXT, running
from tests.service import Serve

MANY = {"max_batch_size": 8}

PROGRAM = """
import sys
from mosec_cy import Server, Worker


class Tokens(Worker):
    def forward(self, data):
        return data

    def cost(self, result):
        if result == "raise":
            raise ValueError("what is that?")
        return {"negative": -1, "large": 1 << 32, "text": "7", "float": 1.5}.get(result, 7)


class Model(Worker):
    def forward(self, data):
        return data


class Last(Worker):
    cost = "an attribute of the user's own"

    def forward(self, data):
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(Tokens)
    server.append_worker(Model, max_batch_size=8, cost="previous", max_batch_cost=20, pad=True)
    server.append_worker(Last)
    server.append_worker(Tokens, route="/plain")
    server.append_worker(Last, route="/plain")
    server.run()
"""


def taken(channel: Channel) -> list[bytes]:
    """The payloads of the next batch, which is answered."""
    items = channel.take()
    assert items
    bodies = [bytes(item) for item in items]
    for item, body in zip(items, bodies, strict=True):
        channel.publish(item, [body], 0, TEXT)
    return bodies


def gather(engine: Engine, of: list[Client], *bodies: bytes) -> None:
    for number, (client, body) in enumerate(zip(of, bodies, strict=True), 1):
        client.send_post(body)
        engine.wait_until(lambda stats, number=number: stats["remaining"] == number)


def test_bytes_of_the_body() -> None:
    with running(stage={**MANY, "cost": "bytes", "max_batch_cost": 10}) as engine, clients(engine, 5) as five:
        gather(engine, five, b"12345", b"12345678", b"1234", b"123456789abc", b"12345")
        channel = engine.channel()
        assert [taken(channel) for _ in range(4)] == [
            [b"12345", b"1234"],
            [b"12345678"],
            [b"123456789abc"],
            [b"12345"],
        ]
        assert [client.answer().status for client in five] == [200] * 5
        assert engine.segment.stats()["stages"][1]["closed"]["cost"] == 3


def test_costs_of_the_stage_before() -> None:
    stage = {**MANY, "cost": "previous", "max_batch_cost": 100, "padded": True}
    with running(stages=2, stage=stage) as engine, clients(engine, 4) as four:
        gather(engine, four, b"50", b"3", b"49", b"3")
        first = engine.channel(1)
        items = first.take()
        assert items is not None
        assert len(items) == 4
        for item in items:
            item.cost = int(bytes(item))
            first.publish(item, [bytes(item)], 0, TEXT)
        engine.wait_until(lambda stats: stats["slots"][1]["batch_size"]["sum"] == 4)
        second = engine.channel(2)
        assert [sorted(taken(second)) for _ in range(2)] == [[b"49", b"50"], [b"3", b"3"]]
        assert [client.answer().status for client in four] == [200] * 4


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('"negative"', "cost returned -1: it must return a whole number from 0 to 4294967295"),
        ('"large"', "cost returned 4294967296: it must return a whole number from 0 to 4294967295"),
        ('"text"', "cost returned '7': it must return a whole number from 0 to 4294967295"),
        ('"float"', "cost returned 1.5: it must return a whole number from 0 to 4294967295"),
        ('"raise"', "what is that?"),
    ],
)
def test_a_wrong_cost_fails_that_item_alone(serve: Serve, body: str, said: str) -> None:
    service = serve(PROGRAM).wait_ready()
    with service.client() as client:
        answer = client.post("/inference", content=body)
        assert answer.status_code == 500
        if said not in answer.text:
            service.wait_output(re.escape(said))
        assert client.post("/inference", content='"well"').json() == "well"
        assert client.post("/plain", content=body).status_code == 200  # nobody asks for it there
