"""A worker that hangs in `start` or `step`, where no signal reaches it: killed, and what it had not taken is served."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from mosec_cy import StepWorker
from mosec_cy._process.loop import serve
from tests.engine import SLOT_DEAD, SLOT_KILLED, SLOT_OVERDUE
from tests.http_client import Client, clients
from tests.interop.slots import JSON, Worker, running

MS = 1_000_000
STAGE = {"timeout_ns": 50 * MS, "max_batch_size": 2, "joins": True}


class Hanging(StepWorker):
    """Hangs where its request says."""

    def deserialize(self, data: Any) -> Any:
        return bytes(data)

    def start(self, item: bytes) -> bytes:
        if item == b"start":
            hang()
        return item

    def step(self, states: list[bytes]) -> list[tuple[bool, bytes]]:
        if b"step" in states:
            hang()
        return [(item != b"stays", item) for item in states]

    def serialize(self, data: Any) -> Any:
        return data


def hang() -> None:
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # hours in C, where no signal handler runs


def behave(channel: Any, say: Any) -> None:
    worker = Hanging()
    worker.max_batch_size = 2
    serve(channel, worker, is_first=True, is_last=True, content_type=JSON)


@pytest.mark.parametrize("where", [b"start", b"step"])
def test_a_worker_that_hangs_is_killed(where: bytes) -> None:
    with running(stage=STAGE, kill_grace_ns=50 * MS) as engine, clients(engine, 3) as (stays, hanging, waiting):
        first = Worker(engine, behave)
        stays.send_post(b"stays")
        engine.wait_until(lambda stats: stats["remaining"] == 1)
        hanging.send_post(where)
        waiting.send_post(b"waits")
        overdue = (408, b"mosec timeout error: `%s` timeout" % where)
        assert hanging.outcome() == overdue
        died = (500, b"inference internal error: the worker process died")
        assert stays.outcome() == (overdue if where == b"step" else died)
        assert [engine.news()[0] for _ in range(3)] == [SLOT_OVERDUE, SLOT_KILLED, SLOT_DEAD]
        first.reap()
        second = Worker(engine, behave, incarnation=2)
        assert waiting.outcome() == (200, b"waits")
        second.stop()


def test_one_stays_while_others_come_and_go() -> None:
    limits = {"service_timeout_ns": 10_000 * MS, "kill_grace_ns": MS, "stall_margin_ns": MS}
    with running(stage=STAGE, **limits) as engine, Client(engine) as client, Client(engine) as other:
        worker = Worker(engine, behave)
        client.send_post(b"stays")
        for _ in range(50):
            assert other.post(b"goes").outcome == (200, b"goes")
        client.leave()
        engine.wait_until(lambda stats: stats["remaining"] == 0)
        worker.stop()
