"""Fuzz input as numbers and bytes: settings come from its end, so that the text at its start stays text."""

from __future__ import annotations

from collections.abc import Iterator

from tests.guard_page import GuardedMemory

GUARDED = GuardedMemory()
"""Room for any input: what reads past it dies also in a build without sanitizers."""
MOST = 2048
"""Bytes of an input that are looked at."""


class Pieces:
    """Takes numbers off the end of an input; what is used up reads as 0."""

    def __init__(self, data: bytes) -> None:
        self.data = data[:MOST]

    def number(self, size: int = 1) -> int:
        """An unsigned number of at most `size` bytes."""
        taken, self.data = self.data[-size:], self.data[: -size or None]
        return int.from_bytes(taken, "little")

    def text(self, most: int) -> bytes:
        """Bytes whose count, up to `most`, is taken first."""
        count = self.number(2) % (most + 1)
        kept = max(len(self.data) - count, 0)
        taken, self.data = self.data[kept:], self.data[:kept]
        return taken

    def __bool__(self) -> bool:
        return bool(self.data)


def ways_to_cut(data: bytes, place: int) -> Iterator[list[int]]:
    """Lists of the ends of parts: in two at each place if the data is short, else in two at one; byte by byte."""
    for cut in range(len(data)) if len(data) <= 80 else [place % len(data)]:
        yield [cut, len(data)]
    if len(data) <= 400:
        yield list(range(1, len(data) + 1))
