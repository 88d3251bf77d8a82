"""Where a sample of a large tensor is taken.

In: a shape. Out: a spacing. A sample takes short runs of neighbours at equal distances. A
distance that is nearly a multiple of a row's width would see the same columns again and again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import accumulate
from operator import mul
from typing import Final

import numpy as np

__all__ = ["RUN", "SAMPLE_SIZE", "stride_of"]

SAMPLE_SIZE: Final = 4096
"""A tensor with more entries than this is sampled where a statistic allows it."""

RUN: Final = 16
"""A sample takes so many neighbours at a time: single entries would each miss the cache, of which
a line holds 16 numbers of float32."""

_SMALLEST_SAMPLE: Final = 1024
_ENTRIES_PER_SAMPLED: Final = 64
"""A sample is about this many times smaller than the tensor, within the two limits above."""

_CANDIDATES: Final = 64


@functools.lru_cache(maxsize=4096)
def stride_of(size: int, shape: tuple[int, ...]) -> int:
    """Return the distance from one run to the next, 0 to take all.

    Of distances up to a half longer than need be, the one is taken that visits the rows, columns
    and kernel positions most evenly.

    Args:
        size: Number of entries.
        shape: How they are arranged.

    Cost:
        A few milliseconds for each new shape.

    Example:
        >>> stride_of(1024 * 1024, (1024, 1024))  # four rows and 132 columns: 33 sweeps in all
        4228
    """
    if size <= SAMPLE_SIZE:
        return 0
    wanted = min(SAMPLE_SIZE, max(_SMALLEST_SAMPLE, size // _ENTRIES_PER_SAMPLED))
    shortest = size * RUN // wanted
    # An odd step, or no candidate would be odd where widths are powers of two.
    step = shortest // (2 * _CANDIDATES) | 1
    strides = np.arange(shortest, shortest + min(_CANDIDATES * step, shortest // 2), step)
    unevenness = np.full(len(strides), -np.inf)
    for width in set(_widths(shape)):
        if width < size and RUN % width:  # else each run sees all of a row alike
            unevenness = np.maximum(unevenness, _unevenness(strides, width, wanted // RUN))
    return int(strides[np.argmin(unevenness)])


def _widths(shape: tuple[int, ...]) -> Iterator[int]:
    """Yield what may lie between two neighbours of any axis, for the usual orders in memory."""
    channels_last = (shape[0], *shape[2:], *shape[1:2])
    for order in (shape, channels_last, shape[::-1]):
        yield from accumulate(reversed(order[1:]), mul)


def _unevenness(strides: np.ndarray, width: int, num_runs: int) -> np.ndarray:
    """Return for each stride how far its places in a row are from evenly spread, in rows."""
    places = (np.arange(num_runs) * strides[:, np.newaxis] % width + 0.5) / width
    even = (np.arange(num_runs) + 0.5) / num_runs
    distance: np.ndarray = np.abs(np.sort(places, axis=1) - even).max(axis=1)
    return distance - 0.5 / width  # what the best of all would have
