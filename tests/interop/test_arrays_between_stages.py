"""Values that go from stage to stage: pickled, with their buffers beside the pickle."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.engine import MIB, Engine
from tests.http_client import Client
from tests.interop.slots import TEXT, blocks_at_rest, running

Link = tuple[Engine, Client, Any, Any]


@pytest.fixture
def link() -> Iterator[Link]:
    with running(stages=2, budget=64 * MIB) as engine, Client(engine) as client:
        first, second = engine.channel(1), engine.channel(2)
        client.send_post(b"x")
        yield engine, client, first, second


def passed_on(link: Link, value: object) -> tuple[Any, Any]:
    """Item and value as the second stage gets them."""
    _, _, first, second = link
    first.publish_pickle(first.take()[0], value)
    [item] = second.take()
    return item, second.load_pickle(item)


def finish(link: Link, item: Any) -> None:
    _, client, _, second = link
    second.publish(item, [b"ok"], 0, TEXT)
    assert client.outcome() == (200, b"ok")


VALUES = {
    "nothing": None,
    "plain": {"a": [1, 2.5, "x", b"y"]},
    "an array": np.arange(1000, dtype=np.float32).reshape(10, 100),
    "column-major": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "a part of one": np.arange(100)[10:90:3],
    "empty": np.zeros((0, 4)),
    "no dimension": np.array(3.5),
    "booleans": np.array([True, False]),
    "objects": np.array([None, "x", 3], dtype=object),
    "structured": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "several": [np.arange(3), {"deep": np.ones((2, 2))}, "text", np.arange(5000)],
    "the same twice": [np.arange(4)] * 2,
    "dates": np.array(["2024-01-01"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(link: Link, name: str) -> None:
    item, value = passed_on(link, VALUES[name])
    np.testing.assert_equal(value, VALUES[name])
    if isinstance(value, np.ndarray):
        assert value.dtype == VALUES[name].dtype
        assert value.flags.f_contiguous or name != "column-major"
    finish(link, item)


def test_an_array_is_a_view_of_shared_memory(link: Link) -> None:
    engine, _, _, _ = link
    item, value = passed_on(link, {"image": np.arange(MIB, dtype=np.uint8), "mask": np.ones(7)})
    image = value["image"]
    assert not image.flags.owndata
    assert image.flags.writeable
    for array in value.values():
        assert array.ctypes.data % 64 == 0
    finish(link, item)
    # Kept by user code: the memory stays, until the last array on it goes.
    assert blocks_at_rest(engine) == (0, 1)
    image += 1
    part = image[5:9]
    del value, image, array, item
    assert blocks_at_rest(engine) == (0, 1)
    assert part.tolist() == [6, 7, 8, 9]
    del part
    assert blocks_at_rest(engine) == (0, 0)


def test_a_read_only_array_stays_so(link: Link) -> None:
    constant = np.arange(10)
    constant.flags.writeable = False
    item, value = passed_on(link, constant)
    assert not value.flags.writeable
    finish(link, item)


def test_an_array_of_the_request_goes_on_without_harm(link: Link) -> None:
    """The first stage passes on what looks into its own payload."""
    _, _, first, second = link
    [item] = first.take()
    first.publish_pickle(item, np.frombuffer(item, np.uint8))
    [item] = second.take()
    assert second.load_pickle(item).tobytes() == b"x"
    finish(link, item)


def test_more_buffers_than_a_frame_holds(link: Link) -> None:
    many = [np.array([number]) for number in range(70_000)]
    item, value = passed_on(link, many)
    assert [array[0] for array in value] == list(range(70_000))
    del value
    finish(link, item)


def test_what_cannot_be_pickled(link: Link) -> None:
    _, client, first, _ = link
    [item] = first.take()
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        first.publish_pickle(item, lambda: None)
    assert not item.answered
    first.answer(item, 500, b"no")
    assert client.outcome() == (500, b"no")


def test_for_stages_that_unpickle_themselves(link: Link) -> None:
    _, _, first, second = link
    first.publish_pickle(first.take()[0], [np.arange(3), "x"])
    [item] = second.take()
    for payload in (second.plain_pickle(item), second.payload_view(item)):
        array, text = pickle.loads(payload)
        assert (array.tolist(), text) == ([0, 1, 2], "x")
    del payload
    finish(link, item)


def test_frames_cut_short(link: Link) -> None:
    """A frame whose numbers lie is an error of that request, at every length that it may be cut to."""
    _, _, first, second = link
    first.publish_pickle(first.take()[0], [np.arange(3)])
    [item] = second.take()
    whole = memoryview(item)
    head = bytes(whole[:40])
    for at, size in ((0, 4), (8, 8), (16, 8), (24, 8), (32, 8)):
        for lie in (1 << 30, (1 << 8 * size) - 1, len(whole) + 1):
            whole[at : at + size] = lie.to_bytes(size, "little")
            with pytest.raises(ValueError, match="malformed frame"):
                second.load_pickle(item)
            whole[:40] = head
    assert second.load_pickle(item)[0].tolist() == [0, 1, 2]
    del whole
    finish(link, item)


def test_an_answer_that_finds_no_room(link: Link) -> None:
    _, client, first, _ = link
    [item] = first.take()
    assert first.publish_pickle(item, np.zeros(64 * MIB, np.uint8)) is False
    status, body = client.outcome()
    assert (status, b"--budget" in body) == (500, True)
