"""Answers with tensors of torch: numbers and lists, or an error that says what to do."""

import json
from typing import Any

import msgpack
import pytest
import torch

from mosec_cy import EncodingError, Worker
from mosec_cy.mixin import MsgpackMixin


class Plain(Worker):
    def forward(self, data: Any) -> Any: ...


class Packed(MsgpackMixin, Worker):
    def forward(self, data: Any) -> Any: ...


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor([[0.5], [2.0]], requires_grad=True), [[0.5], [2.0]]),
        (torch.nn.Parameter(torch.ones(1)), [1.0]),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.tensor([1.5], dtype=torch.half), [1.5]),
        (torch.tensor([1.5]).to(torch.float8_e4m3fn), [1.5]),
        (torch.tensor([True, False]), [True, False]),
        (torch.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (torch.empty(0), []),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_tensors(tensor: Any, expected: Any) -> None:
    assert json.loads(Plain().serialize({"in": [tensor]})) == {"in": [expected]}
    assert msgpack.unpackb(Packed().serialize({"in": [tensor]})) == {"in": [expected]}


@pytest.mark.parametrize("worker", [Plain, Packed])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.tensor([1j]), "complex at \\['in'\\]\\[0\\]: write "),
        (torch.ones(2, 2).to_sparse(), "torch.Tensor of torch.float32 at \\['in'\\]: return dict"),
        (torch.empty(2, device="meta"), "torch.Tensor of torch.float32 at \\['in'\\]: return dict"),
        (torch.float32, "torch.dtype at \\['in'\\]: return dict"),
    ],
    ids=str,
)
def test_what_is_no_list_of_numbers(worker: Any, value: Any, told: str) -> None:
    with pytest.raises(EncodingError, match=told):
        worker().serialize({"in": value})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu() -> None:
    assert json.loads(Plain().serialize(torch.ones(2, device="cuda", dtype=torch.bfloat16))) == [1.0, 1.0]
