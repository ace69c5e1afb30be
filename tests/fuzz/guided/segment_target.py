"""The header of the shared memory, as a process reads it that attaches after somebody has written there, or to a file
that is shorter."""

from __future__ import annotations

import os
import struct

from mosec_cy._engine.segment import Segment
from tests.fuzz.guided.pieces import Pieces

SLOTS, TASKS, BUDGET, ROUTES = [(64, 64), (16, 32)], 64, 1 << 20, 2
HEADER = struct.Struct("<QIIIIQQ4I")


def segment(data: bytes) -> None:
    """A valid header with a few fields written over: refused, or one that `create` could have made."""
    pieces = Pieces(data)
    made = Segment.create(SLOTS, TASKS, BUDGET, ROUTES)
    try:
        fields = list(HEADER.unpack(os.pread(made.fd, HEADER.size, 0)))
        for _ in range(pieces.number() % 4):
            which = pieces.number() % len(fields)
            most = 8 if which in (0, 5, 6) else 4
            kind = pieces.number()
            value = pieces.number(8) if kind == 255 else fields[which] ^ 1 << kind % 64
            fields[which] = value & (1 << 8 * most) - 1
        os.pwrite(made.fd, HEADER.pack(*fields), 0)
        less = 256 * pieces.number(2)
        _attach(_shortened(made, less) if less else os.dup(made.fd), fields)
    finally:
        made.close()


def _shortened(made: Segment, less: int) -> int:
    """A file with the same header that has `less` bytes less. (A segment's own is sealed.)"""
    size = max(made.layout()["size"] - less, 0)
    fd = os.memfd_create("short", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    os.pwrite(fd, os.pread(made.fd, HEADER.size, 0)[:size], 0)
    return fd


def _attach(fd: int, fields: list[int]) -> None:
    try:
        attached = Segment.attach(fd)
    except ValueError:
        os.close(fd)
        return
    try:
        slots = [(fields[7 + 2 * i], fields[8 + 2 * i]) for i in range(fields[2])]
        like = Segment.create(slots, fields[3], fields[5], fields[4])
        assert attached.layout() == like.layout()
        like.close()
    finally:
        attached.close()
