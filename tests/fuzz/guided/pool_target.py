"""A pool whose words anybody may write: each call does what the word at hand says, to that word and nothing else."""

from __future__ import annotations

import struct

from tests.drivers.pool import BAD_BLOCK, LEASED, NONE, NOT_HELD, OK, BlockPool, lessee
from tests.fuzz.guided.pieces import Pieces
from tests.guard_page import PAGE, GuardedMemory

BUDGET, MOST = 8 << 10, 5
CORE = 1 << 63
CLASSES = ((1 << 10, 0, 5), (2 << 10, 8, 4), (4 << 10, 16, 2))  # bytes, first, count
SIZES = {first + i: size for size, first, count in CLASSES for i in range(count)}
WORDS = 24
SLOTS = 2

MEMORY = GuardedMemory(-(-BlockPool.bytes_needed(BUDGET, MOST) // PAGE))


class _Pool:
    """Core's and two slots' views of one pool."""

    def __init__(self) -> None:
        self.memory = MEMORY.first(bytes(BlockPool.bytes_needed(BUDGET, MOST)))
        self.views = [BlockPool(self.memory, BUDGET, MOST, process, SLOTS + 1) for process in range(SLOTS + 1)]
        assert tuple(self.views[0].classes()) == CLASSES

    def words(self) -> dict[int, int]:
        """All words, those of no block too."""
        return dict(enumerate(struct.unpack_from(f"<{WORDS}Q", self.memory, PAGE)))

    def write(self, at: int, value: int) -> None:
        self.memory[at : at + 8] = value.to_bytes(8, "little")

    def touched(self, size: int) -> int:
        return int.from_bytes(self.memory[8 * size : 8 * size + 8], "little")

    def known(self) -> dict[int, int]:
        """The words of blocks that the map does not leave out."""
        words = self.words()
        return {
            first + i: words[first + i]
            for size, (_, first, count) in enumerate(CLASSES)
            for i in range(count)
            if self.touched(size) & 1
        }

    def allocate(self, process: int, size: int, name: int) -> None:
        before = self.words()
        free = {block: SIZES[block] for block in SIZES if SIZES[block] >= size and before[block] == 0}
        block = self.views[process].allocate(size, name)
        if block is None:
            assert not free
            assert self.words() == before
        else:
            assert free[block] == min(free.values())
            assert self.words() == before | {block: name or CORE}

    def change(self, what: str, process: int, block: int, name: int) -> None:
        before = self.words()
        word = before.get(block, 0)
        arguments = (block,) if what == "drop_core" else (block, name)
        code = getattr(self.views[process], what)(*arguments)
        expected, after = expected_change(what, word, name) if block in SIZES else (BAD_BLOCK, word)
        assert code == expected
        assert self.words() == (before | {block: after} if block in before else before)

    def sweep(self, name: int) -> None:
        before = self.words()
        claims = {block: word & CORE for block, word in self.known().items() if name and word & ~CORE == name}
        assert self.views[0].sweep(name) == len(claims)
        assert self.words() == before | claims

    def look(self, block: int, offset: int, length: int) -> None:
        pool = self.views[0]
        size = SIZES.get(block, 0)
        assert pool.block_size(block) == size
        assert pool.check(block, offset, length) == (OK if size and offset + length <= size else BAD_BLOCK)
        at = pool.offset(block)
        assert (at is None) == (size == 0)
        if at is not None:
            assert 2 * PAGE <= at <= len(self.memory) - size
        words = self.known().values()
        assert pool.count() == (sum(word >= CORE for word in words), sum(word & ~CORE != 0 for word in words))


def expected_change(what: str, word: int, name: int) -> tuple[int, int]:
    """Result and word after, of a word that exists."""
    if what == "lease":
        return (OK, CORE | name) if word == CORE else (LEASED if word & CORE else NOT_HELD, word)
    if what == "drop_lease":
        return (OK, word & CORE) if name and word & ~CORE == name else (NOT_HELD, word)
    if what == "take_over":
        return (OK, CORE) if name and word == name else (NOT_HELD, word)
    return (OK, word & ~CORE) if word & CORE else (NOT_HELD, word)


def pool(data: bytes) -> None:
    """A sequence of calls by core and two slots, and of writes by anybody."""
    shared, pieces = _Pool(), Pieces(data)
    names = [0, lessee(0, 1), lessee(1, 1), lessee(1, 2)]
    interesting = [0, CORE, *names[1:], *(CORE | name for name in names[1:]), 1, CORE - 1, 2 * CORE - 1]
    changes = ("lease", "drop_lease", "take_over", "drop_core")
    while pieces:
        step, which = pieces.number() % 10, pieces.number()
        name = names[which & 3]
        block = pieces.number() % 26
        block = (5, NONE)[block - WORDS] if block >= WORDS else block
        if step < 2:
            shared.allocate(which & 3 and 1 + which % SLOTS, pieces.number(2) % 6000, name)
        elif step < 6:
            shared.change(changes[step - 2], 0 if step >= 4 else 1 + which % SLOTS, block, name or names[1])
        elif step == 6:
            shared.sweep(name)
        elif step == 7:
            shared.look(block, pieces.number(2) if which & 4 else pieces.number(8), pieces.number(2))
        elif step == 8:
            value = pieces.number(8) if which == 255 else interesting[which % len(interesting)]
            shared.write(PAGE + 8 * (block % WORDS), value)
        else:
            shared.write(8 * (which % len(CLASSES)), pieces.number(8))
