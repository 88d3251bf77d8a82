"""All entries of large tensors, by torch's own operators: works on any device.

In: tensors on one device. Out: their sums there, in the widest dtype that it has. A few kernels
per tensor; `kernel` does the same in two for all of them, and is measured against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from lightning_gradguard.devices import widest_dtype
from lightning_gradguard.measure.values import as_vector

__all__ = ["read", "squares"]

_PIECE: Final = 1 << 24
"""Entries that are widened at a time: 128 MiB, whatever the size of the tensor."""


def read(values: Sequence[Tensor]) -> Tensor:
    """Return sum of squares, sum, largest magnitude and number of non-finite entries.

    Args:
        values: At least one tensor of real numbers.

    Returns:
        Rows of shape ``(4, tensors)``; of largest magnitudes, NaN is the largest.

    Cost:
        No host sync. Four kernels per tensor of up to 16 M entries and a few more for all.

    Example:
        >>> read([torch.tensor([3.0, -4.0])])[:, 0].tolist()
        [25.0, -1.0, 4.0, 0.0]
    """
    vectors = [_filled(as_vector(value)) for value in values]
    dtype = widest_dtype(vectors[0].device)
    norms = torch._foreach_norm(vectors, 2, dtype=dtype)  # noqa: SLF001 - as torch.nn.utils
    largest = torch._foreach_norm(vectors, float("inf"), dtype=dtype)  # noqa: SLF001
    totals, bad = zip(*[_sum_and_bad(vector, dtype) for vector in vectors], strict=True)
    # One list for all four: each `stack` is a kernel per hundred tensors, and one is enough.
    rows = torch.stack([*norms, *totals, *largest, *bad]).view(4, len(vectors))
    rows[0].square_()
    return rows


def squares(values: Sequence[Tensor]) -> Tensor:
    """Return the sum of squares of each tensor: ``(tensors,)``."""
    vectors = [_filled(as_vector(value)) for value in values]
    dtype = widest_dtype(vectors[0].device)
    norms = torch._foreach_norm(vectors, 2, dtype=dtype)  # noqa: SLF001 - as torch.nn.utils
    return torch.stack(norms).square_()


def _filled(vector: Tensor) -> Tensor:
    """Return a vector that has a largest entry, which an empty one has not."""
    return vector if vector.numel() else vector.new_zeros(1)


def _sum_and_bad(vector: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    pieces = [_piece(piece.to(dtype)) for piece in torch.split(vector, _PIECE)]
    if len(pieces) == 1:
        return pieces[0]
    totals, bad = zip(*pieces, strict=True)
    return torch.stack(totals).sum(), torch.stack(bad).sum()


def _piece(piece: Tensor) -> tuple[Tensor, Tensor]:
    # x - x is 0 for a finite x and NaN otherwise, and the norm of order 0 counts what is not 0.
    return piece.sum(), torch.linalg.vector_norm(piece - piece, ord=0)
