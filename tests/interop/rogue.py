"""A slot that writes what no slot of ours would: the test writes in the name of a process that sleeps."""

from __future__ import annotations

import contextlib
import mmap
import signal
import struct
from collections.abc import Iterator
from typing import Any

from tests.drivers.pool import BlockPool, lessee
from tests.drivers.ring import Ring
from tests.engine import MIB, Engine
from tests.interop.slots import TEXT, Worker, ring_core, running, shared_memory
from tests.interop.streams import Reader

BUDGET = 4 * MIB
NO_BLOCK = 0xFFFFFFFF
STARTED = 2  # of a task's word
SLOT = 1


class Rogue:
    """A slot written by hand: its ends of the rings, and its view of the pool."""

    def __init__(self, engine: Engine, memory: mmap.mmap) -> None:
        layout = engine.segment.layout()
        submit, complete = layout["rings"][SLOT]
        self.tasks = Ring(memory, 256, submit)
        self.answers = Ring(memory, 256, complete)
        self.lessee = lessee(SLOT, 1)
        self.memory = memory
        self.words = layout["words"]
        self.base = layout["pool"]
        self.pool = BlockPool(memoryview(memory)[layout["pool"] :], BUDGET, 65536, 1 + SLOT, engine.slots + 1)

    def task(self, engine: Engine) -> tuple[int, ...]:
        """The next task, started."""
        engine.wait_until(lambda stats: self.tasks.has_news())
        descriptor = self.tasks.pop()
        self.tasks.release()
        assert descriptor is not None
        word = self.words + (descriptor[0] & 0xFFFFFFFF) * 8
        self.memory[word : word + 8] = struct.pack("Q", descriptor[1] << 32 | STARTED)
        return descriptor

    def block(self, text: bytes) -> int:
        """A block of its own with `text` where payloads begin (64 bytes from its start)."""
        block = self.pool.allocate(64 + len(text), self.lessee)
        at = self.base + self.pool.offset(block) + 64
        self.memory[at : at + len(text)] = text
        return block

    def task_of(self, reader: Reader, engine: Engine) -> tuple[int, ...]:
        """The task of a stream that the reader begins, started."""
        reader.begin()
        return self.task(engine)

    def answer(self, engine: Engine, *descriptors: tuple[int, ...]) -> None:
        for descriptor in descriptors:
            assert self.answers.push(descriptor)
        self.answers.publish()
        ring_core(engine)


def answer_to(task: tuple[int, ...], **fields: int) -> tuple[int, ...]:
    values = {"task": task[0], "sequence": task[1], "block": NO_BLOCK, "length": 0, "offset": 0, "batch": 0}
    values |= {"batch_size": 0, "status": 200, "content_type": TEXT, "flags": 0}
    return tuple((values | fields).values())


def pause(channel: Any, say: Any) -> None:
    signal.pause()


@contextlib.contextmanager
def rogue_slot(**options: Any) -> Iterator[tuple[Engine, Rogue, Worker]]:
    """A core, and a slot whose process sleeps while the test writes in its name."""
    with running(budget=BUDGET, **options) as engine:
        worker = Worker(engine, pause)
        yield engine, Rogue(engine, shared_memory(engine)), worker
        if worker in Worker.alive:
            worker.kill()
            worker.ended()
