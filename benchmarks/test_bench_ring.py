"""The ring within one process, and a round trip between two."""

import mmap
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.drivers.ring import Doorbell, Ring

CAPACITY = 256
DESCRIPTOR = (1, 2, 3, 4, 5, 6, 7, 200, 0, 0)
BATCH = 64
STOP_MS = 1000


@pytest.mark.benchmark(group="ring: push, publish, pop, release")
def test_one_descriptor(benchmark: BenchmarkFixture) -> None:
    memory = mmap.mmap(-1, Ring.bytes_needed(CAPACITY))
    producer, consumer = Ring(memory, CAPACITY), Ring(memory, CAPACITY)

    def pass_on() -> None:
        producer.push(DESCRIPTOR)
        producer.publish()
        consumer.pop()
        consumer.release()

    benchmark(pass_on)


@pytest.mark.benchmark(group="ring: push, publish, pop, release")
def test_a_batch_without_the_cost_of_calls_from_python(benchmark: BenchmarkFixture) -> None:
    """64 descriptors, each published and followed by a look at the doorbell."""
    memory = mmap.mmap(-1, Ring.bytes_needed(CAPACITY))
    producer, consumer, bell = Ring(memory, CAPACITY), Ring(memory, CAPACITY), Doorbell(bytearray(8))

    def pass_on() -> None:
        producer.send_numbered(bell, 0, BATCH)
        assert consumer.receive_numbered(bell, 0, BATCH, 0) == BATCH

    benchmark(pass_on)


@dataclass
class Line:
    """This process's ends of two rings to an echoing process, and the bells of both."""

    there: Ring
    back: Ring
    echo_bell: Doorbell
    own_bell: Doorbell


def echo(line: Line) -> None:
    turn = 0
    while line.there.receive_numbered(line.echo_bell, turn, 1, STOP_MS):
        line.back.send_numbered(line.own_bell, turn, 1)
        turn += 1


@pytest.fixture
def line() -> Iterator[Line]:
    size = Ring.bytes_needed(CAPACITY)
    memory = mmap.mmap(-1, 128 + 2 * size)
    ends = Line(
        Ring(memory, CAPACITY, 128), Ring(memory, CAPACITY, 128 + size), Doorbell(memory, 0), Doorbell(memory, 64)
    )
    pid = os.fork()
    if pid == 0:
        try:
            echo(ends)
        finally:
            os._exit(0)
    yield ends
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.benchmark(group="ring: between two processes")
def test_round_trip_with_both_asleep(benchmark: BenchmarkFixture, line: Line) -> None:
    """There by a ring and a futex, and back the same way."""
    turn = 0

    def trip() -> None:
        nonlocal turn
        line.there.send_numbered(line.echo_bell, turn, 1)
        assert line.back.receive_numbered(line.own_bell, turn, 1, STOP_MS) == 1
        turn += 1

    benchmark(trip)
