"""Every entry of large tensors, read once, on the CPU.

In: vectors. Out: float64 sums. A block stays in a core's cache from one reduction to the next.
Rows of float32 are short enough to be added up there to seven digits; rows are added up in
float64. Numbers whose squares float32 cannot hold, and broken ones, are read again with care.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["read", "read_squares"]

Vector = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]

_ROW: Final = 1 << 10
"""Entries that float32 adds up without a loss worth naming: 2e-7 for equal entries."""

_BLOCK: Final = 1 << 17
"""Entries that fit the cache of a core."""

_SMALLEST: Final = 2.0**-40
_LARGEST: Final = 2.0**50
"""Between these, squares and their sum over a row are ordinary numbers of float32."""

_ONES: Final = np.ones((_ROW, 1), dtype=np.float32)


@np.errstate(all="ignore")
def read(vectors: Sequence[Tensor]) -> Vector:
    """Reduce vectors.

    Returns:
        Rows of sum of squares, sum, largest magnitude and number of non-finite entries,
        ``(4, vectors)``: sums good to 1e-6, the others exact.
    """
    return np.array([_read(vector) for vector in vectors]).T.reshape(4, -1)


def read_squares(vectors: Sequence[Tensor]) -> Vector:
    """Return the sum of squares of each vector, good to 1e-6."""
    squares: Vector = read(vectors)[0]
    return squares


def _read(vector: Tensor) -> tuple[float, float, float, float]:
    if vector.numel() == 0:
        return 0.0, 0.0, 0.0, 0.0
    if vector.dtype == torch.float64:
        return _read_carefully(vector)
    squares = total = largest = 0.0
    for rows in _float32_rows(vector):
        # As products of rows: one call for many short sums, by the linear algebra library.
        squares += float(np.matmul(rows[:, None, :], rows[:, :, None]).sum(dtype=np.float64))
        total += float(np.matmul(rows[:, None, :], _ONES[: rows.shape[1]]).sum(dtype=np.float64))
        largest = max(largest, float(rows.max()), -float(rows.min()))
    is_ordinary = _SMALLEST < largest < _LARGEST or squares == largest == 0.0
    # Of nearly equal entries, only careful sums tell the standard deviation from zero.
    varies = vector.numel() * squares >= (1.0 + 1e-4) * total * total
    if is_ordinary and varies and math.isfinite(squares):
        return squares, total, largest, 0.0
    return _read_carefully(vector)


def _float32_rows(vector: Tensor) -> Iterator[Rows]:
    """Yield a vector as blocks of rows, the last of them a single row that may be short."""
    for block in torch.split(vector, _BLOCK):
        array = block.to(torch.float32).numpy()
        whole = array.size // _ROW * _ROW
        if whole:
            yield array[:whole].reshape(-1, _ROW)
        if whole < array.size:
            yield array[whole:].reshape(1, -1)


def _read_carefully(vector: Tensor) -> tuple[float, float, float, float]:
    """Do the same in float64, and count what is not finite."""
    squares = total = largest = 0.0
    for block in torch.split(vector, _BLOCK):
        wide = block.to(torch.float64)
        squares += torch.dot(wide, wide).item()
        total += wide.sum().item()
        low, high = torch.aminmax(wide)
        largest = max(largest, high.item(), -low.item())
    if math.isfinite(squares):
        return squares, total, largest, 0.0
    bad = torch.count_nonzero(vector - vector).item()  # x - x is NaN unless x is finite
    return squares, total, vector.abs().max().item(), float(bad)
