"""What the model of the batcher knows of tasks and slots."""

from dataclasses import dataclass, field

RING = 8  # descriptors


@dataclass
class ModelTask:
    """One life of an entry."""

    id: int
    turn: int = 0
    stage: int = 0
    queued_at: int = 0
    dispatched_at: int = 0
    slot: int = -1
    sequence: int = 0
    started: bool = False
    cancelled: bool = False
    tries: int = 0


@dataclass
class ModelSlot:
    stage: int
    up: bool = True
    ring: list[tuple[int, int]] = field(default_factory=list)  # published descriptors, stale ones too
    running: list[tuple[int, int]] = field(default_factory=list)
    known_room: int = RING
    late: bool = False
    turn: int = 0  # number of its last dispatch; 0: none in this life
