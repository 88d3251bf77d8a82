"""Whether a batch is whole: the first suspect when a loss is NaN.

In: a batch as a data loader gave it. Out: one number where it lies, finite if all of them are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

__all__ = ["finite_sum"]

_MOST_TENSORS: Final = 16
_DEEPEST: Final = 4


@torch.no_grad()
def finite_sum(batch: Any) -> Tensor | None:  # noqa: ANN401 - any data loader
    """Return a number that is finite if all floating-point numbers of a batch are, or None.

    Cost:
        One read of the batch, at most sixteen tensors of it; no host sync.

    Example:
        >>> finite_sum({"x": torch.tensor([1.0, float("nan")]), "y": [torch.tensor(3)]})
        tensor(nan)
    """
    total: Tensor | None = None
    for count, tensor in enumerate(_tensors(batch, _DEEPEST)):
        if count >= _MOST_TENSORS:
            break
        # Times zero: large numbers must not add up to infinity.
        part = (tensor * 0).sum(dtype=torch.float32)
        total = part if total is None else total + part.to(total.device)
    return total


def _tensors(batch: object, depth: int) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        if batch.is_floating_point() and batch.layout is torch.strided:
            yield batch
        return
    if depth == 0:
        return
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(parts, (list, tuple)) or parts is not batch:
        for part in parts:  # type: ignore[attr-defined]  # a sequence or the values of a mapping
            yield from _tensors(part, depth - 1)
