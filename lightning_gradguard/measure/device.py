"""The backend of every device but the CPU: nothing here asks it for a number.

In: tensors on one device. Out: float64 tensors there (float32 on Apple's GPUs, which have
nothing wider). What is needed to decide is known from the plan. Large tensors are read by
`kernel` where that works, else by `foreach`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_gradguard import schema
from lightning_gradguard.devices import widest_dtype
from lightning_gradguard.measure import foreach, kernel
from lightning_gradguard.measure.plan import Plan


class _Tables(NamedTuple):
    """A plan's numbers, where they are needed.

    Attributes:
        borders: Where each tensor's part of the joined sample begins, and where the last ends.
        weights: How many entries each sampled one stands for.
    """

    borders: Tensor
    weights: Tensor


def _tables(plan: Plan, device: torch.device) -> _Tables:
    """Keep small tables on the device with their plan, so that no step waits for their copy."""
    if device not in plan.tables:
        plan.tables[device] = _Tables(
            borders=torch.from_numpy(np.append(plan.starts, plan.taken.sum())).to(device),
            weights=torch.from_numpy(plan.weights).to(widest_dtype(device)).to(device),
        )
    tables: _Tables = plan.tables[device]
    return tables


def _rows(plan: Plan, numbers: Tensor) -> Tensor:
    """Return the tensor of each sampled entry, by index."""
    places = torch.arange(numbers.numel(), device=numbers.device)
    ends = _tables(plan, numbers.device).borders[1:]
    return torch.bucketize(places, ends, right=True)


@functools.cache
def _columns(device: torch.device) -> Tensor:
    """Return the histogram's column for each value of the exponent field of a float."""
    bias, last = (127, 255) if widest_dtype(device) is torch.float32 else (1023, 2047)
    octave = np.arange(last + 1) - bias
    column = np.clip(
        octave - schema.HISTOGRAM_LOW + schema.HISTOGRAM_FIRST,
        schema.HISTOGRAM_FIRST - 1,
        schema.HISTOGRAM_LAST + 1,
    )
    column -= octave < schema.BFLOAT16_LOW
    column += octave >= schema.BFLOAT16_HIGH
    column[last] = schema.HISTOGRAM_BINS - 1  # infinity and NaN
    return torch.from_numpy(column).to(device)


def wide(sample: Tensor) -> Tensor:
    """Return a sample in the widest type that the device has."""
    return sample.to(widest_dtype(sample.device))


def zeros(like: Tensor) -> Tensor:
    """Return zeros of the same shape."""
    return torch.zeros_like(like)


def segment_sum(plan: Plan, numbers: Tensor) -> Tensor:
    """Add up each tensor's part of a joined sample."""
    return _segments("sum", plan, numbers)


def segment_max(plan: Plan, numbers: Tensor) -> Tensor:
    """Return the largest of each tensor's part."""
    return _segments("max", plan, numbers)


def _segments(reduce: str, plan: Plan, numbers: Tensor) -> Tensor:
    tables, numbers = _tables(plan, numbers.device), wide(numbers)
    if _has_segments(numbers.device):
        # From lengths, torch would compute the borders anew, in three kernels more.
        return torch.segment_reduce(
            numbers, reduce, offsets=tables.borders, unsafe=True, initial=0.0
        )
    out = numbers.new_zeros(len(plan.sizes))
    if reduce == "sum":
        return out.index_add_(0, _rows(plan, numbers), numbers)
    return out.scatter_reduce_(0, _rows(plan, numbers), numbers, "amax")


def _has_segments(device: torch.device) -> bool:
    """Whether torch can reduce segments there; on Apple's GPUs it cannot."""
    return device.type != "mps"


def count_nonfinite(plan: Plan, numbers: Tensor, squares: Tensor) -> Tensor:  # noqa: ARG001 - the host's shortcut
    """Count each part's non-finite numbers."""
    # x - x is 0 for a finite x and NaN otherwise, and NaN is not 0.
    return segment_sum(plan, (numbers - numbers).ne_(0))


def weigh(plan: Plan, sums: Tensor) -> Tensor:
    """Scale sums over samples up to the size of the tensors."""
    weights = _tables(plan, sums.device).weights
    return sums * (weights if sums.dim() == 1 else weights.unsqueeze(1))


def read_large(values: Sequence[Tensor]) -> Tensor:
    """Read all entries of large tensors."""
    sums = _read_by_kernel(values)
    return foreach.read(values) if sums is None else sums


def large_squares(values: Sequence[Tensor]) -> Tensor:
    """Return the exact sum of squares of each large tensor."""
    sums = _read_by_kernel(values)
    return foreach.squares(values) if sums is None else sums[0]


def _read_by_kernel(values: Sequence[Tensor]) -> Tensor | None:
    is_usable = kernel.is_usable(values[0].device, reference=foreach.read)
    return kernel.read(values) if is_usable else None


def join(first: Tensor, second: Tensor) -> Tensor:
    """Put two results after each other, along the last dimension."""
    return torch.cat([first, second], dim=-1)


def histogram(plan: Plan, numbers: Tensor) -> Tensor:
    """Count sampled magnitudes by octave."""
    column = _columns(numbers.device).index_select(0, _exponent_field(numbers))
    column.masked_fill_(numbers == 0, 0)
    counts = numbers.new_zeros(len(plan.sizes) * schema.HISTOGRAM_BINS)
    counts.scatter_add_(
        0, column.add_(_rows(plan, numbers) * schema.HISTOGRAM_BINS), torch.ones_like(numbers)
    )
    return counts.view(len(plan.sizes), schema.HISTOGRAM_BINS)


def _exponent_field(numbers: Tensor) -> Tensor:
    """Return the bits between sign and fraction: one look instead of many comparisons."""
    if numbers.dtype == torch.float32:
        return (numbers.view(torch.int32) >> 23).bitwise_and_(0xFF)
    return (numbers.view(torch.int64) >> 52).bitwise_and_(0x7FF)


def finite_sum(plan: Plan, values: Sequence[Tensor]) -> Tensor:  # noqa: ARG001 - the host's need
    """Return a sum that is finite only if every entry is, shape ``()``."""
    return large_squares(values).sum()
