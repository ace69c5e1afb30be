"""The header `x-request-timeout-ms`, line by line; through the parser in tests/interop/test_deadlines.py."""

from __future__ import annotations

import pytest

from tests.drivers.http_request import request_timeout
from tests.guard_page import GuardedMemory

MEMORY = GuardedMemory()
NOT_SENT, MALFORMED = 0, -1


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], NOT_SENT),
        ([b"1"], 1),
        ([b"250"], 250),
        ([b"0250"], 250),
        ([b"9" * 18], 10**18 - 1),
        ([b"5", b"5", b"005"], 5),
    ],
)
def test_well_formed(lines: list[bytes], expected: int) -> None:
    assert request_timeout(*lines) == expected


@pytest.mark.parametrize(
    "lines",
    [
        [b""],
        [b"0"],
        [b"000"],
        [b"-1"],
        [b"+1"],
        [b"1.5"],
        [b"1e3"],
        [b"0x10"],
        [b"1 "],
        [b"1 0"],
        [b"100ms"],
        [b"5, 5"],
        [b"\xd9\xa1"],  # a digit, but of another script
        [b"9" * 19],
        [b"1" + b"0" * 40],
        [b"5", b"6"],
        [b"5", b""],
        [b"", b"5"],
        [b"5", b"0", b"5"],
    ],
)
def test_malformed(lines: list[bytes]) -> None:
    assert request_timeout(*lines) == MALFORMED


def test_each_byte_that_is_no_digit_is_refused() -> None:
    for byte in range(256):
        value = bytes([byte])
        expected = int(value) if value.isdigit() and value != b"0" else MALFORMED
        assert request_timeout(value) == expected
        assert request_timeout(MEMORY.last(b"1" + value)) == (int(b"1" + value) if value.isdigit() else MALFORMED)
