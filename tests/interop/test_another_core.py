"""A slot goes over to the memory of another core."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mosec_cy._engine.segment import Segment
from mosec_cy._engine.worker import Channel, Sender
from tests.engine import MIB, Engine
from tests.http_client import Client
from tests.interop.slots import TEXT, blocks_at_rest

MARK = b"what a client sent"


class Cores:
    """A core that has died with a task under way, and the one after it."""

    def __init__(self, streams: bool = False) -> None:
        self.old = Engine(streams=streams)
        self.channel = self.old.channel()
        self.left: list[tuple[Segment, int]] = []
        with Client(self.old) as client:
            client.send_post(MARK)
            [self.item] = self.channel.take()
            self.old.process.kill()
            self.old.process.wait()
        self.new = Engine(streams=streams)
        self.new.segment.begin_slot(1, 1)

    def offer(self) -> Any:
        return self.channel.offer(self.new.segment, self.new.core_bell, lambda *left: self.left.append(left))

    def take(self) -> list[Any]:
        """The next batch, which is the new core's."""
        self.new.ready(1)
        items: list[Any] = self.channel.take()
        assert self.left == [(self.old.segment, self.old.core_bell)]
        return items

    def close(self) -> None:
        self.old.release()
        self.new.close()


@pytest.fixture
def cores() -> Iterator[Cores]:
    both = Cores()
    yield both
    both.close()


def test_tasks_of_the_core_before_are_cancelled(cores: Cores) -> None:
    assert not cores.channel.is_cancelled(cores.item)
    assert cores.offer() is None
    assert cores.channel.is_cancelled(cores.item)
    with Client(cores.new) as client:
        client.send_post(b"x")
        [item] = cores.take()
        assert cores.channel.is_cancelled(cores.item)
        assert not cores.channel.is_cancelled(item)
        cores.channel.publish(item, [b"y"], 0, TEXT)
        assert client.outcome() == (200, b"y")


def test_late_answers_go_nowhere(cores: Cores) -> None:
    """Whenever they come, and no block is lost by them."""
    late = cores.item
    view = memoryview(late)
    cores.offer()
    with Client(cores.new) as client:
        client.send_post(b"x")
        [item] = cores.take()
        assert cores.channel.publish(late, [b"to nobody"], 0, TEXT)
        assert cores.channel.publish_pickle(late, bytearray(MIB))
        cores.channel.answer(late, 500, b"to nobody")
        cores.channel.publish_end(late)
        cores.channel.publish(item, [b"y"], 0, TEXT)
        assert client.outcome() == (200, b"y")
    assert view == MARK
    assert blocks_at_rest(cores.new) == (0, 0)


def test_a_buffer_of_the_core_before_is_copied(cores: Cores) -> None:
    buffer = cores.channel.new_buffer(len(MARK))
    buffer[:] = MARK
    cores.offer()
    with Client(cores.new) as client:
        client.send_post(b"x")
        [item] = cores.take()
        outputs = [buffer]
        del buffer
        cores.channel.publish(item, outputs, 0, TEXT)
        assert client.outcome() == (200, MARK)
    assert blocks_at_rest(cores.new) == (0, 0)


def test_an_offer_that_is_replaced_is_given_back(cores: Cores) -> None:
    first = Segment.create([(64, 64)] * 2, 64, MIB, 2)
    bell = os.eventfd(0)
    assert cores.channel.offer(first, bell, pytest.fail) is None
    assert cores.offer() == (first, bell)
    os.close(bell)
    first.close()
    with Client(cores.new) as client:
        client.send_post(b"x")
        [item] = cores.take()
        cores.channel.publish(item, [b"y"], 0, TEXT)
        client.answer()


def test_memory_of_another_service_is_refused(cores: Cores) -> None:
    other = Segment.create([(64, 64)], 64, MIB, 2)
    with pytest.raises(ValueError, match="slot 1 of 1"):
        cores.channel.offer(other, 0, print)
    with pytest.raises(ValueError, match="1 slots and 2 routes where 2 and 2 were expected"):
        cores.new.segment.continue_counts(other)
    other.close()


def test_threads_that_wait_to_send_are_released() -> None:
    cores = Cores(streams=True)
    sender = Sender(cores.channel)
    results: list[bool] = []

    def send() -> None:
        while sender.send("x" * 400_000, 0):
            pass
        results.append(False)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    cores.offer()
    for thread in threads:
        thread.join(20)
    assert results == [False] * 3
    assert sender.send("x", 0) is False
    del cores.item
    cores.close()


def test_no_offer_is_slept_over() -> None:
    """The slot may be anywhere between its look and its sleep."""
    slots, rounds = [(64, 64)] * 2, 500
    segments = [Segment.create(slots, 64, MIB, 1) for _ in range(2)]
    for segment in segments:
        segment.begin_slot(1, 1)
    channel = Channel(segments[0], 1, 1, 0)
    taken = threading.Semaphore(0)
    taker = threading.Thread(target=lambda: results.append(channel.take()))
    results: list[object] = []
    taker.start()
    for round_ in range(1, rounds):
        channel.offer(segments[round_ % 2], 0, lambda *_: taken.release())
        assert taken.acquire(timeout=20), round_
    segments[(rounds - 1) % 2].stop_slot(1)
    taker.join(20)
    assert results == [None]
    for segment in segments:
        segment.close()
