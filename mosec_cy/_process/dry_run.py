"""What a worker process does in a dry run: pass examples, and what came of them, through `forward` once, or through
`start` and all steps."""

from __future__ import annotations

import reprlib
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mosec_cy._base import messages, mistakes, replica
from mosec_cy._base.mistakes import OneSentence
from mosec_cy._process.results import (
    as_batch,
    as_ends,
    as_outcomes,
    error_in_place,
    finish,
    is_unfinished,
    unfinished,
)
from mosec_cy.worker import BaseWorker, StepWorker, steps, streams

_MOST_STEPS = 10_000
LARGEST_MESSAGE = (1 << 31) - 1  # payloads pass through the control socket here, and this is msgpack's own limit


def dry_run(worker: BaseWorker, control: socket.socket) -> None:
    """Answer the master's questions until it closes the socket.

    It begins with {"examples": number}. To {"example": index} or {"items": payloads of the stage before}, with "last"
    beside it, the answer is {"items": payloads, "seconds": time in `forward`, "calls": number of its calls}, or
    {"failed": traceback}.
    """
    inbox = messages.Inbox(control, LARGEST_MESSAGE)
    try:
        number: dict[str, Any] = {"examples": len(examples_of(worker))}
    except TypeError as error:
        number = mistakes.as_message(error)
    messages.send(control, number)
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    while not inbox.closed:
        waiting.poll()
        for message in inbox.take():
            try:
                answer = _perform(worker, message)
            except BaseException as error:  # user code may raise SystemExit
                answer = mistakes.as_message(error)
            messages.send(control, answer)


def examples_of(worker: BaseWorker) -> Sequence[Any]:
    """Arguments of `forward` for the warm-up: `multi_examples`, or else `example`, or none.

    Raises:
        TypeError: `multi_examples` is no list.
    """
    several = worker.multi_examples
    with OneSentence():
        if not _is_list(several):
            raise TypeError(
                f"`multi_examples` of {type(worker).__qualname__} must be a list of arguments of `forward`, "
                f"but is {_described(several)}"
            )
    return several if len(several) else [] if worker.example is None else [worker.example]


def _is_list(value: Any) -> bool:
    """It is one for user code's purposes, such as an array or a tensor."""
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)):
        return False
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _described(value: Any) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def _perform(worker: BaseWorker, message: dict[str, Any]) -> dict[str, Any]:
    if "example" in message:
        arguments = [examples_of(worker)[message["example"]]]
    else:
        arguments = _arguments(worker, message["items"])
    payloads: list[bytes] = []
    seconds = 0.0
    for argument in arguments:
        start = time.perf_counter()
        results = try_forward(worker, argument, message["last"])
        seconds += time.perf_counter() - start
        for result in results:
            _raise_in_place(result)
        if not (message["last"] and streams(type(worker))):  # its answer is the events
            payloads += [_encode(worker, result, message["last"]) for result in results]
    return {"items": payloads, "seconds": seconds, "calls": len(arguments)}


def try_forward(worker: BaseWorker, argument: Any, last: bool) -> list[Any]:
    """The results of one call of `forward`, checked as when it serves; of a `StepWorker`, of all steps of one item.

    Args:
        argument: an example, or a batch of what the stage before returned.
        last: as the last stage of a route.

    Raises:
        TypeError: the argument is not what `forward` gets from the server; the text says why.
        BaseException: what `forward` raises, or that it has not returned what it must.
    """
    if steps(type(worker)):
        return [_try_steps(cast(StepWorker, worker), argument)]
    sends, batched = last and streams(type(worker)), replica.of(worker).max_batch_size > 1
    with OneSentence():
        if batched and not _is_list(argument):
            name = "each of `multi_examples`" if len(worker.multi_examples) else "`example`"
            raise TypeError(
                f"{name} of {type(worker).__qualname__} must be a list of items, as `forward` gets it with "
                f"max_batch_size > 1, but is {_described(argument)}"
            )
    size = len(argument) if batched else None
    returned = finish(worker.forward(argument), size, _send_to_nobody if sends else None)
    if size is None:
        return [None] if sends and error_in_place(returned) is None else [returned]
    with OneSentence():
        return as_ends(returned, size) if sends else as_batch(returned, size)


def _try_steps(worker: StepWorker, item: Any) -> Any:
    states = [worker.start(item)]
    for _ in range(_MOST_STEPS):
        returned = worker.step(states)
        with OneSentence():
            ((done, output),) = as_outcomes(returned, 1)
        if done:
            return output
    with OneSentence():
        raise RuntimeError(
            f"an example of {type(worker).__qualname__} was not done after {_MOST_STEPS} steps: "
            "choose one that needs less, or see that `step` returns (True, output) in the end"
        )


def _send_to_nobody(text: str, index: int) -> bool:
    return True


def _arguments(worker: BaseWorker, payloads: list[bytes]) -> list[Any]:
    kind = memoryview if type(worker).zero_copy is True else bytearray
    items = [worker.deserialize_ipc(kind(payload)) for payload in payloads]
    most = 1 if steps(type(worker)) else replica.of(worker).max_batch_size
    return items if most == 1 else [items[at : at + most] for at in range(0, len(items), most)]


def _raise_in_place(result: Any) -> None:
    error = error_in_place(result)
    if error is not None:
        raise error


def _encode(worker: BaseWorker, result: Any, last: bool) -> bytes:
    try:
        encoded = worker.serialize(result) if last else worker.serialize_ipc(result)
    except Exception as error:
        if is_unfinished(result):
            raise unfinished(result) from error
        raise
    return bytes(memoryview(encoded))
