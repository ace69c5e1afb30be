"""Mistakes of the program: what is refused at once, and what a person reads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from mosec_cy import Worker
from mosec_cy._base import mistakes, replica
from mosec_cy._process.dry_run import try_forward
from mosec_cy.runtime import Runtime


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(self: Any, data: Any) -> Any:
        return function(self, data, "more")

    return wrapper


GOOD: dict[str, Any] = {
    "plain": lambda self, data: data,
    "default": lambda self, data, more=1: data,
    "any": lambda *args, **kwargs: args,
    "wrapped": passing(lambda self, data, more: data),
    "static": staticmethod(lambda data: data),
    "class": classmethod(lambda cls, data: data),
    "partial": functools.partial(lambda more, data: data, 1),
    "partialmethod": functools.partialmethod(lambda self, more, data: data, 1),
    "built-in": len,
}
BAD: dict[str, Any] = {
    "none": lambda self: None,
    "two": lambda self, a, b: a,
    "keyword": lambda self, *, data: data,
    "required keyword": lambda self, data, *, more: data,
    "static": staticmethod(lambda self, data: data),
    "class": classmethod(lambda cls: None),
}


def model(**attributes: Any) -> type[Worker]:
    return type("Model", (Worker,), {"forward": lambda self, data: data, **attributes})


@pytest.mark.parametrize("name", GOOD)
def test_a_forward_that_takes_one_argument(name: str) -> None:
    Runtime(model(forward=GOOD[name]), start_method="fork")


@pytest.mark.parametrize("name", BAD)
def test_a_forward_that_does_not(name: str) -> None:
    with pytest.raises(TypeError, match=r"Model\.forward must take one argument .*def forward\(self, data\)") as raised:
        Runtime(model(forward=BAD[name]), start_method="fork")
    assert mistakes.says_all(raised.value)


def served(cls: type[Worker], batch: int) -> Worker:
    worker = cls()
    replica.of(worker).max_batch_size = batch
    return worker


@pytest.mark.parametrize("example", [{"x": 1}, "text", b"bytes", 3, {1, 2}])
def test_an_example_that_is_no_batch(example: Any) -> None:
    with pytest.raises(TypeError, match="`example` of Model must be a list of items") as raised:
        try_forward(served(model(example=example), 4), example, last=True)
    assert mistakes.says_all(raised.value)


@pytest.mark.parametrize("value", [1.5, None, {"a": 1}, "text", b"ab", {1}])
def test_a_batch_result_that_is_none(value: Any) -> None:
    worker = served(model(forward=lambda self, data: value), 4)
    with pytest.raises(Exception, match="it must return a list of results") as raised:
        try_forward(worker, [1], last=True)
    assert mistakes.says_all(raised.value)


def test_a_batch_result_of_another_length() -> None:
    worker = served(model(forward=lambda self, data: [1]), 4)
    with pytest.raises(Exception, match="forward returned 1 results for a batch of 2") as raised:
        try_forward(worker, [1, 2], last=True)
    assert mistakes.says_all(raised.value)


def test_a_bug_is_no_mistake_of_the_program() -> None:
    assert not mistakes.says_all(ValueError("of user code"))
    with pytest.raises(KeyError) as raised, mistakes.OneSentence():
        raise KeyError("of ours")
    assert not mistakes.says_all(raised.value)
