"""The class that users derive their stages from, and what the runtime may know of such a class and of its codecs."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from mosec_cy._base import replica
from mosec_cy._codecs import json_codec
from mosec_cy._codecs.annotations import ParseTarget, forward_schema, takes_items_by


class BaseWorker(ABC):
    """What all workers have. Mixins are derived from this, and not from `Worker`, so that they may stand before it or
    after it. After it they decide nothing that `Worker` has a default for, as in Mosec.

    The engine reads and writes no attributes of a worker but those that are documented here; what it needs beside them
    is in `mosec_cy._base.replica`.
    """

    example: Any = None
    """One argument of `forward`, passed to it as a warm-up before the worker takes requests; of a `StepWorker`, one of
    `start`."""

    multi_examples: Sequence[Any] = ()
    """Several such arguments; each is passed to `forward` in turn. Takes precedence over `example`."""

    resp_mime_type: str = "application/json"
    """Content type of the answers when this is the last stage of a route."""

    req_mime_type: str = ""
    """Content type of requests when this is the first stage, for the OpenAPI description; "": by the codec."""

    zero_copy: bool = False
    """True: an own `deserialize` gets a memoryview into shared memory in place of a bytearray copy."""

    @property
    def worker_id(self) -> int:
        """Which replica of the stage this is, from 1 to `num`. It can be set where there is no server, as in a test."""
        return replica.of(self).worker_id

    @worker_id.setter
    def worker_id(self, value: int) -> None:
        replica.to_set(self, "worker_id").worker_id = value

    @property
    def stage(self) -> str:
        """Name of the stage: the class's name and the stage's number in the server, from 1 (`Model_1`)."""
        return replica.of(self).stage

    @stage.setter
    def stage(self, value: str) -> None:
        replica.to_set(self, "stage").stage = value

    @property
    def max_batch_size(self) -> int:
        """The `max_batch_size` that the stage was appended with."""
        return replica.of(self).max_batch_size

    @max_batch_size.setter
    def max_batch_size(self, value: int) -> None:
        replica.to_set(self, "max_batch_size").max_batch_size = value

    @abstractmethod
    def forward(self, data: Any, /) -> Any:
        """Work on one item, or on a batch.

        Args:
            data: (under any name) the item if `max_batch_size` is 1, else a list of 1 to `max_batch_size` items. An
                item is what `deserialize` returned (first stage), or what the stage before returned.

        Returns:
            The result, or for a list of items a list of results: same length, same order.

        Raises:
            MosecError: a class of `mosec_cy.errors`, which decides the answer to every item of the
                batch. Other exceptions answer 500.
        """

    @classmethod
    def get_forward_json_schema(cls, target: ParseTarget, ref_template: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The JSON Schema (2020-12) of one item, or of its result, for the OpenAPI description.

        It is read from the annotations of `forward`; of lists of items, where `max_batch_size` is above 1, their
        element is meant. What has no annotation, or one that JSON Schema cannot express, gets {}, which admits
        anything; so does an end whose codec is your own. Called in the server's main process, on the first request
        for the description.

        Args:
            target: which end of `forward`.
            ref_template: how to refer to a component, with `{name}` for its name.

        Returns:
            The schema, and by name the components that it refers to.

        Raises:
            TypeError: the annotation cannot be read, or is no list although `forward` gets one.
        """
        return forward_schema(cls, target, replica.described_batch_size() > 1, ref_template)

    def deserialize(self, data: Any) -> Any:
        """Decode the body of a request (first stage); JSON unless overridden.

        Args:
            data: the body, a bytearray; with `zero_copy` a writable memoryview.

        Raises:
            DecodingError: the body is not JSON: the request is answered 400.
        """
        return json_codec.decode(data)

    def serialize(self, data: Any) -> Any:
        """Encode the body of an answer (last stage); JSON unless overridden.

        Returns:
            Any bytes-like object. One that `new_buffer` gave is sent without being copied.

        Raises:
            EncodingError: the result is not encodable as JSON: the request is answered 500.
        """
        return json_codec.encode(data)

    def serialize_ipc(self, data: Any) -> Any:
        """Encode a result for the next stage as a bytes-like object; pickle, protocol 5, unless overridden."""
        return pickle.dumps(data, protocol=5)

    def deserialize_ipc(self, data: Any) -> Any:
        """Decode what the stage before encoded by `serialize_ipc`; pickle unless overridden."""
        return pickle.loads(data)

    def is_cancelled(self, index: int = 0) -> bool:
        """Whether no client waits for the answer of an item any more: its client has left, or was told a time-out.

        Long work may stop then; what `forward` returns for that item is thrown away. May be asked in any thread.

        Args:
            index: the item's place in the batch that `forward` works on.

        Raises:
            IndexError: the batch has no such place.
        """
        channel = replica.of(self).channel
        batch = None if channel is None else channel.batch
        if batch is None:
            return False
        if not 0 <= index < len(batch):
            raise IndexError(f"index {index} of a batch of {len(batch)}")
        return channel.is_cancelled(batch[index])  # type: ignore[union-attr]

    def new_buffer(self, size: int) -> memoryview:
        """A writable buffer of `size` bytes, in shared memory while the worker serves.

        `serialize` may fill it and return it (or a slice of it from its start): the answer is then
        sent from where it was written.
        """
        channel = replica.of(self).channel
        if channel is None:
            return memoryview(bytearray(size))
        return channel.new_buffer(size)


