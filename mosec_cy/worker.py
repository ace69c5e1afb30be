"""The class that users derive their stages from."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mosec_cy import json_codec

if TYPE_CHECKING:
    from mosec_cy._channel import Channel


class Worker(ABC):
    """One stage of a pipeline. Derive from it, define `forward`, and append the class to a `Server`.

    Each replica is one process with one instance, which is created in that process: load models in
    `__init__`. `worker_id`, `stage` and `max_batch_size` can be read there already.
    """

    example: Any = None
    """One argument of `forward`, passed to it as a warm-up before the worker takes requests."""

    multi_examples: Sequence[Any] = ()
    """Several such arguments; each is passed to `forward` in turn. Takes precedence over `example`."""

    resp_mime_type: str = "application/json"
    """Content type of the answers when this is the last stage of a route."""

    zero_copy: bool = False
    """True: an own `deserialize` gets a memoryview into shared memory in place of a bytearray copy."""

    _worker_id: int = 0
    _stage: str = ""
    _max_batch_size: int = 1
    _channel: Channel | None = None

    @property
    def worker_id(self) -> int:
        """Which replica of the stage this is, from 1 to `num`."""
        return self._worker_id

    @property
    def stage(self) -> str:
        """Name of the stage: the class's name and the stage's number in the server, from 1 (`Model_1`)."""
        return self._stage

    @property
    def max_batch_size(self) -> int:
        """The `max_batch_size` that the stage was appended with."""
        return self._max_batch_size

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

    def new_buffer(self, size: int) -> memoryview:
        """A writable buffer of `size` bytes, in shared memory while the worker serves.

        `serialize` may fill it and return it (or a slice of it from its start): the answer is then
        sent from where it was written.
        """
        if self._channel is None:
            return memoryview(bytearray(size))
        return self._channel.new_buffer(size)
