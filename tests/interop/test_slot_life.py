"""A slot of the worker table over time: what core hears late of it, and what it leaves alone when nothing happens."""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel
from tests.accounting import status
from tests.engine import (
    SECOND,
    SLOT_DEAD,
    SLOT_DRAIN,
    SLOT_IDLE,
    SLOT_KILLED,
    SLOT_OVERDUE,
    SLOT_READY,
    SLOT_STARTED,
    Engine,
)
from tests.http_client import Client
from tests.interop.slots import TEXT, Worker, running


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(slots=2, stage={"timeout_ns": SECOND // 50})
    yield engine
    engine.close()


def echo(channel: Channel) -> None:
    while (items := channel.take()) is not None:
        for item in items:
            channel.answer(item, 200, b"%d " % os.getpid() + bytes(item), 0)


def test_a_slot_that_is_called_ready_after_its_death_gets_no_work(engine: Engine) -> None:
    dead = engine.fork_worker(echo, slot=1)
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
    assert engine.news()[:3] == (SLOT_DEAD, 1, 1)
    engine.order(SLOT_READY, 1, 1)  # master had heard of its readiness before its death, and core hears of it now
    with Client(engine) as client:
        client.send_post(b"first")
        # A new process in the dead one's place finds an empty ring: nothing was put there for the dead one.
        engine.wait_until(lambda stats: stats["remaining"] == 1)
        engine.segment.begin_slot(1, 2)
        ring = Channel(engine.segment, 1, 2, engine.core_bell)
        assert ring.take_now() == []
        living = engine.fork_worker(echo, slot=2)
        assert client.answer().body == b"%d first" % living
    engine.segment.stop_slot(2)
    os.waitpid(living, 0)


def test_core_sleeps_when_a_client_has_left_before_its_task_was_started(engine: Engine) -> None:
    engine.channel(1)  # never takes anything
    with Client(engine) as client:
        client.send_post(b"who leaves")
        engine.wait_until(lambda stats: stats["remaining"] == 1)
        client.reset()
    engine.wait_until(lambda stats: stats["remaining"] == 0 and stats["connections"] == 0)
    select.select([], [], [], 0.1)  # for what was due already, and then for ten times the stage's time-out
    before = status(engine.process.pid, "voluntary_ctxt_switches")
    select.select([], [], [], 0.2)
    assert status(engine.process.pid, "voluntary_ctxt_switches") == before


def test_a_slot_is_made_anew_when_its_tasks_words_are_corrupt(engine: Engine) -> None:
    start, go = os.pipe()

    def serve(channel: Channel) -> None:
        os.read(start, 1)
        echo(channel)

    pid = engine.fork_worker(serve, slot=1)
    with Client(engine) as client:
        client.send_post(b"lost")
        with mmap.mmap(engine.segment.fd, engine.segment.layout()["size"]) as memory:
            words = slice(engine.segment.layout()["words"], engine.segment.layout()["words"] + 64)
            engine.wait_until(lambda _: any(memory[words]))  # the task is dispatched
            memory[words] = bytes(64)  # now nobody can start it
        os.write(go, b"!")
        assert engine.news()[:3] == (SLOT_DEAD, 1, 1)  # or it would have no work any more, since it holds a task
        assert client.answer().status == 500
    os.waitpid(pid, 0)
    os.close(start)
    os.close(go)


def test_a_slot_that_is_to_end_is_reported_when_it_holds_nothing(engine: Engine) -> None:
    """At once, or when it has answered what it has begun; what it has not goes to others, as does all that comes."""
    engine.channel(1)
    engine.order(SLOT_DRAIN, 1, 1)
    assert engine.news()[:3] == (SLOT_IDLE, 1, 1)
    leaving = engine.channel(2)
    with Client(engine) as first, Client(engine) as second:
        first.send_post(b"begun")
        (begun,) = leaving.take()
        engine.order(SLOT_DRAIN, 2, 1)
        second.send_post(b"late")
        successor = engine.channel(1, 2)
        (late,) = successor.take()
        successor.answer(late, 200, b"by the successor", 0)
        assert second.outcome() == (200, b"by the successor")
        engine.control.setblocking(False)
        with pytest.raises(BlockingIOError):
            engine.control.recv(64)
        leaving.answer(begun, 200, b"by the one that leaves", 0)
        assert first.outcome() == (200, b"by the one that leaves")
        assert engine.news()[:3] == (SLOT_IDLE, 2, 1)


def test_a_replica_that_moves_to_another_slot_goes_on_counting(engine: Engine) -> None:
    with Client(engine) as client:
        for slot, counts_of in ((1, 0), (2, 1)):  # 0: the slot's own
            engine.segment.begin_slot(slot, 1)
            engine.order(SLOT_STARTED, slot, 1, value=counts_of)
            engine.order(SLOT_READY, slot, 1)
            channel = Channel(engine.segment, slot, 1, engine.core_bell)
            client.send_post(b"x")
            (item,) = channel.take()
            channel.answer(item, 200, b"y", 0)
            assert client.answer().status == 200
            engine.order(SLOT_DRAIN, slot, 1)
            assert engine.news()[:2] == (SLOT_IDLE, slot)
    counted = [sum(slot["duration"]["buckets"]) for slot in engine.segment.stats()["slots"]]
    assert counted == [0, 2, 0]


# ---- a slot that core cannot watch yet ------------------------------------------------------------


MS = 1_000_000


def serve(channel: Any, say: Any) -> None:
    """Answers, but for `hang`: that keeps it in `forward`, deaf to the signal of its overrun."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while (items := channel.take()) is not None:
        channel.begin_forward()
        while bytes(items[0]) == b"hang":
            signal.pause()
        channel.end_forward()
        channel.publish(items[0], [b"done"], 0, TEXT)


def test_a_worker_that_hangs_is_killed_once_there_is_a_descriptor_for_it() -> None:
    with running(stage={"timeout_ns": 50 * MS}, kill_grace_ns=50 * MS) as engine, Client(engine) as client:
        assert client.send_post(b"x", "/nowhere").answer().status == 404  # it is accepted
        soft, hard = resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, (3, hard))
        hanging = Worker(engine, serve)
        assert client.post(b"hang").status == 408
        assert [engine.news()[:3] for _ in range(2)] == [(SLOT_OVERDUE, 1, 1), (SLOT_KILLED, 1, 1)]
        assert os.waitid(os.P_PID, hanging.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert engine.news()[:3] == (SLOT_DEAD, 1, 1)
        hanging.reap()
        again = Worker(engine, serve, incarnation=2)
        assert client.post(b"x").outcome == (200, b"done")
        again.stop()
