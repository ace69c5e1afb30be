"""The worker class on its own, as users test theirs."""

from typing import Any

import numpy as np
import pytest

from mosec_cy import DecodingError, EncodingError, SSEWorker, Worker


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
