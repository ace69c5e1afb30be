"""What a process takes for the shared memory of its service: nothing that it would read or map past the end of."""

from __future__ import annotations

import os
import struct

import pytest

from mosec_cy._engine.segment import Segment

FIELDS = struct.Struct("<QIIIIQQ")
"""Magic, version, slots, tasks, routes, budget, size; the capacities of the rings follow, two for each slot."""
BUDGET = 1 << 20


def file_of(content: bytes, size: int) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    os.pwrite(fd, content[:size], 0)
    return fd


def header(slots: int) -> bytes:
    """The header of a valid segment, which says that it has so many slots instead."""
    made = Segment.create([(64, 64), (16, 32)], 64, BUDGET, 2)
    fields = list(FIELDS.unpack(os.pread(made.fd, FIELDS.size, 0)))
    made.close()
    return FIELDS.pack(*fields[:2], slots, *fields[3:]) + struct.pack("<2I", 16, 16) * slots


@pytest.mark.parametrize("size", [0, 1, 40, 4095, 4096, 8192, 32768])
@pytest.mark.parametrize("slots", [2, 507, 4096])
def test_a_file_that_is_shorter_than_its_header_says_is_refused(slots: int, size: int) -> None:
    fd = file_of(header(slots), size)
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Segment.attach(fd)
    os.close(fd)


@pytest.mark.parametrize("slots", [1, 2, 506, 507, 4096])
def test_as_many_slots_as_there_can_be_are_attached(slots: int) -> None:
    """With a header of one page, and of several."""
    made = Segment.create([(16, 16)] * slots, 64, BUDGET, 2)
    attached = Segment.attach(os.dup(made.fd))
    assert attached.layout() == made.layout()
    attached.close()
    made.close()


def test_one_that_is_a_page_short_is_refused() -> None:
    made = Segment.create([(16, 16)], 64, BUDGET, 2)
    size = made.layout()["size"]
    fd = file_of(os.pread(made.fd, 4096, 0), size - 4096)
    with pytest.raises(ValueError, match=f"{size - 4096} bytes where {size} were expected"):
        Segment.attach(fd)
    os.close(fd)
    made.close()
