"""Whether a batch is whole."""

from __future__ import annotations

import math
from collections import UserDict, namedtuple
from dataclasses import dataclass

import pytest
import torch

from lightning_gradguard.batches import finite_sum

BAD = [math.nan, math.inf, -math.inf]
Pair = namedtuple("Pair", ["inputs", "targets"])  # noqa: PYI024 - what data loaders give


def with_(value):
    tensor = torch.zeros(3, 4)
    tensor[1, 2] = value
    return tensor


NESTED = {
    "tensor": lambda x: x,
    "tuple": lambda x: (torch.arange(3), x),
    "list": lambda x: [x, [torch.ones(2)]],
    "dictionary": lambda x: {"a": torch.ones(1), "b": x},
    "mapping": lambda x: UserDict(a=x),
    "named tuple": lambda x: Pair(torch.ones(1), x),
    "deep": lambda x: {"a": [(torch.ones(2), {"b": x})]},
    "with strings": lambda x: ("name", 3, None, 2.5, x),
    "half": lambda x: [x.half()],
    "bfloat16": lambda x: [x.bfloat16()],
    "float64": lambda x: [x.double()],
}


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
def test_a_number_that_is_not_finite_is_found_wherever_it_is(nest) -> None:
    for value in BAD:
        assert not torch.isfinite(finite_sum(nest(with_(value))))
    assert torch.isfinite(finite_sum(nest(with_(1.0))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_large_numbers_are_finite(dtype) -> None:
    largest = torch.finfo(dtype).max
    assert finite_sum([torch.full((1000,), largest, dtype=dtype)] * 3) == 0.0
    assert finite_sum(torch.full((10,), 1e38)) == 0.0


@pytest.mark.parametrize(
    "batch",
    [None, torch.arange(3), "text", [], {}, [torch.ones(2, dtype=torch.bool)], (1, 2.0), range(3)],
    ids=repr,
)
def test_without_floating_point_numbers_there_is_nothing_to_say(batch) -> None:
    assert finite_sum(batch) is None


def test_sparse_tensors_and_other_objects_are_left_out() -> None:
    @dataclass
    class Sample:
        inputs: torch.Tensor

    assert finite_sum([with_(math.nan).to_sparse(), Sample(with_(math.nan))]) is None


def test_a_batch_that_holds_itself_ends() -> None:
    batch: list = []
    batch.append(batch)
    assert finite_sum(batch) is None


def test_of_many_tensors_the_first_are_read() -> None:
    many = [torch.ones(1) for _ in range(1000)]
    assert finite_sum([*many, with_(math.nan)]) == 0.0
    assert not torch.isfinite(finite_sum([with_(math.nan), *many]))


def test_no_graph_is_built() -> None:
    assert not finite_sum(torch.ones(2, requires_grad=True)).requires_grad
