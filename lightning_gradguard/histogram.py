"""How to read a log2 histogram.

In: counts by magnitude, in the columns that `schema` lays out. Out: what would be lost in a
narrower number format. Plain numpy.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lightning_gradguard import schema

__all__ = ["NumberFormat", "octaves", "overflow_share", "underflow_share"]

Vector = npt.NDArray[np.float64]
NumberFormat = Literal["float16", "bfloat16"]

_LOW: Final = {"float16": schema.FLOAT16_LOW, "bfloat16": schema.BFLOAT16_LOW}
_HIGH: Final = {"float16": schema.FLOAT16_HIGH, "bfloat16": schema.BFLOAT16_HIGH}


def octaves(counts: Vector) -> Vector:
    """Return the counts of entries that are neither zero nor broken, underflow first.

    Shape:
        ``(..., HISTOGRAM_HIGH - HISTOGRAM_LOW + 2)``: one column below the octaves, the octaves,
        and one above.
    """
    first, last = schema.HISTOGRAM_FIRST, schema.HISTOGRAM_LAST
    below = counts[..., 1:first].sum(axis=-1, keepdims=True)
    above = counts[..., last + 1 : -1].sum(axis=-1, keepdims=True)
    return np.concatenate([below, counts[..., first : last + 1], above], axis=-1)


def underflow_share(counts: Vector, number_format: NumberFormat) -> Vector:
    """Return which share of the non-zero finite entries a format would make zero.

    Args:
        counts: Histograms, ``(..., HISTOGRAM_BINS)``.
        number_format: The format.

    Returns:
        In ``[0, 1]``, NaN where there is no such entry.

    Source:
        IEEE 754: half of the smallest subnormal number, 2**-24 in float16 and 2**-133 in
        bfloat16, rounds to zero.
    """
    return _share(counts, counts[..., 1 : _column(_LOW[number_format])])


def overflow_share(counts: Vector, number_format: NumberFormat) -> Vector:
    """Return which share of the non-zero finite entries a format would make infinite.

    Magnitudes just below a power of two that are rounded up to infinity, such as those from 65,520
    to 65,536 in float16, are not told apart from those below.

    Args:
        counts: Histograms, ``(..., HISTOGRAM_BINS)``.
        number_format: The format.

    Returns:
        In ``[0, 1]``, NaN where there is no such entry.
    """
    return _share(counts, counts[..., _column(_HIGH[number_format]) : -1])


def _column(power: int) -> int:
    """Return the column whose entries begin at a power of two."""
    if power < schema.HISTOGRAM_LOW:
        return 2
    if power > schema.HISTOGRAM_HIGH:
        return schema.HISTOGRAM_BINS - 2
    return power - schema.HISTOGRAM_LOW + schema.HISTOGRAM_FIRST


def _share(counts: Vector, part: Vector) -> Vector:
    whole = counts[..., 1:-1].sum(axis=-1)
    share: Vector = part.sum(axis=-1) / np.where(whole > 0.0, whole, np.nan)
    return share
