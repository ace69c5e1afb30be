"""What the annotations of `forward` say of one item."""

from collections.abc import Sequence
from typing import Any

import pytest

from mosec_cy import Worker
from mosec_cy._codecs.annotations import ParseTarget, forward_type

IN, OUT = ParseTarget.INPUT, ParseTarget.RETURN


class Plain(Worker):
    def forward(self, data: list[int]) -> dict[str, float]:
        return {}


class Inherits(Plain):
    pass


class Batched(Worker):
    def forward(self, requests: "list[Plain]") -> Sequence[bytes]:
        return []


class Bare(Worker):
    def forward(self, data):  # type: ignore[no-untyped-def]
        return data


class Unparametrised(Worker):
    def forward(self, data: list) -> list:  # type: ignore[type-arg]
        return data


class Wrong(Worker):
    def forward(self, data: "Missing") -> int:  # type: ignore[name-defined]  # noqa: F821
        return 0


@pytest.mark.parametrize("worker", [Plain, Inherits])
def test_one_item_is_what_is_annotated(worker: type[Worker]) -> None:
    assert forward_type(worker, IN, batched=False) == list[int]
    assert forward_type(worker, OUT, batched=False) == dict[str, float]


def test_of_a_batch_it_is_the_element() -> None:
    assert forward_type(Batched, IN, batched=True) is Plain
    assert forward_type(Batched, OUT, batched=True) is bytes


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("target", [IN, OUT])
def test_no_annotation_is_any(target: ParseTarget, batched: bool) -> None:
    assert forward_type(Bare, target, batched) is Any


def test_a_list_of_anything() -> None:
    assert forward_type(Unparametrised, IN, batched=True) is Any


def test_a_batch_that_is_no_list() -> None:
    with pytest.raises(TypeError, match=r"Plain.forward .* annotate it with list\[...\], not dict"):
        forward_type(Plain, OUT, batched=True)


def test_an_annotation_that_cannot_be_read() -> None:
    with pytest.raises(TypeError, match="annotations of Wrong.forward cannot be read: .*Missing"):
        forward_type(Wrong, IN, batched=False)
