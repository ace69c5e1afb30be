"""What the runtime may know of a codec. The marks are a function's, not a class's: who overrides it is free of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mosec_cy.worker import Worker

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[["type[Worker]", bool], object]


def reads_in_place(method: F) -> F:
    """Marks a `deserialize` or `deserialize_ipc` that is given a memoryview of shared memory instead of a copy.

    The method takes any bytes-like object, and lets go of it when it returns or keeps it alive through its result.
    """
    method._reads_in_place = True  # type: ignore[attr-defined]
    return method


def is_in_place(method: Callable[..., Any]) -> bool:
    """Whether `reads_in_place` has marked this function."""
    return getattr(method, "_reads_in_place", False)


def checked_by(check: Check) -> Callable[[F], F]:
    """Marks a `deserialize` that cannot serve every class: `check(worker_class, batched)` raises TypeError if so."""

    def mark(method: F) -> F:
        method._check = check  # type: ignore[attr-defined]
        return method

    return mark


def check_first_stage(worker: type[Worker], batched: bool) -> None:
    """Raises TypeError if the class's `deserialize` is marked by `checked_by`, and cannot serve the class."""
    check: Check | None = getattr(worker.deserialize, "_check", None)
    if check is not None:
        check(worker, batched)
