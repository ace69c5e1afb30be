"""Two real processes race for dispatched tasks: core reclaims what the slot starts at the same time."""

import mmap
import os
import signal
import struct
import traceback
from typing import BinaryIO

import pytest

from tests.drivers.batcher import Scheduler

TASKS = 512
ROUNDS = 200
RECLAIM_NS = 1_000_000
GO = 8 * TASKS  # behind the words: number of the round that may start
GONE = GO + 4  # number of the round that the slot has started
PAIR = struct.Struct("=II")
Tasks = list[tuple[int, int]]


def send(pipe: BinaryIO, tasks: Tasks) -> None:
    pipe.write(PAIR.pack(len(tasks), 0) + b"".join(PAIR.pack(*task) for task in tasks))
    pipe.flush()


def receive(pipe: BinaryIO) -> Tasks:
    (count, _) = PAIR.unpack(pipe.read(PAIR.size))
    return list(PAIR.iter_unpack(pipe.read(PAIR.size * count)))


def wait_for(shared: mmap.mmap, offset: int, turn: int) -> None:
    while (seen := struct.unpack_from("=I", shared, offset)[0]) != turn:
        assert seen < turn, "the other process has failed"


def slot_process(s: Scheduler, shared: mmap.mmap, descriptors: BinaryIO, won: BinaryIO) -> None:
    for turn in range(1, ROUNDS + 1):
        tasks = receive(descriptors)
        if turn % 2:
            tasks.reverse()  # meet in the middle; in even rounds both run along the same words
        send(won, [])
        wait_for(shared, GO, turn)
        struct.pack_into("=I", shared, GONE, turn)
        send(won, [task for task in tasks if s.start(*task)])


def race(s: Scheduler, shared: mmap.mmap, turn: int, descriptors: BinaryIO, won: BinaryIO) -> tuple[int, int]:
    """One round; how many tasks core and the slot have won."""
    now = turn * 10 * RECLAIM_NS
    for slot in (0, 1):
        s.set_room(slot, TASKS)
    for _ in range(TASKS):
        s.enqueue(s.new(), 0, now)
    batch = s.next_batch(0, now)
    assert batch is not None
    slot, tasks = batch  # idle slots take turns; it is the same process that stands for each
    send(descriptors, tasks)
    assert receive(won) == [], "ready"
    struct.pack_into("=I", shared, GO, turn)
    if turn % 4 < 2:  # the slot has the start, else core: both win some, however few processors there are
        wait_for(shared, GONE, turn)
    s.reclaim(now + RECLAIM_NS)
    started = receive(won)

    taken = s.queue(0)
    assert sorted([entry for entry, _ in started] + taken) == list(range(TASKS)), "one winner each"
    assert sorted(s.ring(slot)) == sorted(entry for entry, _ in started)
    for entry, sequence in started:
        assert s.complete(slot, entry, sequence, now + RECLAIM_NS) is not None
        s.free(entry)
    for entry in taken:
        assert s.withdraw(entry)
        s.free(entry)
    return len(taken), len(started)


@pytest.mark.timeout(120)
def test_each_task_has_one_winner() -> None:
    shared = mmap.mmap(-1, GONE + 4)
    # The other slot is idle, which makes reclaiming worth while. It gets nothing: what is reclaimed is withdrawn.
    s = Scheduler([(TASKS, 0, 2)], max_tasks=TASKS, ring_capacity=TASKS, words=memoryview(shared)[:GO])
    s.slot_up(0)
    s.slot_up(1)
    descriptors, won = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(descriptors[1])
            with os.fdopen(descriptors[0], "rb") as reader, os.fdopen(won[1], "wb") as writer:
                slot_process(s, shared, reader, writer)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            struct.pack_into("=I", shared, GONE, ROUNDS + 1)
        finally:
            os._exit(1)
    os.close(descriptors[0])
    os.close(won[1])
    wins = (0, 0)
    try:
        with os.fdopen(descriptors[1], "wb") as writer, os.fdopen(won[0], "rb") as reader:
            for turn in range(1, ROUNDS + 1):
                core, slot = race(s, shared, turn, writer, reader)
                wins = (wins[0] + core, wins[1] + slot)
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # it may spin for a round that will not come
        raise
    finally:
        status = os.waitpid(pid, 0)[1]
    assert status == 0
    assert min(wins) > 0, f"no race has taken place: {wins}"
