"""Time-outs of the service and of a stage: clients have their 408 in time, whatever the worker does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from typing import Any

import pytest

from mosec_cy import Worker as UserWorker
from mosec_cy._process.loop import serve
from tests.engine import SECOND, SLOT_DEAD, SLOT_KILLED, SLOT_OVERDUE
from tests.http_client import Client, clients
from tests.interop.slots import JSON, TEXT, Worker, running

MS = 1_000_000
EXPIRED = (408, b"inference timeout")
OVERRUN = (408, b"mosec timeout error: `forward` timeout")
FOREVER = 1 << 20  # s


def test_what_expires_in_the_queue_is_never_run() -> None:
    with running(service_timeout_ns=50 * MS) as engine, Client(engine) as client:
        client.send_post(b"too late")
        assert client.outcome() == EXPIRED
        channel = engine.channel()
        client.send_post(b"in time")
        [item] = channel.take()
        assert bytes(item) == b"in time"
        channel.publish(item, [b"x"], 0, TEXT)
        assert client.outcome() == (200, b"x")
        assert engine.segment.stats()["late"] == 0


def test_what_expires_in_a_ring_is_never_run() -> None:
    with running(service_timeout_ns=50 * MS) as engine, clients(engine, 2) as two:
        channel = engine.channel()  # dispatched to its ring, but not taken
        assert two[0].send_post(b"too late").outcome() == EXPIRED
        two[1].send_post(b"in time")
        [item] = channel.take()
        assert bytes(item) == b"in time"
        channel.publish(item, [b"x"], 0, TEXT)
        assert two[1].outcome() == (200, b"x")


@pytest.mark.parametrize("stages", [1, 2])
def test_what_expires_while_it_runs_is_dropped(stages: int) -> None:
    with running(stages=stages, service_timeout_ns=50 * MS) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(b"slow")
        [item] = channel.take()
        assert client.outcome() == EXPIRED
        assert channel.is_cancelled(item)
        channel.publish(item, [b"late"], 0, TEXT)
        engine.wait_until(lambda stats: stats["late"] == 1)
        assert engine.segment.stats()["routes"][0][5] == 1  # 408s
        client.send_post(b"next")  # the connection lives on
        [item] = channel.take()
        channel.answer(item, 500, b"x")
        assert client.outcome() == (500, b"x")


def test_time_runs_over_all_stages_together() -> None:
    with running(stages=2, service_timeout_ns=200 * MS) as engine, Client(engine) as client:
        first = engine.channel(1)
        client.send_post(b"x")
        first.publish(first.take()[0], [b"y"], 0, TEXT)
        assert client.outcome() == EXPIRED  # no slot ever came to the second stage
        second = engine.channel(2)
        assert second.take_now() == []


class Behaviour(UserWorker):
    """Does as its request says."""

    def forward(self, data: Any) -> Any:
        if data == "spin":
            while True:
                pass
        if data == "stubborn":
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(FOREVER)
        if data == "ends well":
            try:
                time.sleep(FOREVER)
            finally:
                self.cleaned = True
        if data == "cleaned?":
            return getattr(self, "cleaned", False)
        if data == "deaf":
            hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # hours in C, where no signal handler runs
        return os.getpid()


def behave(channel: Any, say: Any) -> None:
    signal.set_wakeup_fd(-1)
    serve(channel, Behaviour(), is_first=True, is_last=True, content_type=JSON)


STAGE = {"timeout_ns": 100 * MS}


@pytest.mark.parametrize("how", ["spin", "stubborn", "ends well"])
def test_forward_that_overruns_is_interrupted(how: str) -> None:
    with running(stage=STAGE, kill_grace_ns=60 * SECOND) as engine, Client(engine) as client:
        worker = Worker(engine, behave)
        before = client.post(b"1").outcome
        assert client.post(b'"%s"' % how.encode()).outcome == OVERRUN
        assert client.post(b"1").outcome == before  # by the same process
        assert client.post(b'"cleaned?"').outcome == (200, b"true" if how == "ends well" else b"false")
        assert engine.news()[:2] == (SLOT_OVERDUE, 1)
        worker.stop()


def test_forward_that_does_not_yield_is_killed() -> None:
    with running(stage=STAGE, kill_grace_ns=100 * MS) as engine, clients(engine, 2) as two:
        deaf = Worker(engine, behave)
        two[0].send_post(b'"deaf"')
        engine.wait_until(lambda stats: stats["remaining"] == 1)
        two[1].send_post(b"1")  # waits in the queue for another process
        assert two[0].outcome() == OVERRUN
        kinds = (SLOT_OVERDUE, SLOT_KILLED, SLOT_DEAD)
        assert [engine.news()[:3] for _ in kinds] == [(kind, 1, 1) for kind in kinds]
        deaf.reap()
        again = Worker(engine, behave, incarnation=2)
        assert two[1].outcome() == (200, b"%d" % again.pid)
        again.stop()


def test_the_death_after_an_overrun_fails_nobody_twice() -> None:
    """Its client had its 408: the report counts only clients that the death has failed."""
    with running(stage=STAGE, kill_grace_ns=100 * MS) as engine, Client(engine) as client:
        worker = Worker(engine, behave)
        assert client.post(b'"deaf"').outcome == OVERRUN
        assert worker.ended() == 0


def test_a_batch_that_overruns_fails_as_a_whole() -> None:
    class Batching(Behaviour):
        def forward(self, data: Any) -> Any:
            return [Behaviour.forward(self, item) for item in data]

    def serve_batches(channel: Any, say: Any) -> None:
        worker = Batching()
        worker.max_batch_size = 3
        serve(channel, worker, is_first=True, is_last=True, content_type=JSON)

    stage = {"max_batch_size": 3, "max_wait_ns": 60 * SECOND, "timeout_ns": 100 * MS}
    with running(stage=stage) as engine, clients(engine, 3) as three:
        worker = Worker(engine, serve_batches)
        for body, client in zip((b"1", b'"spin"', b"2"), three, strict=True):
            client.send_post(body)
        assert [client.outcome() for client in three] == 3 * [OVERRUN]
        for client in three:
            client.send_post(b"1")
        assert [client.outcome() for client in three] == 3 * [(200, b"%d" % worker.pid)]
        worker.stop()


def test_only_forward_is_timed() -> None:
    """A pause of the slot elsewhere, or an old deadline, does not count against the next batch."""
    with running(stage=STAGE) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(b"x")
        [item] = channel.take()
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):  # it is being decoded for longer than `forward` may take
            client.answer()
        client.socket.settimeout(20)
        channel.begin_forward()
        assert not channel.overdue()
        channel.end_forward()
        channel.publish(item, [b"x"], 0, TEXT)
        assert client.outcome() == (200, b"x")
