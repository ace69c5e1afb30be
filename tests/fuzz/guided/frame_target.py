"""A payload between stages whose descriptor and frame anybody may have written: a slot looks into its block only."""

from __future__ import annotations

import mmap
import struct
from typing import Any

from mosec_cy._engine import worker
from mosec_cy._engine.segment import Segment
from mosec_cy._engine.worker import Channel
from tests.drivers.pool import BlockPool
from tests.drivers.ring import Ring
from tests.fuzz.guided.pieces import Pieces

BUDGET, TASKS, CAPACITY = 1 << 20, 64, 64
SLOT, SLOTS = 1, 2
HEADER, ENTRY = struct.Struct("<IIQQ"), struct.Struct("<QQ")
FRAMED, DISPATCHED = 1, 1
MOST_BUFFERS = 65536


class _Unpickler:
    """Stands where `pickle` does in the reader of frames: the bytes of a pickle are trusted, where it lies is not."""

    @staticmethod
    def loads(pickled: memoryview, *, buffers: list[memoryview]) -> tuple[bytes, list[bytes]]:
        return bytes(pickled), [bytes(buffer) for buffer in buffers]


class _Stages:
    """Shared memory with one slot that takes, and core's side of it by hand."""

    def __init__(self) -> None:
        self.segment = Segment.create([(CAPACITY, CAPACITY)] * SLOTS, TASKS, BUDGET, 1)
        self.memory = mmap.mmap(self.segment.fd, 0)
        layout = self.segment.layout()
        self.words = layout["words"]
        submit, complete = layout["rings"][SLOT]
        self.tasks, self.answers = Ring(self.memory, CAPACITY, submit), Ring(self.memory, CAPACITY, complete)
        self.base = layout["pool"]
        self.pool = BlockPool(memoryview(self.memory)[self.base :], BUDGET, 65536, 0, SLOTS + 1)
        self.slot = Channel(self.segment, SLOT, 1, -1)  # nobody sleeps at core's bell
        self.sequence = 0

    def hand(self, entry: int, block: int, offset: int, length: int, flags: int) -> list[Any]:
        """What the slot takes of a task that core hands to it with this payload."""
        self.sequence += 1
        if entry < TASKS:
            word = self.words + 8 * entry
            self.memory[word : word + 8] = struct.pack("<Q", self.sequence << 32 | DISPATCHED)
        assert self.tasks.push((entry, self.sequence, block, length, offset, 1, 1, 0, 0, flags))
        self.tasks.publish()
        return self.slot.take_now()

    def settle(self, item: Any) -> None:
        self.slot.publish_end(item)
        assert self.answers.pop() is not None
        self.answers.release()


_stages: list[_Stages] = []


def frame(data: bytes) -> None:
    """A task with a framed payload: any numbers in the descriptor, any bytes in the frame."""
    if not _stages:
        _stages.append(_Stages())
    stages, pieces = _stages[0], Pieces(data)
    kind, entry = pieces.number(), pieces.number()
    offset, length, number = pieces.number(4), pieces.number(8), pieces.number(4)
    text = pieces.data
    block = stages.pool.allocate(min(64 + len(text) << (kind & 7), 1 << 18), 0)
    at = stages.base + stages.pool.offset(block)
    stages.memory[at + 64 : at + 64 + len(text)] = text
    if not kind & 64:
        offset, length = 64, len(text)
    named = number if kind & 128 else block
    try:
        _take(stages, entry % (TASKS + 2), named, offset, length)
    finally:
        stages.pool.drop_core(block)
    assert stages.pool.count() == (0, 0)


def _take(stages: _Stages, entry: int, block: int, offset: int, length: int) -> None:
    items = stages.hand(entry, block, offset, length, FRAMED)
    assert len(items) == (entry < TASKS)
    payload = b""
    if stages.pool.check(block, offset, length) == 0:
        start = stages.base + stages.pool.offset(block) + offset
        payload = stages.memory[start : start + length]
    for item in items:
        assert bytes(item) == payload
        trusted, worker.pickle = worker.pickle, _Unpickler
        try:
            loaded = stages.slot.load_pickle(item)
        except ValueError:
            loaded = None
        finally:
            worker.pickle = trusted
        assert loaded == expected(payload)
        stages.settle(item)


def expected(payload: bytes) -> tuple[bytes, list[bytes]] | None:
    """Pickle and buffers of a frame, or None for one that is malformed."""
    if len(payload) < HEADER.size:
        return None
    count, _, at, length = HEADER.unpack_from(payload)
    if count > MOST_BUFFERS or HEADER.size + count * ENTRY.size > len(payload) or at + length > len(payload):
        return None
    entries = [ENTRY.unpack_from(payload, HEADER.size + i * ENTRY.size) for i in range(count)]
    if any(start + n > len(payload) for start, n in entries):
        return None
    return payload[at : at + length], [payload[start : start + n] for start, n in entries]
