"""The worker class on its own, as users test theirs."""

from typing import Any

import numpy as np
import pytest

from mosec_cy import DecodingError, EncodingError, SSEWorker, Worker
from mosec_cy._base import replica


class Echo(Worker):
    def forward(self, data: Any) -> Any:
        return data


def test_forward_must_be_defined() -> None:
    with pytest.raises(TypeError, match="forward"):
        Worker()  # type: ignore[abstract]


def test_properties_outside_a_server() -> None:
    worker = Echo()
    assert (worker.worker_id, worker.stage, worker.max_batch_size) == (0, "", 1)
    assert worker.resp_mime_type == "application/json"
    worker.worker_id, worker.stage, worker.max_batch_size = 2, "Echo_1", 8
    assert (worker.worker_id, worker.stage, worker.max_batch_size) == (2, "Echo_1", 8)
    assert (Echo().worker_id, Echo().stage, Echo().max_batch_size) == (0, "", 1)


def test_json_by_default() -> None:
    worker = Echo()
    assert worker.deserialize(bytearray(b'{"x": [1]}')) == {"x": [1]}
    assert worker.serialize({"x": np.arange(2)}) == b'{"x":[0,1]}'
    with pytest.raises(DecodingError):
        worker.deserialize(b"{")
    with pytest.raises(EncodingError):
        worker.serialize(object())


def test_pickle_between_stages() -> None:
    worker = Echo()
    value = {"x": np.arange(3), "y": {1, 2}}
    back = worker.deserialize_ipc(worker.serialize_ipc(value))
    assert back["y"] == {1, 2}
    assert back["x"].tolist() == [0, 1, 2]


def test_new_buffer_outside_a_server() -> None:
    buffer = Echo().new_buffer(5)
    buffer[:] = b"12345"
    assert bytes(buffer) == b"12345"


class Count(SSEWorker):
    def forward(self, data: int) -> int:
        return sum(self.send_stream_event(str(number)) for number in range(data))


def test_stream_outside_a_server() -> None:
    """As in a warm-up: nobody listens, nobody has left."""
    worker = Count()
    assert worker.forward(3) == 3
    assert worker.is_cancelled() is False
    assert worker.resp_mime_type == "text/event-stream"


def test_values_are_the_object_s_whatever_its_class_does() -> None:
    class Odd(Echo):
        __slots__ = ("_worker_id",)
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

        def __bool__(self) -> bool:
            raise RuntimeError("neither")

    first, second = Odd(), Odd()
    first._worker_id = "mine"
    first.worker_id, second.worker_id = 1, 2
    assert (first.worker_id, second.worker_id, first._worker_id) == (1, 2, "mine")


def test_nothing_is_kept_of_objects_that_are_gone() -> None:
    worker = Echo()
    worker.worker_id = 3
    known = len(replica._unserved)
    del worker
    assert len(replica._unserved) == known - 1


def test_nothing_is_added_to_the_object() -> None:
    worker = Count()
    worker.stage = "Count_1"
    worker.new_buffer(1)
    worker.forward(1)
    assert vars(worker) == {}
