"""Rings and doorbells between real processes. A lost wake-up shows as a sleep that outlasts a generous bound."""

import mmap
import os
import signal

import pytest

from tests.drivers.ring import Doorbell, Ring
from tests.stress.forked import Processes

BOUND_MS = 30_000
CAPACITY = 64
RING = Ring.bytes_needed(CAPACITY)
BELLS = 4096  # each bell on its own cache line
RINGS = 8192


def shared() -> mmap.mmap:
    return mmap.mmap(-1, 1 << 16)


def bell(memory: mmap.mmap, number: int) -> Doorbell:
    return Doorbell(memory, BELLS + 64 * number)


def ring(memory: mmap.mmap, number: int) -> Ring:
    return Ring(memory, CAPACITY, RINGS + RING * number)


@pytest.mark.timeout(120)
def test_millions_arrive_in_order_and_once(processes: Processes) -> None:
    count = 2_000_000
    memory = shared()
    producer = processes.start(lambda: ring(memory, 0).send_numbered(bell(memory, 0), 0, count))
    consumer = ring(memory, 0)
    assert consumer.receive_numbered(bell(memory, 0), 0, count, BOUND_MS) == count
    assert consumer.pop() is None
    processes.finish(producer)


@pytest.mark.timeout(120)
def test_every_field_crosses_whole(processes: Processes) -> None:
    count = 100_000
    memory = shared()

    def descriptor(n: int) -> tuple[int, ...]:
        return (n, n, n ^ 0xFFFFFFFF, n << 32, n, n * 3, n % 7, n & 0xFFFF, n >> 16, n)

    def produce() -> None:
        producer = ring(memory, 0)
        for n in range(count):
            while not producer.push(descriptor(n)):
                os.sched_yield()
            producer.publish()

    producing = processes.start(produce)
    consumer = ring(memory, 0)
    for n in range(count):
        while (got := consumer.pop()) is None:
            os.sched_yield()
        assert got == descriptor(n)
        consumer.release()
    processes.finish(producing)


@pytest.mark.timeout(120)
def test_no_wake_up_is_lost_between_two_who_wait_for_each_other(processes: Processes) -> None:
    """Each sleeps until the other has answered, so one lost wake-up stops both."""
    turns = 400_000
    memory = shared()

    def play(side: int) -> None:
        rings, bells = [ring(memory, 0), ring(memory, 1)], [bell(memory, 0), bell(memory, 1)]
        other = 1 - side
        assert rings[side].rally(bells[side], rings[other], bells[other], turns, side == 0, BOUND_MS) == turns

    returning = processes.start(lambda: play(1))
    play(0)
    processes.finish(returning)


@pytest.mark.timeout(120)
def test_two_ringers_of_one_bell_lose_no_wake_up(processes: Processes) -> None:
    """As slots ring core: each waits for its answer, so whoever's ring is lost stops."""
    turns, ringers = 40_000, 2
    memory = shared()

    def slot(number: int) -> None:
        submit, complete = ring(memory, 2 * number), ring(memory, 2 * number + 1)
        for n in range(turns):
            complete.send_numbered(bell(memory, 0), n, 1)
            assert submit.receive_numbered(bell(memory, 1 + number), n, 1, BOUND_MS) == 1

    def answer_all() -> None:
        own = bell(memory, 0)
        bells = [bell(memory, 1 + number) for number in range(ringers)]
        submits = [ring(memory, 2 * number) for number in range(ringers)]
        completes = [ring(memory, 2 * number + 1) for number in range(ringers)]
        answered = [0] * ringers
        while answered != [turns] * ringers:
            busy = False
            for number, complete in enumerate(completes):
                while (got := complete.pop()) is not None:
                    assert got[0] == answered[number]
                    complete.release()
                    submits[number].send_numbered(bells[number], got[0], 1)
                    answered[number] += 1
                    busy = True
            if not busy:
                seen = own.prepare()
                assert any(complete.has_news() for complete in completes) or own.wait(seen, BOUND_MS)
                own.awake()

    slots = [processes.start(lambda: slot(0)), processes.start(lambda: slot(1))]
    answer_all()
    for pid in slots:
        processes.finish(pid)


@pytest.mark.timeout(120)
def test_a_forced_ring_makes_up_for_a_ringer_that_was_killed_before_its_call(processes: Processes) -> None:
    memory = shared()
    own = bell(memory, 0)

    def ring_and_hang() -> None:
        assert bell(memory, 0).ring()
        memory[0] = 1
        signal.pause()

    def sleep() -> None:
        seen = own.prepare()
        memory[1] = 1
        assert own.wait(seen, BOUND_MS)

    own.prepare()
    ringer = processes.start(ring_and_hang)
    while not memory[0]:
        os.sched_yield()
    processes.kill(ringer)
    assert not bell(memory, 0).ring()  # a second ringer relies on the first
    sleeper = processes.start(sleep)
    while not memory[1]:
        os.sched_yield()
    bell(memory, 0).force()
    bell(memory, 0).wake()
    processes.finish(sleeper)
