"""What the engine knows of a worker object. It is kept here, since all attributes of the object are its class's own."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mosec_cy._codecs.annotations import Decode, Format
    from mosec_cy._engine.worker import Channel, Sender


class Replica:
    """Which replica a worker is, its connections while it serves, and what its mixins keep."""

    __slots__ = ("channel", "decoder", "max_batch_size", "sender", "stage", "worker_id")

    def __init__(self, stage: str = "", worker_id: int = 0, max_batch_size: int = 1) -> None:
        self.stage = stage
        self.worker_id = worker_id
        self.max_batch_size = max_batch_size
        self.channel: Channel | None = None
        self.sender: Sender | None = None
        self.decoder: tuple[type, Format, Decode] | None = None  # of the typed mixins: for which class and format

    @property
    def name(self) -> str:
        """As the log has it."""
        return f"<{self.stage}|{self.worker_id}>"


class _Process:
    """A worker process serves with one object, whose class is `worker`; in others both are None."""

    replica: Replica | None = None
    worker: type | None = None


# By id, each as long as its object lives: a class may make its objects equal to others, or not hashable.
_unserved: dict[int, tuple[weakref.ref[Any], Replica]] = {}
_described_batch_size = [1]


def begin(replica: Replica, worker: type) -> None:
    """From now on this process is that replica, and its objects of class `worker` read it, in `__init__` already."""
    _Process.replica, _Process.worker = replica, worker


def of(worker: object) -> Replica:
    """The replica that a worker object is. Outside a worker process each is one of its own."""
    if _Process.replica is not None and _serves(type(worker)):
        return _Process.replica
    key = id(worker)
    if key not in _unserved:
        _unserved[key] = weakref.ref(worker, lambda _: _unserved.pop(key, None)), Replica()
    return _unserved[key][1]


def to_set(worker: object, name: str) -> Replica:
    """The replica, one of whose fields is about to be set. Raises AttributeError where the server has set it."""
    replica = of(worker)
    if replica is _Process.replica:
        raise AttributeError(
            f"{name} says how the server runs this worker ({getattr(replica, name)!r}) and cannot be set: "
            "give an attribute of your own another name"
        )
    return replica


def _serves(kind: type) -> bool:
    return kind is _Process.worker or any(base is _Process.worker for base in kind.__mro__)


@contextlib.contextmanager
def described(max_batch_size: int) -> Iterator[None]:
    """Within this, worker classes describe themselves as they are with that batch size."""
    _described_batch_size.append(max_batch_size)
    try:
        yield
    finally:
        _described_batch_size.pop()


def described_batch_size() -> int:
    """The `max_batch_size` with which a worker class is to describe itself."""
    return _described_batch_size[-1]
