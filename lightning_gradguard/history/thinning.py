"""Which old steps a history may lose, so that it never grows without end.

In: what is known of the oldest steps. Out: which of them stay. Reads and writes nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.history.tables import PAGE_BYTES

__all__ = ["ACTED", "BUCKET", "FOUND", "densest", "kept_steps", "most_steps"]

_BYTES: Final = 200_000_000
_FEWEST: Final = 2000
_MOST: Final = 50_000
"""More steps take a browser too long, however small the model."""
_MOST_NUMBERS: Final = 1 << 25
"""Of one statistic; a reader takes twice as many."""
_BYTES_OF_STEP: Final = 300
"""What a step takes beside its statistics."""
_PAGE_HEAD: Final = 8
_ROW_HEAD: Final = 10
BUCKET: Final = 8
"""So many steps that follow each other are thinned together."""
_STAYS: Final = 4
FOUND: Final = 1e6
"""What a step weighs that a finding names, and the first whose global norm is not finite."""
ACTED: Final = 20.0
"""What a step weighs at which an action begins, in usual distances."""
_RESERVED: Final = 5e5
"""What the step weighs whose global norm, or loss, stands out most among its eight."""
_STANDS_OUT: Final = 4.0
"""Usual distances from which on a global norm or a loss is worth a place of its own."""
_FURTHEST: Final = 1e5
_LEAST_SPREAD: Final = 0.25
"""Octaves that a norm varies by at least, as far as this is concerned."""
_OCTAVES: Final = 150.0
"""As far from 1 are zero and infinity, which is beyond every float32."""
_SPECIAL: Final = 15.0
"""Usual distances that a zero or an infinity of a layer is away, or a loss that has no place of its
own, so that they hide no spike."""
_LOSS_SPREAD: Final = 1e-3
_NUMBERS_AT_ONCE: Final = 1 << 22

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def most_steps(layers: int, statistics: int) -> int:
    """Return how many steps of an optimizer are kept before old ones are thinned.

    Example:
        >>> most_steps(400, 12), most_steps(20, 12), most_steps(100_000, 12)
        (10019, 50000, 335)
    """
    layers = max(1, layers)
    fewest = min(_FEWEST, _MOST_NUMBERS // layers)
    bytes_each = _BYTES_OF_STEP + statistics * _bytes_of_row(4 * layers)
    return max(fewest, min(_MOST, int(_BYTES / bytes_each)))


def _bytes_of_row(size: int) -> float:
    """Return what a row of so many bytes takes in the file: no page holds a part of one.

    Example:
        >>> _bytes_of_row(8200), _bytes_of_row(40_000)
        (16384.0, 40010.0)
    """
    whole = (PAGE_BYTES - _PAGE_HEAD) // (size + _ROW_HEAD)
    # What is larger than a page goes on in pages of its own, of which the last is shared.
    return PAGE_BYTES / whole if whole else float(size + _ROW_HEAD)


def densest(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the half of the buckets that lie closest together, as rows, shape ``(m, 8)``.

    So all the past is shown about equally well, however long it is.

    Args:
        steps: In the order written, shape ``(n,)``.

    Example:
        >>> densest(np.array([*range(0, 80, 10), *range(80, 88)])).tolist()
        [[8, 9, 10, 11, 12, 13, 14, 15]]
    """
    count = len(steps) // BUCKET
    rows = np.arange(count * BUCKET).reshape(count, BUCKET)
    spans = steps[rows[:, -1]] - steps[rows[:, 0]]
    chosen: npt.NDArray[np.intp] = rows[np.sort(np.argsort(spans, kind="stable")[: count // 2])]
    return chosen


def kept_steps(
    global_norms: Floats, layer_norms: Floats, losses: Floats, weights: Floats
) -> npt.NDArray[np.bool_]:
    """Return which steps stay: of each eight that follow each other, four.

    First what was spoken of; then the one whose global norm, and the one whose loss, is furthest
    from what is usual among the eight, in terms of how much it usually varies; then those that
    stand out by the norm of any layer.

    Args:
        global_norms: Global gradient norm, shape ``(n,)``; ``n`` is a multiple of eight.
        layer_norms: Gradient norm, shape ``(n, layers)``; NaN is not measured, infinity what had
            an entry that is not finite.
        losses: Shape ``(n,)``; NaN is not measured.
        weights: What was said of a step, in usual distances: `FOUND`, `ACTED` or 0, ``(n,)``.

    Example:
        >>> norms, losses = np.array([1.0, 9.0, 1.1, 1.0, 0.9, 1.0, 1.0, 1.0]), np.ones(8)
        >>> losses[4], weights = 8.0, np.array([0, 0, 0, 0, 0, 0, FOUND, ACTED])
        >>> kept_steps(norms, norms[:, None], losses, weights).tolist()
        [False, True, False, False, True, False, True, True]
    """
    whole, loss = _of_norms(_never_unknown(global_norms)), _of_losses(losses)
    standings = [whole, np.minimum(loss, _SPECIAL), _of_layers(layer_norms)]
    weights = weights + np.minimum(np.max(standings, axis=0), _FURTHEST)
    for standing in (whole, loss):
        rows = np.arange(len(weights)).reshape(-1, BUCKET)
        best = rows[np.arange(len(rows)), standing.reshape(-1, BUCKET).argmax(axis=1)]
        weights[best] += _RESERVED * (standing[best] >= _STANDS_OUT)
    weights[np.flatnonzero(~np.isfinite(global_norms))[:1]] += FOUND
    order = np.argsort(-weights.reshape(-1, BUCKET), axis=1, kind="stable")[:, :_STAYS]
    kept = np.zeros((len(order), BUCKET), dtype=np.bool_)
    np.put_along_axis(kept, order, values=True, axis=1)
    return kept.reshape(-1)


def _never_unknown(norms: Floats) -> Floats:
    """Return a column in which what is not known is not finite: a global norm is always taken."""
    known: Floats = np.where(np.isnan(norms), np.inf, norms)[:, None]
    return known


def _of_losses(losses: Floats) -> Floats:
    """Return how far each step's loss is from what is usual among its eight, in usual distances."""
    losses = np.clip(losses, -1e100, 1e100)
    sizes = np.abs(losses)[:, None]
    # Of a loss that is zero most of the time, the others say what is large.
    usual = _middle(np.where(sizes > 0.0, sizes, np.nan), axis=0)
    return _distance(losses[:, None], np.fmax(_LOSS_SPREAD * usual, 1e-30))


def _of_layers(norms: Floats) -> Floats:
    """Return the same of the layer that is furthest."""
    found = np.zeros(len(norms))
    at_once = max(1, _NUMBERS_AT_ONCE // len(norms))
    for first in range(0, norms.shape[1], at_once):
        part = norms[:, first : first + at_once]
        found = np.maximum(found, _of_norms(part))
    return found


def _of_norms(norms: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        octaves = np.clip(np.log2(np.abs(norms)), -_OCTAVES, _OCTAVES)
    is_special = np.abs(octaves) == _OCTAVES
    return _distance(octaves, np.array(_LEAST_SPREAD), is_special)


def _distance(values: Floats, least: Floats, is_special: Mask | None = None) -> Floats:
    """Return the furthest that a row is from the middle of its eight, of any column."""
    grouped = values.reshape(-1, BUCKET, values.shape[1])
    away = np.abs(grouped - _middle(grouped, axis=1))
    usual = _middle(_middle(away, axis=1)[:, 0], axis=0)
    scaled = away / np.fmax(usual, least)
    if is_special is not None:
        capped = np.minimum(scaled, _SPECIAL)
        scaled = np.where(is_special.reshape(grouped.shape), capped, scaled)
    furthest: Floats = np.where(np.isnan(scaled), 0.0, scaled).max(axis=2, initial=0.0)
    return furthest.reshape(-1)


def _middle(values: Floats, axis: int) -> Floats:
    """Return the lower median of what is known along an axis, which stays; NaN where nothing is."""
    ordered = np.sort(values, axis=axis)  # what is not known comes last
    known = np.count_nonzero(~np.isnan(values), axis=axis, keepdims=True)
    middle: Floats = np.take_along_axis(ordered, np.maximum(known - 1, 0) // 2, axis=axis)
    return middle
