"""Streams to clients that read slowly or not at all: memory stays bounded, and who is waited for is told apart."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel, Sender
from tests.engine import SECOND
from tests.http_client import get, receive_all
from tests.interop.http1 import core
from tests.interop.slots import shared_memory, stopped
from tests.interop.streams import TIMED_OUT, WINDOW, Gate, Reader, data, streaming
from tests.until import until

BIG = "x" * (WINDOW // 4)


def test_a_client_that_reads_nothing() -> None:
    """The worker waits, core holds no more than the window and its framing; when the client reads, all of it comes."""
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate) as engine, Reader(engine) as reader:
        reader.begin()
        engine.wait_until(lambda stats: stats["charged"] >= WINDOW // 2)  # the kernel takes no more
        with engine.connect() as other:  # the loop serves others meanwhile
            other.sendall(get(headers="connection: close\r\n"))
            assert b"MOSEC service" in receive_all(other)
        assert engine.segment.stats()["charged"] <= 4 * WINDOW
        assert gate.sent < 100
        expected = data("first", *[BIG] * 100)
        got = b""
        while len(got) < len(expected):
            got += reader.chunk()
            assert engine.segment.stats()["charged"] <= 4 * WINDOW
        assert got == expected
        assert reader.chunk() == b"" and gate.sent == 100


def test_a_client_that_leaves_while_the_worker_waits() -> None:
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate) as engine:
        with Reader(engine) as reader:
            reader.begin()
            engine.wait_until(lambda stats: stats["charged"] >= WINDOW // 2)
        assert gate.refused.wait(30) and gate.sent < 100


def test_a_client_that_never_reads_is_cut_off() -> None:
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate, write_timeout_ns=SECOND // 5) as engine, Reader(engine) as reader:
        reader.begin()
        assert gate.refused.wait(30) and gate.sent < 100
        engine.wait_until(lambda stats: stats["connections"] == 0)


def test_one_event_may_be_larger_than_the_window() -> None:
    text = "x" * (5 * WINDOW)
    gate = Gate([text, text])
    gate.go.set()
    with streaming(gate) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.rest_of_stream() == data("first", text, text)


def test_service_timeout_while_the_worker_waits_for_the_client() -> None:
    gate = Gate([BIG] * 100)
    gate.go.set()
    with streaming(gate, service_timeout_ns=SECOND // 2) as engine, Reader(engine) as reader:
        reader.begin()
        assert gate.refused.wait(30)
        assert reader.rest_of_stream() == data("first", *[BIG] * gate.sent) + TIMED_OUT


def test_core_is_behind_and_not_the_client() -> None:
    """A batch of two whose worker has sent more than the window before core gets to see any of it."""
    taken, behind, done = threading.Event(), threading.Event(), threading.Event()
    texts = [BIG] * 5

    def serve(channel: Channel) -> None:
        sender = Sender(channel)
        items = channel.take()
        assert len(items) == 2
        taken.set()
        assert behind.wait(30)
        for text in texts:
            sent.extend(sender.send(text, index) for index in range(2))
            if len(sent) == 6:
                done.set()  # three quarters of each window; the next but one has to wait for core
        for item in items:
            channel.publish_end(item)
        assert channel.take() is None

    sent: list[bool] = []
    stage = {"max_batch_size": 2, "max_wait_ns": 60 * SECOND}
    with core(streams=True, stage=stage) as engine, ExitStack() as stack:
        thread = threading.Thread(target=serve, args=(engine.channel(),))
        thread.start()
        readers = [stack.enter_context(Reader(engine)) for _ in range(2)]
        for reader in readers:
            reader.begin()
        assert taken.wait(30)
        with stopped(engine):
            behind.set()
            assert done.wait(30)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(Reader.rest_of_stream, readers)) == [data(*texts)] * 2
        assert sent == [True] * 10
        engine.segment.stop_slot(1)
        thread.join()


def entries(memory: mmap.mmap, ring: int) -> int:
    """How many a ring holds: the producer's index less the consumer's."""
    (head,), (tail,) = struct.unpack_from("Q", memory, ring), struct.unpack_from("Q", memory, ring + 64)
    return head - tail


def test_more_events_than_the_ring_holds() -> None:
    """While core stands still the worker waits, and keeps room for the answer; then all of it comes."""
    texts = [str(number) for number in range(2000)]
    gate = Gate(texts)
    with streaming(gate) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.until(b"\n\n") == data("first")
        memory, ring = shared_memory(engine), engine.segment.layout()["rings"][1][1]
        with stopped(engine):
            gate.go.set()
            until(lambda: entries(memory, ring) >= 128)
            assert entries(memory, ring) == 128  # half of it
        assert reader.rest_of_stream() == data(*texts)


@pytest.mark.parametrize("how", ["forward returns", "the slot is to end"])
def test_a_thread_that_waits_for_a_client(how: str) -> None:
    """It is told that it waits for nothing."""
    answers: list[bool] = []

    def send(sender: Sender) -> None:
        while not answers or answers[-1]:
            answers.append(sender.send(BIG, 0))

    with core(streams=True) as engine, Reader(engine) as reader:
        channel = engine.channel()
        sender = Sender(channel)
        reader.begin()
        (item,) = channel.take()
        thread = threading.Thread(target=send, args=(sender,))
        thread.start()
        engine.wait_until(lambda stats: stats["charged"] >= WINDOW // 2)
        if how == "forward returns":
            channel.publish_end(item)
            sender.wake()
        else:
            engine.segment.stop_slot(1)
        thread.join()
        assert answers[-1] is False
        if how != "forward returns":
            channel.publish_end(item)
        assert reader.rest_of_stream() == data(*[BIG] * (len(answers) - 1))


def test_a_child_of_a_worker_has_no_stream() -> None:
    """A process that user code forks shares the memory, but is not the slot."""

    def forward(sender: Sender, item: Any) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(sender.send("the child's", 0))
        statuses.append(os.waitpid(pid, 0)[1])
        sender.send("the worker's", 0)

    statuses: list[int] = []
    with streaming(forward) as engine, Reader(engine) as reader:
        reader.begin()
        assert reader.rest_of_stream() == data("the worker's")
        assert statuses == [0]
