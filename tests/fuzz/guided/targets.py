"""All targets by name: functions that take any bytes and fail if an invariant does not hold.

This is the list; nothing of the engine is loaded by reading it, since a fuzzer loads another build.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

# Each target's module; its function has the target's name.
TARGETS = {
    "chunked": "http_targets",
    "codings": "http_targets",
    "event": "written_targets",
    "frame": "frame_target",
    "head": "http_targets",
    "pool": "pool_target",
    "ring": "ring_target",
    "segment": "segment_target",
    "writer": "written_targets",
}


def load(name: str) -> Callable[[bytes], None]:
    """The target's function."""
    target: Callable[[bytes], None] = getattr(importlib.import_module(f"tests.fuzz.guided.{TARGETS[name]}"), name)
    return target
