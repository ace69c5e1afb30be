"""How tests wait: for an event, never for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0  # s; how long a test waits for what must happen before it fails
LONGEST_PAUSE = 0.01  # s; between two looks


def until(
    condition: Callable[[], T | None],
    patience: float = PATIENCE,
    message: str | Callable[[], object] = "it never came true",
) -> T:
    """Wait until `condition()` is true, and return what it gives.

    It is asked again and again, at first after a millisecond. After `patience` s without success the test fails with
    the message: a text, or a function that says how things stand then.
    """
    deadline = time.monotonic() + patience
    pause = 0.001
    while not (met := condition()):
        assert time.monotonic() < deadline, message() if callable(message) else message
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return met
