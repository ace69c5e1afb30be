"""Workers that are killed: who had started is answered at once, who had not is served by another process."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.engine import SLOT_DEAD, SLOT_DRAIN
from tests.http_client import Client, clients
from tests.interop.slots import TEXT, Worker, blocks_at_rest, running, shared_memory, stopped

DIED = (500, b"inference internal error: the worker process died")


def echo(channel: Any, say: Any) -> None:
    """Answers with its pid and the body; `hold` is taken and never answered."""
    while (items := channel.take()) is not None:
        for item in items:
            body = bytes(item)
            if body == b"hold":
                say(b"holds")
                signal.pause()
            channel.publish(item, [b"%d %s" % (os.getpid(), body)], 0, TEXT)


def sleeper(channel: Any, say: Any) -> None:
    """Never takes anything."""
    signal.pause()


def kill_in_forward(worker: Worker, client: Client) -> None:
    client.send_post(b"hold")
    assert worker.said() == b"holds"
    worker.kill()
    assert client.outcome() == DIED
    assert worker.ended() == 1


def test_killed_in_forward() -> None:
    with running() as engine, Client(engine) as client:
        worker = Worker(engine, echo)
        kill_in_forward(worker, client)


def test_killed_before_it_started() -> None:
    """The request lay in its ring: another process answers, the client notices nothing."""
    with running(slots=2) as engine, Client(engine) as client:
        first = Worker(engine, sleeper, slot=1)
        client.send_post(b"x")
        engine.wait_until(lambda stats: stats["remaining"] == 1)
        first.kill()
        assert first.ended() == 0
        second = Worker(engine, echo, slot=2)
        assert client.outcome() == (200, b"%d x" % second.pid)
        second.stop()


def test_killed_with_several_dispatched_ahead() -> None:
    with running(slots=2) as engine, clients(engine, 6) as six:
        first = Worker(engine, echo, slot=1)
        for _ in range(200):  # core learns that this slot is quick, so it gets work ahead
            six[0].post(b"x")
        with stopped(engine):
            for client in six:
                client.send_post(b"hold")
        assert first.said() == b"holds"
        engine.wait_until(lambda stats: stats["remaining"] == 6)
        submit = engine.segment.layout()["rings"][1][0]
        dispatched = shared_memory(engine)[submit : submit + 8]
        assert int.from_bytes(dispatched, "little") > 201  # more than the one that it holds
        first.kill()
        assert first.ended() == 1
        second = Worker(engine, echo, slot=2)
        assert second.said() == b"holds"
        second.kill()
        assert second.ended() == 1
        third = Worker(engine, sleeper, slot=1, incarnation=2)
        third.kill()
        assert third.ended() == 0
        # One was started by each of the slots that were killed then. The others are still waiting.
        engine.wait_until(lambda stats: stats["remaining"] == 4)
        for incarnation in range(3, 7):
            worker = Worker(engine, echo, slot=1, incarnation=incarnation)
            assert worker.said() == b"holds"
            worker.kill()
            assert worker.ended() == 1
        assert [client.outcome() for client in six] == 6 * [DIED]


def publish_and_die(channel: Any, say: Any) -> None:
    [item] = channel.take()
    channel.publish(item, [b"last words"], 0, TEXT)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_after_it_has_answered() -> None:
    """Core finds the answer and the death at once: the answer counts."""
    with running() as engine, Client(engine) as client:
        worker = Worker(engine, publish_and_die)
        engine.wait_until(lambda stats: stats["connections"] == 1)
        with stopped(engine):
            os.kill(worker.pid, signal.SIGSTOP)
            client.send_post(b"x")
        engine.wait_until(lambda stats: stats["remaining"] == 1)
        with stopped(engine):
            os.kill(worker.pid, signal.SIGCONT)
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        assert client.outcome() == (200, b"last words")
        assert worker.ended() == 0


def test_killed_between_writing_and_publishing() -> None:
    """A block that it had claimed for its answer is swept."""

    def write(channel: Any, say: Any) -> None:
        channel.take()
        kept = channel.new_buffer(100_000)
        kept[:4] = b"half"
        say(b"written")
        signal.pause()

    with running() as engine, Client(engine) as client:
        worker = Worker(engine, write)
        client.send_post(b"x")
        assert worker.said() == b"written"
        assert engine.segment.blocks() == (1, 1)
        worker.kill()
        assert client.outcome() == DIED
        worker.ended()
        assert engine.segment.blocks() == (0, 0)


def test_killed_in_the_middle_of_a_batch() -> None:
    """What it had answered counts, the rest fails."""

    def half(channel: Any, say: Any) -> None:
        items = channel.take()
        for item in items[:2]:
            channel.publish(item, [bytes(item)], 0, TEXT)
        say(b"half done")
        signal.pause()

    stage = {"max_batch_size": 4, "max_wait_ns": 1 << 50}
    with running(stage=stage) as engine, clients(engine, 4) as four:
        worker = Worker(engine, half)
        for number, client in enumerate(four):
            client.send_post(b"%d" % number)
            engine.wait_until(lambda stats, number=number: stats["remaining"] == number + 1 or number >= 2)
        assert worker.said() == b"half done"
        worker.kill()
        answers = [client.outcome() for client in four]
        assert answers == [(200, b"0"), (200, b"1"), DIED, DIED]
        assert worker.ended() == 2


def test_a_death_in_the_second_stage() -> None:
    with running(stages=2) as engine, clients(engine, 2) as two:
        first = engine.channel(1)
        second = Worker(engine, echo, slot=2)
        two[0].send_post(b"x")
        first.publish(first.take()[0], [b"hold"], 0, TEXT)
        assert second.said() == b"holds"
        two[1].send_post(b"y")
        first.publish(first.take()[0], [b"y"], 0, TEXT)
        engine.wait_until(lambda stats: stats["remaining"] == 2)
        second.kill()
        assert two[0].outcome() == DIED
        assert second.ended() == 1
        again = Worker(engine, echo, slot=2, incarnation=2)
        assert two[1].outcome() == (200, b"%d y" % again.pid)
        again.stop()


def test_each_life_of_a_slot_begins_with_empty_rings() -> None:
    """Rings of 256, used to different depths by each life, and more than once around."""
    with running() as engine, Client(engine) as client:
        for incarnation, requests in enumerate((1, 300, 7, 600), 1):
            worker = Worker(engine, echo, incarnation=incarnation)
            for number in range(requests):
                assert client.post(b"%d" % number).outcome == (200, b"%d %d" % (worker.pid, number))
            kill_in_forward(worker, client)


def test_a_lease_ends_with_the_process() -> None:
    def keep(channel: Any, say: Any) -> None:
        kept = []
        while (items := channel.take()) is not None:
            for item in items:
                kept.append(memoryview(item))
                channel.publish(item, [b"x"], 0, TEXT)

    with running() as engine, Client(engine) as client:
        for incarnation in (1, 2):
            worker = Worker(engine, keep, incarnation=incarnation)
            for _ in range(20):
                client.post(b"kept")
            assert blocks_at_rest(engine) == (0, 20)
            worker.kill()
            assert worker.ended() == 0
            assert engine.segment.blocks() == (0, 0)


@pytest.mark.parametrize("told", [True, False])
def test_a_death_that_core_hears_of_late(told: bool) -> None:
    """It had ended before its start was reported, or before it was reported ready."""
    with running() as engine, Client(engine) as client:
        client.send_post(b"x")
        engine.segment.begin_slot(1, 1)
        pid = os.posix_spawn("/bin/true", ["true"], {})
        pidfd = os.pidfd_open(pid)
        if not told:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        engine.ready(1, 1, pid, pidfd)
        os.close(pidfd)
        assert engine.news()[:3] == (SLOT_DEAD, 1, 1)
        os.waitpid(pid, 0)
        worker = Worker(engine, echo, incarnation=2)
        assert client.outcome() == (200, b"%d x" % worker.pid)
        worker.stop()


def test_drained_by_order_of_the_master() -> None:
    """A slot that is to end gets nothing more; what waits in its ring goes to another."""
    with running(slots=2) as engine, clients(engine, 2) as two:
        first = Worker(engine, echo, slot=1)
        two[0].send_post(b"hold")
        assert first.said() == b"holds"
        engine.order(SLOT_DRAIN, 1, 1)
        two[1].send_post(b"x")
        second = Worker(engine, echo, slot=2)
        assert two[1].outcome() == (200, b"%d x" % second.pid)
        first.kill()
        assert two[0].outcome() == DIED
        first.ended()
        second.stop()
