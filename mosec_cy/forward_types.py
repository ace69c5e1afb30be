"""What the annotations of a worker's `forward` say of one item and of its result."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mosec_cy.worker import BaseWorker


class ParseTarget(enum.Enum):
    """Which end of `forward` is meant."""

    INPUT = "INPUT"
    RETURN = "RETURN"


def forward_type(worker: type[BaseWorker], target: ParseTarget, batched: bool) -> Any:
    """The annotated type of one item (INPUT) or of its result (RETURN); Any where there is no annotation.

    Args:
        worker: the class; inherited annotations count.
        target: which end of `forward`.
        batched: `forward` takes and returns lists of items, whose element is meant: `list[Request]` gives `Request`.

    Raises:
        TypeError: an annotation names what cannot be found, or is no list although `forward` gets one.
    """
    try:
        hints = typing.get_type_hints(worker.forward, include_extras=True)
    except (NameError, AttributeError) as error:
        raise TypeError(
            f"the annotations of {worker.__qualname__}.forward cannot be read: {error}. "
            "What they name must be there when the program runs, not only under TYPE_CHECKING or in a function"
        ) from error
    annotation = hints.get(_name(worker, target), Any)
    return _element(worker, annotation) if batched else annotation


def _name(worker: type[BaseWorker], target: ParseTarget) -> str:
    if target is ParseTarget.RETURN:
        return "return"
    parameters = list(inspect.signature(worker.forward).parameters)
    return parameters[1] if len(parameters) > 1 else ""  # after self


def _element(worker: type[BaseWorker], annotation: Any) -> Any:
    if annotation is Any:
        return Any
    origin = typing.get_origin(annotation) or annotation
    if not (isinstance(origin, type) and issubclass(origin, Sequence)) or issubclass(origin, (str, bytes)):
        raise TypeError(
            f"{worker.__qualname__}.forward gets and returns lists when max_batch_size > 1: "
            f"annotate it with list[...], not {annotation!r}"
        )
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else Any
