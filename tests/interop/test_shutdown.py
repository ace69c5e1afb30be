"""A shutdown, seen by clients of core: whoever asks is answered, whoever has not asked yet is not reset."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from tests.engine import SECOND, SHUTDOWN, STOPPED, Engine
from tests.http_client import Client, receive_all, request
from tests.interop.slots import stopped
from tests.interop.steps import PORT_SHUT, SLEEP, Steps, stepped
from tests.until import PATIENCE

MS = 1_000_000
REFUSED = (503, "close", b"gracefully shutting down")


def shut_down(engine: Engine, within: int = 30 * SECOND) -> None:
    engine.order(SHUTDOWN, value=time.monotonic_ns() + within)


def rest_of(client: socket.socket) -> tuple[int, str | None, bytes]:
    """Status, connection header and body of the last answer on a connection that the server then closes in order."""
    status, headers, body = Client(client).last_answer()
    return status, headers.get("connection"), body


def assert_ends(engine: Engine, unfinished: int = 0) -> None:
    while (report := engine.news())[0] != STOPPED:
        pass
    assert report[4] == unfinished
    assert_ended(engine)


def assert_ended(engine: Engine) -> None:
    assert engine.process.wait(20) == 0
    with socket.socket() as late:
        assert late.connect_ex(("127.0.0.1", engine.port)) != 0  # although the test has the socket open still


@contextlib.contextmanager
def ended_by_test(**options: Any) -> Iterator[Engine]:
    """An engine that the test shuts down itself."""
    engine = Engine(**options)
    try:
        yield engine
    finally:
        engine.process.kill()
        engine.process.wait()
        engine.release()


@contextlib.contextmanager
def stepped_by_test() -> Iterator[tuple[Engine, Steps]]:
    """The same, and the steps of its core."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(stepped(lambda: stack.enter_context(ended_by_test())))


def test_with_nothing_under_way_it_ends() -> None:
    with ended_by_test() as engine:
        engine.channel()
        shut_down(engine)
        assert_ends(engine)


def test_who_asks_in_that_moment_is_answered() -> None:
    with ended_by_test() as engine, Client(engine) as idle, Client(engine) as fresh:
        engine.channel()
        assert idle.post(b"").status == 200
        with stopped(engine):
            shut_down(engine)
            idle.send_post(b"1")
            fresh.send_post(b"1")
            unaccepted = Client(engine).send_post(b"1")
        with unaccepted:
            for client in (idle, fresh, unaccepted):
                assert rest_of(client.socket) == REFUSED
        assert_ends(engine)


def test_who_asks_a_moment_later_is_answered() -> None:
    with ended_by_test() as engine, Client(engine) as idle, Client(engine) as busy:
        channel = engine.channel()
        assert idle.post(b"").status == 200
        busy.send_post(b"1")
        (item,) = channel.take() or ()
        shut_down(engine)
        with Client(engine) as fresh:  # by its answer the shutdown is known to have begun
            assert rest_of(fresh.send_post(b"1").socket) == REFUSED
        assert receive_all(idle.socket) == b""
        channel.answer(item, 200, b"2", 0)
        assert rest_of(busy.socket) == (200, "close", b"2")
        assert_ends(engine)


def test_who_has_not_asked_is_not_reset() -> None:
    with ended_by_test() as engine, Client(engine) as idle, Client(engine) as silent, Client(engine) as slow:
        engine.channel()
        assert idle.post(b"").status == 200
        slow.send(b"POST /inference HTTP/1.1\r\nhost: ")
        shut_down(engine)
        for client in (idle, silent, slow):
            assert receive_all(client.socket) == b""
        assert_ends(engine)


def test_queued_requests_are_finished() -> None:
    with ended_by_test() as engine, contextlib.ExitStack() as stack:
        channel = engine.channel()
        clients = [stack.enter_context(Client(engine)).send_post(b"%d" % number) for number in range(5)]
        items = list(channel.take() or ())
        engine.wait_until(lambda stats: stats["remaining"] == 5)
        shut_down(engine)
        for _ in clients:
            if not items:
                items = list(channel.take() or ())
            item = items.pop()
            channel.answer(item, 200, bytes(item), 0)
        assert [rest_of(client.socket) for client in clients] == [(200, "close", b"%d" % n) for n in range(5)]
        assert_ends(engine)


def test_who_waits_for_a_stage_without_a_worker_is_told_at_once() -> None:
    with ended_by_test(stages=2) as engine, Client(engine) as first, Client(engine) as second:
        channel = engine.channel(1)
        first.send_post(b"1")
        second.send_post(b"2")
        (item,) = channel.take() or ()
        shut_down(engine)
        channel.answer(item, 200, b"3", 0)  # it goes on to where nobody will ever take it
        (item,) = channel.take() or ()
        channel.answer(item, 200, b"4", 0)
        assert rest_of(first.socket) == REFUSED
        assert rest_of(second.socket) == REFUSED
        assert_ends(engine)


def test_who_is_late_is_told() -> None:
    with ended_by_test() as engine, Client(engine) as running, Client(engine) as queued, Client(engine) as sending:
        channel = engine.channel()
        running.send_post(b"1")
        assert channel.take()
        queued.send_post(b"2")
        sending.send(request(b"123")[:-1])
        engine.wait_until(lambda stats: stats["remaining"] == 2)
        shut_down(engine, 200 * MS)
        assert rest_of(running.socket) == REFUSED
        assert rest_of(queued.socket) == REFUSED
        assert rest_of(sending.socket) == REFUSED
        assert_ends(engine, unfinished=2)


# ---- in the last moment ------------------------------------------------------------------------------


def test_whose_handshake_is_under_way_is_answered() -> None:
    with stepped_by_test() as (engine, steps):
        # The handshake ends with the first bytes of the client, as if its ACK took as long as that over the network.
        engine.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
        with Client(engine) as far:
            steps.until(SLEEP)
            shut_down(engine)
            steps.next()  # core sleeps once more, before it looks for new clients for the last time
            assert engine.news()[0] == STOPPED
            far.send_post(b"1")
            with steps.freely():
                assert rest_of(far.socket) == REFUSED
                assert_ended(engine)


def test_who_connects_after_that_is_refused_and_not_reset() -> None:
    with stepped_by_test() as (engine, steps), connecting() as early, connecting() as late:
        steps.until(SLEEP)
        shut_down(engine)
        steps.next()
        assert early.connect_ex(("127.0.0.1", engine.port)) == errno.EINPROGRESS
        steps.until(PORT_SHUT)  # after its last look
        assert late.connect_ex(("127.0.0.1", engine.port)) == errno.EINPROGRESS
        with steps.freely():
            assert_ends(engine)
        assert [fate(early), fate(late)] == ["ECONNREFUSED"] * 2


def connecting() -> socket.socket:
    """A client that does not wait until it is connected."""
    client = socket.socket()
    client.setblocking(False)
    return client


def fate(client: socket.socket) -> str:
    """What its attempt to connect has led to; a client that was ignored has tried again by then."""
    assert select.select([], [client], [], PATIENCE)[1]
    return errno.errorcode.get(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "connected")


def test_who_asks_when_the_port_is_shut_is_answered() -> None:
    with stepped_by_test() as (engine, steps), Client(engine) as silent:
        shut_down(engine)
        steps.until(PORT_SHUT)
        steps.next()  # core sleeps, for the clients that it has
        silent.send_post(b"1")
        with steps.freely():
            assert rest_of(silent.socket) == REFUSED
            assert_ends(engine)
