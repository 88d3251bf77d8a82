"""What is known of a set of tensors before any of them is read.

In: sizes. Out: which tensors are taken whole, which are sampled and how, and where each one's
part of the joined sample begins. Made once for a set of parameters, then used at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradguard.measure.spacing import RUN, stride_of

__all__ = ["Plan"]


@dataclass(frozen=True, eq=False)
class Plan:
    """How to read tensors, first those taken whole and then those that are sampled.

    Attributes:
        sizes: Entries that each tensor stores.
        num_whole: How many of them, from the first on, are taken whole.
        groups: Ranges of whole tensors that differ in their first dimension only.
        strides: Spacing of the runs that are taken of each tensor; 0 takes it whole.
        taken: How many that makes, ``(tensors,)``.
        starts: Where each tensor's part of the joined sample begins, ``(tensors,)``.
        weights: How many entries each sampled one stands for, ``(tensors,)``.
        filled: Tensors that store anything at all, by index.
        tables: What a device keeps of this plan, by device.
    """

    sizes: tuple[int, ...]
    num_whole: int
    groups: tuple[slice, ...]
    strides: tuple[int, ...]
    taken: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]
    filled: npt.NDArray[np.intp]
    tables: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        num_whole: int,
        shapes: Sequence[Sequence[int]] = (),
        *,
        can_join: bool = True,
    ) -> Plan:
        """Plan for tensors of these sizes.

        Args:
            sizes: Entries that each tensor stores, those to be taken whole first.
            num_whole: How many are to be taken whole.
            shapes: Their shapes, so that a sample sees all rows and columns; else vectors.
            can_join: Whether neighbours that differ in the first dimension only may be joined
                by one operation.

        Example:
            >>> plan = Plan.of([3, 100_000], num_whole=1)
            >>> plan.strides, plan.taken.tolist(), plan.starts.tolist()
            ((0, 1024), [3, 1568], [0, 3])
        """
        known = [tuple(shape) for shape in shapes] or [(size,) for size in sizes]
        large = zip(sizes[num_whole:], known[num_whole:], strict=True)
        strides = [0] * num_whole + [stride_of(size, shape) for size, shape in large]
        taken = np.array(list(map(_num_taken, sizes, strides)), dtype=np.intp)
        return cls(
            sizes=tuple(sizes),
            num_whole=num_whole,
            groups=_groups(known[:num_whole]) if can_join and shapes else (),
            strides=tuple(strides),
            taken=taken,
            starts=np.cumsum(taken) - taken,
            weights=np.array(sizes, dtype=np.float64) / np.maximum(taken, 1),
            filled=np.flatnonzero(taken),
        )

    @cached_property
    def whole(self) -> Plan:
        """The plan of the tensors that are taken whole."""
        if self.num_whole == len(self.sizes):
            return self
        return Plan.of(self.sizes[: self.num_whole], self.num_whole)

    @cached_property
    def whole_entries(self) -> int:
        """Entries of all tensors that are taken whole."""
        return sum(self.sizes[: self.num_whole])

    @property
    def has_empty(self) -> bool:
        """Whether some tensor stores nothing."""
        return len(self.filled) < len(self.sizes)


def _num_taken(size: int, stride: int) -> int:
    return size if stride == 0 else ((size - RUN) // stride + 1) * RUN


def _groups(shapes: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    """Return ranges of neighbours that can be joined along their first dimension."""
    ends = [i for i, pair in enumerate(pairwise(shapes), start=1) if not _joinable(*pair)]
    borders = pairwise([0, *ends, len(shapes)])
    return tuple(slice(start, stop) for start, stop in borders if stop > start)


def _joinable(shape: Sequence[int], other: Sequence[int]) -> bool:
    return min(len(shape), len(other)) > 0 and tuple(shape[1:]) == tuple(other[1:])
