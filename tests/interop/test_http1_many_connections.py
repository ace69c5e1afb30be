"""Many connections, the limits of their number, and what the loop does when there is nothing to do."""

from __future__ import annotations

import contextlib
import os
import select
import time

from mosec_cy._engine.worker import Channel
from tests.accounting import status, switches, wait_asleep
from tests.crowd import descriptors, give_descriptors, take_descriptors
from tests.engine import SECOND, SHUTDOWN, SLOT_DEAD, STOPPED, Engine
from tests.http_client import Client, get, request
from tests.interop.http1 import barrier, core, echo, serving
from tests.until import until

RETRIES = 20  # wake-ups, each with the tick of a timer, in which core tries in half a second whether it may open more


def assert_quiet(engine: Engine, wakes: int = 0) -> None:
    """Core sleeps, and is woken so often at most during half a second."""
    pid = engine.process.pid
    wait_asleep(pid)
    before = switches(pid)
    select.select([], [], [], 0.5)
    assert switches(pid) - before <= wakes


def test_a_thousand_connections() -> None:
    with descriptors(4096), serving() as engine, contextlib.ExitStack() as stack:
        barrier(engine)
        before = status(engine.process.pid, "RssAnon")
        clients = [stack.enter_context(Client(engine)) for _ in range(1000)]
        for i, client in enumerate(clients):
            client.send(request(b"body %d" % i))
        for i, client in enumerate(clients):
            assert client.answer().body == b"body %d" % i
        assert engine.segment.stats()["connections"] == 1000
        assert status(engine.process.pid, "RssAnon") - before <= 4096  # kB; also proves that idle ones keep no buffers
        for client in reversed(clients):
            client.send(get())
        for client in clients:
            assert client.answer().status == 200


def test_more_than_the_connections_that_are_allowed() -> None:
    with serving(max_connections=10) as engine, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(engine)) for _ in range(10)]
        assert {client.ask(get()).status for client in clients} == {200}
        late = [stack.enter_context(Client(engine)) for _ in range(5)]
        for i, client in enumerate(late):
            client.send(request(b"late %d" % i))
        for client in clients:  # those inside are served while accepting is paused
            assert client.post(b"x").body == b"x"
        assert all(not client.readable() for client in late)
        assert_quiet(engine)
        for i, client in enumerate(late):
            clients[i].socket.close()
            assert client.answer().body == b"late %d" % i
            assert engine.segment.stats()["connections"] <= 10


def test_slots_are_used_again() -> None:
    with serving(max_connections=3) as engine:
        for i in range(200):
            with Client(engine) as client:
                assert client.post(b"%d" % i).body == b"%d" % i


def test_no_descriptors_left() -> None:
    with serving() as engine, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(engine)) for _ in range(10)]
        assert {client.ask(get()).status for client in clients} == {200}
        take_descriptors(engine.process.pid)
        late = stack.enter_context(Client(engine))
        late.send(request(b"late"))
        for client in clients:
            assert client.post(b"x").body == b"x"
        assert not late.readable()
        assert_quiet(engine, RETRIES)
        clients[4].socket.close()
        assert late.answer().body == b"late"
        give_descriptors(engine.process.pid)
        clients[5].socket.close()
        later = stack.enter_context(Client(engine))
        assert later.post(b"later").body == b"later"
        take_descriptors(engine.process.pid)
        last = stack.enter_context(Client(engine))
        last.send(request(b"last"))
        assert clients[0].post(b"x").body == b"x"
        assert not last.readable()
        give_descriptors(engine.process.pid)  # and nobody goes
        assert last.answer().body == b"last"


def test_no_descriptors_and_no_connection() -> None:
    # Nobody's going would make room: core tries again by itself.
    with serving() as engine:
        barrier(engine)
        engine.wait_until(lambda now: now["connections"] == 0)
        take_descriptors(engine.process.pid)
        with Client(engine) as client:
            client.send(get())
            ticks = status(engine.process.pid, "voluntary_ctxt_switches")
            until(lambda: status(engine.process.pid, "voluntary_ctxt_switches") >= ticks + 3)
            assert not client.readable()
            give_descriptors(engine.process.pid)
            assert client.answer().status == 200


