"""All targets by name: functions that take any bytes and fail if an invariant does not hold."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.guided import (
    frame_target,
    http_targets,
    pool_target,
    ring_target,
    segment_target,
    written_targets,
)

TARGETS: dict[str, Callable[[bytes], None]] = {
    "chunked": http_targets.chunked,
    "codings": http_targets.codings,
    "event": written_targets.event,
    "frame": frame_target.frame,
    "head": http_targets.head,
    "pool": pool_target.pool,
    "ring": ring_target.ring,
    "segment": segment_target.segment,
    "writer": written_targets.writer,
}
