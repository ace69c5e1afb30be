"""Two real processes race for handed tasks: core takes back what the row starts at the same time."""

import mmap
import os
import signal
import struct
import traceback
from typing import BinaryIO

import pytest

from mosec_cy._scheduler import Scheduler

TASKS = 512
ROUNDS = 200
TAKE_BACK_NS = 1_000_000
GO = 8 * TASKS  # where the number of the round that may start is, behind the words
PAIR = struct.Struct("=II")
Tasks = list[tuple[int, int]]


def send(pipe: BinaryIO, tasks: Tasks) -> None:
    pipe.write(PAIR.pack(len(tasks), 0) + b"".join(PAIR.pack(*task) for task in tasks))
    pipe.flush()


def receive(pipe: BinaryIO) -> Tasks:
    (count, _) = PAIR.unpack(pipe.read(PAIR.size))
    return list(PAIR.iter_unpack(pipe.read(PAIR.size * count)))


def row_process(s: Scheduler, shared: mmap.mmap, descriptors: BinaryIO, won: BinaryIO) -> None:
    for turn in range(1, ROUNDS + 1):
        tasks = receive(descriptors)
        if turn % 2:
            tasks.reverse()  # meet in the middle; in even rounds both run along the same words
        send(won, [])
        while struct.unpack_from("=I", shared, GO)[0] != turn:
            pass
        send(won, [task for task in tasks if s.start(*task)])


def race(s: Scheduler, shared: mmap.mmap, turn: int, descriptors: BinaryIO, won: BinaryIO) -> tuple[int, int]:
    """One round; how many tasks core and the row have won."""
    now = turn * 10 * TAKE_BACK_NS
    s.set_room(0, TASKS)
    for _ in range(TASKS):
        s.enqueue(s.new(), 0, now)
    batch = s.next_batch(0, now)
    assert batch is not None and batch[0] == 0
    send(descriptors, batch[1])
    assert receive(won) == [], "ready"
    struct.pack_into("=I", shared, GO, turn)
    s.take_back(now + TAKE_BACK_NS)
    started = receive(won)

    taken = s.queue(0)
    assert sorted([slot for slot, _ in started] + taken) == list(range(TASKS)), "one winner each"
    assert sorted(s.ring(0)) == sorted(slot for slot, _ in started)
    for slot, sequence in started:
        assert s.complete(0, slot, sequence, now + TAKE_BACK_NS) is not None
        s.free(slot)
    for slot in taken:
        assert s.withdraw(slot)
        s.free(slot)
    return len(taken), len(started)


@pytest.mark.timeout(120)
def test_each_task_has_one_winner() -> None:
    shared = mmap.mmap(-1, GO + 4)
    # The second row is idle, which makes taking back worth while. It gets nothing: what is taken back is withdrawn.
    s = Scheduler([(TASKS, 0, 2)], slots=TASKS, ring_capacity=TASKS, words=memoryview(shared)[:GO])
    s.row_up(0)
    s.row_up(1)
    descriptors, won = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(descriptors[1])
            with open(descriptors[0], "rb") as reader, open(won[1], "wb") as writer:
                row_process(s, shared, reader, writer)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(descriptors[0])
    os.close(won[1])
    wins = (0, 0)
    try:
        with open(descriptors[1], "wb") as writer, open(won[0], "rb") as reader:
            for turn in range(1, ROUNDS + 1):
                core, row = race(s, shared, turn, writer, reader)
                wins = (wins[0] + core, wins[1] + row)
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # it may spin for a round that will not come
        raise
    finally:
        status = os.waitpid(pid, 0)[1]
    assert status == 0
    assert min(wins) > 0, f"no race has taken place: {wins}"
