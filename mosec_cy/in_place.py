"""Which codecs may read a payload where it lies in shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def reads_in_place(method: F) -> F:
    """Marks a `deserialize` or `deserialize_ipc` that is given a memoryview of shared memory instead of a copy.

    The method takes any bytes-like object and lets go of it when it returns, or keeps it alive through its result. The
    mark is the function's, not the class's: who overrides a marked method gets a bytearray, as everywhere.
    """
    method._reads_in_place = True  # type: ignore[attr-defined]
    return method


def is_in_place(method: Callable[..., Any]) -> bool:
    """Whether `reads_in_place` has marked this function."""
    return getattr(method, "_reads_in_place", False)
