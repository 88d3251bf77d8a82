"""The backend of the CPU, in numpy.

In: tensors on the CPU. Out: float64 arrays. Since there is no device to wait for, work that
only broken numbers need is done only when there are any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gradguard import schema
from lightning_gradguard.measure import blocks
from lightning_gradguard.measure.plan import Plan
from lightning_gradguard.measure.values import as_vector, take_sample

Vector = npt.NDArray[np.float64]


def wide(sample: Tensor) -> Vector:
    """Return a sample in float64."""
    return sample.to(torch.float64).numpy()


def zeros(like: Vector) -> Vector:
    """Return zeros of the same shape."""
    return np.zeros_like(like)


def segment_sum(plan: Plan, numbers: npt.NDArray[np.generic]) -> Vector:
    """Add up each tensor's part of a joined sample."""
    return _segments(np.add, plan, numbers)


def segment_max(plan: Plan, numbers: Vector) -> Vector:
    """Return the largest of each tensor's part."""
    return _segments(np.maximum, plan, numbers)


def _segments(reduce: np.ufunc, plan: Plan, numbers: npt.NDArray[np.generic]) -> Vector:
    dtype = np.intp if numbers.dtype == np.bool_ else None
    with np.errstate(all="ignore"):
        if not plan.has_empty:
            return reduce.reduceat(numbers, plan.starts, dtype=dtype).astype(np.float64, copy=False)
        # Of an empty part, `reduceat` would return the entry after it.
        out = np.zeros(len(plan.sizes))
        if plan.filled.size:
            out[plan.filled] = reduce.reduceat(numbers, plan.starts[plan.filled], dtype=dtype)
        return out


def count_nonfinite(plan: Plan, numbers: Vector, squares: Vector) -> Vector:
    """Count each part's non-finite numbers, which it has only where squares do not add up."""
    if np.isfinite(squares).all():
        return np.zeros_like(squares)
    return segment_sum(plan, ~np.isfinite(numbers))


def weigh(plan: Plan, sums: Vector) -> Vector:
    """Scale sums over samples up to the size of the tensors."""
    return sums * (plan.weights if sums.ndim == 1 else plan.weights[:, np.newaxis])


def read_large(values: Sequence[Tensor]) -> Vector:
    """Read all entries of large tensors, block by block."""
    return blocks.read([as_vector(value) for value in values])


def large_squares(values: Sequence[Tensor]) -> Vector:
    """Return the exact sum of squares of each large tensor."""
    return blocks.read_squares([as_vector(value) for value in values])


def join(first: Vector, second: Vector) -> Vector:
    """Put two results after each other, along the last dimension."""
    return np.concatenate([first, second], axis=-1)


def histogram(plan: Plan, numbers: Vector) -> Vector:
    """Count sampled magnitudes by octave."""
    # frexp writes x as m * 2**e with m in [0.5, 1), so the octave is e - 1.
    octave = np.frexp(numbers)[1].astype(np.int64) - 1
    column = np.clip(
        octave - schema.HISTOGRAM_LOW + schema.HISTOGRAM_FIRST,
        schema.HISTOGRAM_FIRST - 1,
        schema.HISTOGRAM_LAST + 1,
    )
    column -= octave < schema.BFLOAT16_LOW
    column += octave >= schema.BFLOAT16_HIGH
    column[numbers == 0] = 0
    column[~np.isfinite(numbers)] = schema.HISTOGRAM_BINS - 1
    row = np.repeat(np.arange(len(plan.sizes)), plan.taken)
    size = len(plan.sizes) * schema.HISTOGRAM_BINS
    counts = np.bincount(row * schema.HISTOGRAM_BINS + column, minlength=size)
    return counts.reshape(len(plan.sizes), schema.HISTOGRAM_BINS).astype(np.float64)


def finite_sum(plan: Plan, values: Sequence[Tensor]) -> bool:
    """Tell whether all entries are finite, in one cheap read."""
    parts = (take_sample(plan, values), *values[plan.num_whole :])
    return all(math.isfinite(_sum(part)) for part in parts)


def _sum(value: Tensor) -> float:
    """Add up in at least float32: the sum of healthy float16 numbers may overflow there."""
    return value.sum(dtype=torch.promote_types(value.dtype, torch.float32)).item()