class Worker(BaseWorker):
    """One stage of a pipeline. Derive from it, define `forward`, and append the class to a `Server`.

    Each replica is one process with one instance, which is created in that process: load models in
    `__init__`. `worker_id`, `stage` and `max_batch_size` can be read there already.
    """

    resp_mime_type: str = BaseWorker.resp_mime_type
    req_mime_type: str = BaseWorker.req_mime_type
    if not TYPE_CHECKING:  # type checkers know them as methods already
        deserialize = BaseWorker.deserialize
        serialize = BaseWorker.serialize
        serialize_ipc = BaseWorker.serialize_ipc
        deserialize_ipc = BaseWorker.deserialize_ipc


class SSEWorker(Worker):
    """A last stage that answers with a stream of server-sent events, sent while `forward` works.

    The stream begins when the request is accepted and ends when `forward` returns; what it returns is ignored. An
    exception ends it with an event named `error`.
    """

    resp_mime_type = "text/event-stream"

    def send_stream_event(self, text: str, index: int = 0) -> bool:
        """Send an event to a client of the batch that `forward` works on; from any thread, until `forward` returns.

        Of each stream 1 MiB of events may be under way (or one larger event). Where a client reads so slowly that
        there is more, this waits if the batch holds one item; in a larger batch, and in a `StepWorker` with
        `max_batch_size` above 1, that client's stream is ended.

        Args:
            text: the event's data; its lines (CR, LF or CRLF) arrive as lines.
            index: the item's place in the batch; in `step` of a `StepWorker`, that in `states`; 0 in its `start`.

        Returns:
            False if the event was not sent and none will be: the client has left, or its stream was ended.

        Raises:
            IndexError: the batch has no such place.
            TypeError: `text` is no string.
            RuntimeError: this worker is not the last stage of the request's route.
            MosecTimeoutError: the stage's time-out passed while this waited.
        """
        sender = replica.of(self).sender
        if sender is None:  # the warm-up has no client
            return True
        return sender.send(text, index)


class StepWorker(Worker):
    """A stage that works step by step on a running batch, which requests join and leave one by one.

    Derive from it, and from `SSEWorker` too for answers that are streams, and define `start` and `step` in place of
    `forward`. A request that arrives while others are inside joins them before the next step, as long as they are less
    than `max_batch_size`; one that is done is answered at once, and its place is free.
    """

    @abstractmethod
    def start(self, item: Any, /) -> Any:
        """Begin the work on one item; called once for each, between two steps.

        Args:
            item: (under any name) what `deserialize` returned (first stage), or what the stage before returned.

        Returns:
            Its state, any object, which `step` gets until it is done.

        Raises:
            MosecError: a class of `mosec_cy.errors`, which decides the answer to this item; other
                exceptions answer 500. The others go on.
        """

    @abstractmethod
    def step(self, states: Any, /) -> Any:
        """Do the next step of all items that are inside.

        A state is changed in place, or replaced: `states[i] = other`.

        Args:
            states: (under any name) the list of their states, 1 to `max_batch_size`, in the order in which they joined.

        Returns:
            A list of tuples (done, output): same length, same order. Where `done` is true, `output` is the item's
            result. An exception in its place fails that item.

        Raises:
            MosecError: a class of `mosec_cy.errors`, which decides the answer to every item that is
                inside; other exceptions answer 500. The worker goes on with none inside.
        """

    def forward(self, data: Any, /) -> Any:
        """Not used: `start` and `step` are in its place."""
        raise TypeError(f"{type(self).__qualname__} is a StepWorker, which works by start and step")


takes_items_by("start", StepWorker.forward)

# ---- what a class is -----------------------------------------------------------------------------------
# Not by `issubclass`, which asks the metaclass, and that may be the user's.


def is_worker(kind: type) -> bool:
    """Whether a class is derived from `Worker`, or from a mixin alone."""
    return any(base is BaseWorker for base in kind.__mro__)


def unused_codecs(kind: type) -> list[str]:
    """Names of the mixins of a class whose codecs are not used, since they stand after `Worker`."""
    order = kind.__mro__
    after = order[[base is Worker for base in order].index(True) + 1 :] if Worker in order else ()
    codecs = ("deserialize", "serialize", "deserialize_ipc", "serialize_ipc")
    defaults = [name for name in codecs if getattr(kind, name) is getattr(Worker, name)]
    return [base.__name__ for base in after if base is not BaseWorker and any(name in vars(base) for name in defaults)]


def streams(kind: type) -> bool:
    """Whether a class is derived from `SSEWorker`."""
    return any(base is SSEWorker for base in kind.__mro__)


def steps(kind: type) -> bool:
    """Whether a class is derived from `StepWorker`."""
    return any(base is StepWorker for base in kind.__mro__)


# ---- what a codec says of itself, and needs ------------------------------------------------------------
# Marks are a function's, not a class's: an override is free of them, even where `functools.wraps` has copied all
# attributes of the function.

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[type[BaseWorker], bool], object]

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


def load_extra(name: str, needed_by: str) -> Any:
    """Import the package `name` for a codec, which the extra of the same name brings.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and something that it needs is not
            raise
        message = f'{needed_by} needs the package {name!r}: pip install "mosec_cy[{name}]"'
        raise ModuleNotFoundError(message, name=name) from error
