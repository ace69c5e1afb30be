"""The guard pages of the wire tests guard."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guard_page import GuardedMemory

ROOT = Path(__file__).resolve().parents[2]


def test_places_bytes_at_both_edges() -> None:
    memory = GuardedMemory(pages=1)
    assert bytes(memory.first(b"abc")) == b"abc"
    assert bytes(memory.last(b"abc")) == b"abc"
    assert bytes(memory.last(b"")) == b""


@pytest.mark.parametrize("offset", ["-1", "memory.size"])
def test_reading_outside_kills(offset: str) -> None:
    program = (
        "import ctypes, resource\n"
        "from tests.guard_page import GuardedMemory\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "memory = GuardedMemory()\n"
        f"ctypes.string_at(memory.address + {offset}, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=30)
    # AddressSanitizer, where the engine is built with it, makes a message of the signal.
    assert done.returncode == -signal.SIGSEGV or b"AddressSanitizer: SEGV" in done.stderr, done.stderr