def serve(channel: Channel) -> None:
    while (items := channel.take()) is not None:
        for item in items:
            echo(channel, item)


def test_some_descriptors_are_kept_back() -> None:
    # A worker that starts while the house is full brings a descriptor, and is watched by it.
    with contextlib.ExitStack() as stack:
        with descriptors(64):
            engine = stack.enter_context(core())
        clients = [stack.enter_context(Client(engine)) for _ in range(70)]
        clients[0].send(request(b"x"))
        engine.wait_until(lambda now: now["remaining"] == 1)
        assert engine.segment.stats()["connections"] < 60
        pid = engine.fork_worker(serve)
        try:
            assert clients[0].answer().body == b"x"
            clients[-1].send(request(b"y"))
            assert not clients[-1].readable()
            engine.segment.stop_slot(1)
            assert engine.news()[:2] == (SLOT_DEAD, 1)
        finally:
            engine.segment.stop_slot(1)
            os.waitpid(pid, 0)


def test_nothing_to_do_is_nothing_done() -> None:
    with serving() as engine, Client(engine) as fresh, Client(engine) as used, Client(engine) as partial:
        assert used.post(b"x").body == b"x"
        partial.send(get()[:-2])
        barrier(engine)
        assert_quiet(engine)
        assert partial.ask(b"\r\n").status == 200
        assert fresh.ask(get()).status == 200
        with Client(engine) as uploading, Client(engine) as lingering:
            uploading.send(request(bytes(100_000))[:-1])
            assert lingering.ask(b"\x16").status == 400
            barrier(engine)
        assert_quiet(engine)


def test_shutdown_ends_what_is_between_requests_and_finishes_what_is_not() -> None:
    with core() as engine, contextlib.ExitStack() as stack:
        idle, kept, working, uploading, fresh, pair = (stack.enter_context(Client(engine)) for _ in range(6))
        assert idle.ask(get()).status == 200
        assert kept.ask(get()).status == 200
        channel = engine.channel()
        working.send(request(b"at work"))
        (item,) = channel.take()
        pair.send(request(b"1") + request(b"2"))
        uploading.send(request(b"0123456789")[:-5])
        engine.wait_until(lambda now: now["remaining"] == 2)
        barrier(engine)
        kept.send(get("/nowhere"))  # with the order to stop, or just before it: answered, not reset
        engine.order(SHUTDOWN, value=time.monotonic_ns() + 60 * SECOND)
        assert idle.ended()
        assert kept.answer().status in (404, 503)
        late = fresh.post(b"late")
        assert (late.status, late.closes, late.body) == (503, True, b"gracefully shutting down")
        assert fresh.ended()
        refused = uploading.ask(b"56789")
        assert (refused.status, refused.closes) == (503, True)
        echo(channel, item)
        assert working.answer().body == b"at work"
        assert working.ended()
        (item,) = channel.take()
        echo(channel, item)
        first = pair.answer()
        assert (first.body, first.closes) == (b"1", True)
        assert pair.ended()
        pair.socket.close()
        assert engine.news()[0] == STOPPED
        assert engine.process.wait(20) == 0


def test_shutdown_ends_at_its_deadline() -> None:
    with core() as engine, Client(engine) as client:
        channel = engine.channel()
        client.send(request(b"x"))
        channel.take()
        engine.order(SHUTDOWN, value=time.monotonic_ns() + SECOND // 10)
        kind, *_, left = engine.news()
        assert (kind, left) == (STOPPED, 1)
        late = client.answer()
        assert (late.status, late.closes) == (503, True)
        assert client.ended()
        assert engine.process.wait(20) == 0


def test_shutdown_of_an_idle_core() -> None:
    with core() as engine, Client(engine) as idle, Client(engine) as silent:
        assert idle.ask(get()).status == 200
        engine.order(SHUTDOWN, value=time.monotonic_ns() + 60 * SECOND)
        assert idle.ended()
        assert engine.news()[0] == STOPPED
        assert engine.process.wait(20) == 0
        assert silent.gone()
