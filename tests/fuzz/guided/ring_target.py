"""A ring whose memory anybody may write: what each end does is what its private copies and one look at the peer say."""

from __future__ import annotations

import struct

from tests.drivers.ring import DESCRIPTOR_BYTES, Ring
from tests.fuzz.guided.pieces import Pieces
from tests.guard_page import PAGE, GuardedMemory

CAPACITY = 4
HEAD, TAIL, SLOTS = 0, 64, 128
DESCRIPTOR = struct.Struct("<QIIQIIIHHI20x")
WRAP = 1 << 64
CORRUPT = "corrupt"

MEMORY = GuardedMemory(1)


class _Ends:
    """Producer and consumer over hostile memory, and what each must know."""

    def __init__(self) -> None:
        self.memory = MEMORY.last(bytes(Ring.bytes_needed(CAPACITY)))
        self.producer, self.consumer = Ring(self.memory, CAPACITY), Ring(self.memory, CAPACITY)
        self.pushed, self.given_back = 0, 0  # producer: own index, the consumer's as last believed
        self.popped, self.published = 0, 0  # consumer: likewise

    def index(self, at: int) -> int:
        return int.from_bytes(self.memory[at : at + 8], "little")

    def slot(self, index: int) -> int:
        return SLOTS + index % CAPACITY * DESCRIPTOR_BYTES

    def look_for_space(self) -> bool:
        """False: the consumer's index is impossible."""
        tail = self.index(TAIL)
        if (self.pushed - tail) % WRAP > (self.pushed - self.given_back) % WRAP:
            return False
        self.given_back = tail
        return True

    def free(self) -> None:
        self.look_for_space()
        assert self.producer.free() == CAPACITY - (self.pushed - self.given_back)

    def push(self, descriptor: tuple[int, ...]) -> None:
        expected: object = True
        if self.pushed - self.given_back == CAPACITY:
            expected = CORRUPT if not self.look_for_space() else self.pushed - self.given_back < CAPACITY
        assert outcome(lambda: self.producer.push(descriptor)) == expected
        if expected is True:
            at = self.slot(self.pushed)
            assert DESCRIPTOR.unpack(self.memory[at : at + DESCRIPTOR_BYTES]) == descriptor
            self.pushed += 1

    def publish(self) -> None:
        self.producer.publish()
        assert self.index(HEAD) == self.pushed

    def pop(self) -> None:
        expected: object
        head = self.index(HEAD)
        if self.popped == self.published and (head - self.popped) % WRAP > CAPACITY:
            expected = CORRUPT
        elif self.popped == self.published == head:
            expected = None
        else:
            if self.popped == self.published:
                self.published = head
            at = self.slot(self.popped)
            expected = DESCRIPTOR.unpack(self.memory[at : at + DESCRIPTOR_BYTES])
            self.popped += 1
        assert outcome(self.consumer.pop) == expected

    def release(self) -> None:
        self.consumer.release()
        assert self.index(TAIL) == self.popped

    def has_news(self) -> None:
        assert self.consumer.has_news() == (self.popped != self.published or self.index(HEAD) != self.popped)


def outcome(act: object) -> object:
    try:
        return act()  # type: ignore[operator]
    except RuntimeError:
        return CORRUPT


def ring(data: bytes) -> None:
    """A sequence of steps of both ends and of somebody who writes into the memory."""
    assert DESCRIPTOR.size == DESCRIPTOR_BYTES and PAGE % 64 == 0
    ends, pieces = _Ends(), Pieces(data)
    steps = (ends.publish, ends.pop, ends.release, ends.has_news, ends.free)
    while pieces:
        step = pieces.number() % 10
        if step < len(steps):
            steps[step]()
        elif step < 7:
            ends.push(DESCRIPTOR.unpack(pieces.number(8).to_bytes(8, "little") * 8))
        elif step < 9:  # an index, near to what is possible or anything
            at = (HEAD, TAIL)[step - 7]
            near = pieces.number()
            value = pieces.number(8) if near == 255 else (ends.index(at) + near - 128) % WRAP
            ends.memory[at : at + 8] = value.to_bytes(8, "little")
        else:
            at = SLOTS + pieces.number() % (CAPACITY * DESCRIPTOR_BYTES)
            ends.memory[at] = pieces.number()
