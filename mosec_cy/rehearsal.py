"""What a worker process does in a dry run: pass examples, and what came of them, through `forward` once."""

from __future__ import annotations

import select
import socket
import time
import traceback
from collections.abc import Sequence
from typing import Any

from mosec_cy import messages
from mosec_cy.item_errors import error_in_place
from mosec_cy.worker import SSEWorker, Worker

LARGEST_MESSAGE = (1 << 31) - 1  # payloads pass through the control socket here, and this is msgpack's own limit


def rehearse(worker: Worker, control: socket.socket) -> None:
    """Answer the master's questions until it closes the socket.

    It begins with {"examples": number}. To {"example": index} or {"items": payloads of the stage before}, with "last"
    beside it, the answer is {"items": payloads, "seconds": time in `forward`, "calls": number of its calls}, or
    {"failed": traceback}.
    """
    inbox = messages.Inbox(control, LARGEST_MESSAGE)
    messages.send(control, {"examples": len(examples_of(worker))})
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    while not inbox.closed:
        waiting.poll()
        for message in inbox.take():
            try:
                answer = _perform(worker, message)
            except BaseException:  # user code may raise SystemExit
                answer = {"failed": traceback.format_exc()}
            messages.send(control, answer)


def examples_of(worker: Worker) -> Sequence[Any]:
    """Arguments of `forward` for the warm-up: `multi_examples`, or else `example`, or none."""
    if len(worker.multi_examples):
        return worker.multi_examples
    return [] if worker.example is None else [worker.example]


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
        value = worker.forward(argument)
        seconds += time.perf_counter() - start
        payloads += [_encode(worker, result, last) for result in _results(worker, argument, value, last)]
    return {"items": payloads, "seconds": seconds, "calls": len(arguments)}


def _arguments(worker: Worker, payloads: list[bytes]) -> list[Any]:
    items = [
        worker.deserialize_ipc(memoryview(payload) if worker.zero_copy else bytearray(payload)) for payload in payloads
    ]
    most = worker.max_batch_size
    return items if most == 1 else [items[at : at + most] for at in range(0, len(items), most)]


def _results(worker: Worker, argument: Any, value: Any, last: bool) -> list[Any]:
    if last and isinstance(worker, SSEWorker):  # its answer is the events; of what it returns only errors matter
        for result in value if isinstance(value, (list, tuple)) else [value]:
            _raise_in_place(result)
        return []
    if worker.max_batch_size == 1:
        return [value]
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
