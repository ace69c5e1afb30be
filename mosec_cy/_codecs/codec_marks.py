"""What the runtime may know of a codec. The marks are a function's, not a class's: an override is free of them,
even where `functools.wraps` has copied all attributes of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mosec_cy.worker import BaseWorker

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[["type[BaseWorker]", bool], object]

_in_place: set[Callable[..., Any]] = set()
_checks: dict[Callable[..., Any], Check] = {}


def reads_in_place(method: F) -> F:
    """Marks a `deserialize` or `deserialize_ipc` that is given a memoryview of shared memory instead of a copy.

    The method takes any bytes-like object, and lets go of it when it returns or keeps it alive through its result.
    """
    _in_place.add(method)
    return method


def is_in_place(method: Callable[..., Any]) -> bool:
    """Whether `reads_in_place` has marked this function."""
    return isinstance(method, FunctionType) and method in _in_place  # other callables may have no hash


def checked_by(check: Check) -> Callable[[F], F]:
    """Marks a `deserialize` that cannot serve every class: `check(worker_class, batched)` raises TypeError if so."""

    def mark(method: F) -> F:
        _checks[method] = check
        return method

    return mark


def check_first_stage(worker: type[BaseWorker], batched: bool) -> None:
    """Raises TypeError if the class's `deserialize` is marked by `checked_by`, and cannot serve the class."""
    method: Any = worker.deserialize
    if isinstance(method, FunctionType) and method in _checks:
        _checks[method](worker, batched)
