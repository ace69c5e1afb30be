"""The master's loop."""

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from mosec_cy._master.reactor import Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_timers_in_the_order_of_their_deadlines(reactor: Reactor) -> None:
    happened: list[str] = []
    reactor.call_later(0.02, reactor.stop)
    reactor.call_later(0.01, lambda: happened.append("later"))
    reactor.call_later(0, lambda: happened.append("now"))
    reactor.run()
    assert happened == ["now", "later"]


def test_a_cancelled_timer_does_not_happen(reactor: Reactor) -> None:
    happened: list[str] = []
    reactor.call_later(0, lambda: happened.append("cancelled")).cancel()
    reactor.call_later(0.001, reactor.stop)
    reactor.run()
    assert happened == []


def test_a_timer_that_is_further_away_than_epoll_can_wait(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    reactor.call_later(1e9, pytest.fail)
    reactor.watch(ours.fileno(), reactor.stop)
    theirs.send(b"x")
    reactor.run()


def test_readable_descriptors(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    received = []

    def read() -> None:
        received.append(ours.recv(10))
        reactor.stop()

    reactor.watch(ours.fileno(), read)
    theirs.send(b"x")
    reactor.run()
    assert received == [b"x"]


def test_a_descriptor_that_another_callback_closed(reactor: Reactor) -> None:
    """Both are readable in one round; the first callback closes the second one's and reuses its number."""
    first, second = socket.socketpair(), socket.socketpair()
    happened = []

    def replace(own: socket.socket, other: socket.socket) -> None:
        happened.append("one of both")
        number = other.fileno()
        reactor.unwatch(number)
        other.close()
        replacement = os.dup(own.fileno())
        assert replacement == number
        reactor.watch(replacement, lambda: happened.append("the new one"))
        reactor.unwatch(own.fileno())
        reactor.call_later(0, reactor.stop)

    ours = first[0], second[0]
    for own, other in (ours, ours[::-1]):
        reactor.watch(own.fileno(), lambda own=own, other=other: replace(own, other))  # type: ignore[misc]
    first[1].send(b"x")
    second[1].send(b"x")
    reactor.run()
    assert happened == ["one of both"]
    for sock in (*first, *second):
        sock.close()


def test_signals_arrive_as_events_and_handlers_come_back(reactor: Reactor) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    caught: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        caught.append(number)
        reactor.stop()

    reactor.take_signals({signal.SIGUSR1}, on_signal)
    sender = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
    sender.start()
    reactor.run()
    sender.join()
    assert caught == [signal.SIGUSR1]
    reactor.close()
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_a_callback_raises_ends_the_run(reactor: Reactor) -> None:
    def fail() -> None:
        raise OSError("listen")

    reactor.call_later(0, fail)
    with pytest.raises(OSError, match="listen"):
        reactor.run()
