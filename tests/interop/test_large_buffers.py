"""Answers beyond what a descriptor's offset can say. The memory is sparse: little of it is ever touched."""

from __future__ import annotations

from typing import Any

from mosec_cy._engine.worker import Channel
from tests.engine import Engine

GIB = 1 << 30


def test_a_slice_that_begins_behind_4_gib_of_its_buffer_is_sent() -> None:
    def answer(channel: Channel, item: Any) -> None:
        whole = channel.new_buffer(5 * GIB)
        whole[4 * GIB : 4 * GIB + 5] = b"right"
        whole[:5] = b"wrong"
        outputs = [whole[4 * GIB : 4 * GIB + 5]]
        del whole
        channel.publish(item, outputs, 0, 0)

    engine = Engine(budget=16 * GIB)
    with engine.worker(answer):
        assert engine.post(b"?")[2] == b"right"
    engine.close()
