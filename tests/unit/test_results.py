"""What `forward` may return for a batch, and what becomes of generators; no process is needed for it."""

from __future__ import annotations

import array
import collections
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mosec_cy import ServerError
from mosec_cy._process.results import MissingResultsError, ResultError, as_batch, as_ends, close_event_loop, finish

THREE: list[Callable[[], Any]] = [
    lambda: [1, 2, 3],
    lambda: (1, 2, 3),
    lambda: np.arange(1, 4),
    lambda: array.array("i", [1, 2, 3]),
    lambda: collections.deque([1, 2, 3]),
    lambda: range(1, 4),
    lambda: iter([1, 2, 3]),
    lambda: (number for number in (1, 2, 3)),
    lambda: map(int, "123"),
    lambda: {"a": 1, "b": 2, "c": 3}.values(),
    lambda: collections.namedtuple("Named", "a b c")(1, 2, 3),
]


class Fields:
    """Iterates over its fields, as models of pydantic do."""

    model_fields = ("a", "b", "c")

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter([("a", 1), ("b", 2), ("c", 3)])


class Table:
    """Iterates over the names of its columns, as data frames do."""

    @property
    def columns(self) -> list[str]:
        return ["a", "b", "c"]

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


NO_BATCH: list[Any] = [
    {"a": 1, "b": 2, "c": 3},
    collections.OrderedDict(a=1, b=2, c=3),
    collections.Counter("abc"),
    collections.UserDict(a=1, b=2, c=3),
    types.MappingProxyType({"a": 1, "b": 2, "c": 3}),
    {"a": 1, "b": 2, "c": 3}.keys(),
    {1, 2, 3},
    frozenset([1, 2, 3]),
    "abc",
    np.str_("abc"),
    collections.UserString("abc"),
    b"abc",
    np.bytes_(b"abc"),
    bytearray(b"abc"),
    memoryview(b"abc"),
    Fields(),
    Table(),
]
NOTHING: list[Any] = [None, 3, np.float64(3), np.array(3), object(), ValueError("abc")]


@pytest.mark.parametrize("made", THREE)
def test_sequences_arrays_and_iterators_are_batches(made: Callable[[], Any]) -> None:
    results = as_batch(made(), 3)
    assert type(results) is list
    assert results == [1, 2, 3]
    for size in (2, 4):
        with pytest.raises(MissingResultsError, match=f"^forward returned 3 results for a batch of {size}$"):
            as_batch(made(), size)


def test_slots_of_arrays() -> None:
    slots = as_batch(np.arange(6).reshape(2, 3), 2)
    assert [slot.tolist() for slot in slots] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("value", NO_BATCH, ids=lambda value: type(value).__name__)
def test_what_is_no_batch(value: Any) -> None:
    with pytest.raises(ServerError, match="^forward returned .* must return a list of results") as caught:
        as_batch(value, 3)
    assert type(value).__name__ in str(caught.value)


@pytest.mark.parametrize("value", NOTHING, ids=lambda value: type(value).__name__)
def test_what_is_no_number_of_results(value: Any) -> None:
    with pytest.raises(MissingResultsError, match="^forward returned .* must return a list of results"):
        as_batch(value, 3)


def test_errors_within_an_iterator_are_the_user_s() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise TypeError("mine")

    with pytest.raises(TypeError, match="^mine$"):
        as_batch(broken(), 2)


def test_a_generator_without_end_is_closed() -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    with pytest.raises(MissingResultsError, match="for a batch of 2"):
        as_batch(endless(), 2)
    assert closed == [True]


def test_ends_of_streams() -> None:
    error = ValueError()
    assert as_ends([None, error], 2) == [None, error]
    for ignored in (None, {"a": 1}, "ab", [1], 3):
        assert as_ends(ignored, 2) == [None, None]
    for unread in ([iter("ab")], ["a", (text for text in "ab")]):
        with pytest.raises(ResultError, match="must itself yield tuples"):
            as_ends(unread, 2)


@pytest.fixture
def loop() -> Iterator[None]:
    yield
    close_event_loop()


class Clients:
    """Notes what it is sent; each client leaves after `patience` events."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.sent: list[tuple[int, str]] = []

    def send(self, text: str, index: int) -> bool:
        mine = sum(index == other for other, _ in self.sent)
        if mine == self.patience:
            return False
        self.sent.append((index, text))
        return True


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_batch_goes_on_until_all_clients_have_left(asynchronous: bool) -> None:
    closed = []

    def plain() -> Iterator[tuple[int, str]]:
        try:
            for number in range(100):
                yield number % 2 if number < 10 else 1, str(number)
        finally:
            closed.append(True)

    async def coroutine() -> AsyncIterator[tuple[int, str]]:
        try:
            for event in plain():
                yield event
        finally:
            closed.append(True)

    clients = Clients(7)
    finish(coroutine() if asynchronous else plain(), 2, clients.send)
    assert [text for index, text in clients.sent if index == 1] == ["1", "3", "5", "7", "9", "10", "11"]
    assert [text for index, text in clients.sent if index == 0] == ["0", "2", "4", "6", "8"]
    leaving = Clients(3)
    finish(coroutine() if asynchronous else plain(), 2, leaving.send)
    assert sorted(leaving.sent) == [(0, "0"), (0, "2"), (0, "4"), (1, "1"), (1, "3"), (1, "5")]
    assert closed


def test_what_a_generator_does_when_it_is_closed_is_its_own() -> None:
    def stubborn() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            raise KeyError("while closing")

    with pytest.raises(KeyError, match="while closing"):
        finish(stubborn(), None, Clients(1).send)


def test_the_loop_is_new_after_its_end() -> None:
    async def answer() -> int:
        return 1

    for _ in range(2):
        assert finish(answer(), None, None) == 1
        close_event_loop()
    close_event_loop()
