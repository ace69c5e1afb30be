"""What a worker process does in a dry run: pass examples, and what came of them, through `forward` once."""

from __future__ import annotations

import reprlib
import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from mosec_cy import messages, mistakes
from mosec_cy.item_errors import error_in_place
from mosec_cy.mistakes import OneSentence
from mosec_cy.worker import SSEWorker, Worker

LARGEST_MESSAGE = (1 << 31) - 1  # payloads pass through the control socket here, and this is msgpack's own limit


def rehearse(worker: Worker, control: socket.socket) -> None:
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


def examples_of(worker: Worker) -> Sequence[Any]:
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


def forward(worker: Worker, example: Any) -> Any:
    """What `forward` returns for an example.

    Raises:
        TypeError: the example is not what `forward` gets from the server; the text says why.
        BaseException: what `forward` raises.
    """
    with OneSentence():
        if worker.max_batch_size > 1 and not _is_list(example):
            name = "each of `multi_examples`" if len(worker.multi_examples) else "`example`"
            raise TypeError(
                f"{name} of {type(worker).__qualname__} must be a list of items, as `forward` gets it with "
                f"max_batch_size > 1, but is {_described(example)}"
            )
    return worker.forward(example)


def _is_list(value: Any) -> bool:
    """It is one for user code's purposes, such as an array or a tensor."""
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)):
        return False
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _described(value: Any) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def _perform(worker: Worker, message: dict[str, Any]) -> dict[str, Any]:
    if "example" in message:
        arguments = [examples_of(worker)[message["example"]]]
    else:
        arguments = _arguments(worker, message["items"])
    last = message["last"]
    payloads: list[bytes] = []
    seconds = 0.0
    for argument in arguments:
        start = time.perf_counter()
        value = forward(worker, argument)
        seconds += time.perf_counter() - start
        if last and isinstance(worker, SSEWorker):  # its answer is the events; of what it returns only errors matter
            for result in value if isinstance(value, (list, tuple)) else [value]:
                _raise_in_place(result)
        else:
            payloads += [_encode(worker, result, last) for result in results_of(worker, argument, value)]
    return {"items": payloads, "seconds": seconds, "calls": len(arguments)}


def _arguments(worker: Worker, payloads: list[bytes]) -> list[Any]:
    items = [
        worker.deserialize_ipc(memoryview(payload) if worker.zero_copy else bytearray(payload)) for payload in payloads
    ]
    most = worker.max_batch_size
    return items if most == 1 else [items[at : at + most] for at in range(0, len(items), most)]


def results_of(worker: Worker, argument: Any, value: Any) -> list[Any]:
    """The results in what `forward` returned for an example.

    Raises:
        TypeError, ValueError: it gets lists of items, and has not returned one result for each.
    """
    if worker.max_batch_size == 1:
        return [value]
    with OneSentence():
        if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Set)) or not isinstance(value, Iterable):
            raise TypeError(
                f"{type(worker).__qualname__}.forward must return a list with one result for each item of the list "
                f"that it gets, because max_batch_size is {worker.max_batch_size}, but has returned {_described(value)}"
            )
        results = list(value)
        if len(results) != len(argument):
            raise ValueError(f"forward returned {len(results)} results for a batch of {len(argument)}")
    return results


def _raise_in_place(result: Any) -> None:
    error = error_in_place(result)
    if error is not None:
        raise error


def _encode(worker: Worker, result: Any, last: bool) -> bytes:
    _raise_in_place(result)
    encoded = worker.serialize(result) if last else worker.serialize_ipc(result)
    return bytes(memoryview(encoded))
