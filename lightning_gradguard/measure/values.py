"""Whatever a gradient is, as real numbers in memory.

In: parameters or gradients of any layout, stride and dtype. Out: the real numbers that they
store, without a copy where possible, and a joined sample of them. Nothing is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gradguard.measure.plan import Plan
from lightning_gradguard.measure.spacing import RUN

__all__ = ["as_vector", "join", "plain_values", "runs", "take_sample"]


def plain_values(tensor: Tensor) -> Tensor:
    """Return the stored values of a tensor as real numbers.

    Args:
        tensor: Any layout and dtype. Of a sparse tensor the stored values are taken, after
            adding up duplicates; a complex number counts as two.

    Example:
        >>> plain_values(torch.tensor([3.0 + 4.0j])).tolist()
        [[3.0, 4.0]]
    """
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = (
            tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
        )
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor


def take_sample(plan: Plan, values: Sequence[Tensor]) -> Tensor:
    """Join what a plan takes of each tensor: a copy, in the tensors' own dtype.

    To join tensors as they are, a whole group at a time, is three times as fast as to make a
    vector of each first.
    """
    parts = [as_vector(_joined(values[group])) for group in plan.groups]
    first = plan.groups[-1].stop if plan.groups else 0
    rest = zip(values[first:], plan.strides[first:], strict=True)
    return join([*parts, *(runs(as_vector(value), stride) for value, stride in rest)])


def runs(vector: Tensor, stride: int) -> Tensor:
    """Return the runs of neighbours that a sample takes of a vector, as a view."""
    return vector if stride == 0 else vector.unfold(0, RUN, stride)


def join(views: Sequence[Tensor]) -> Tensor:
    """Return a copy of vectors and of `runs`, one after another.

    Neighbours with as many dimensions are joined first: to make a vector of each view of runs
    would be a copy, and on a device a launch, for each.
    """
    kinds = itertools.groupby(views, key=Tensor.dim)
    parts = [torch.cat(list(same)).view(-1) for _, same in kinds]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined(group: Sequence[Tensor]) -> Tensor:
    return group[0] if len(group) == 1 else torch.cat(group)  # type: ignore[arg-type]  # any sequence will do


def as_vector(tensor: Tensor) -> Tensor:
    """Return a plain tensor as one vector, in the order in which it lies in memory.

    Channels-last and transposed tensors are dense and are not copied; slices and expanded
    tensors are.
    """
    if tensor.is_contiguous():
        return tensor.view(-1)
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).reshape(-1).contiguous()
