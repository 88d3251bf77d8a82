"""Which old steps a history may lose, so that it never grows without end.

In: what is known of the oldest steps. Out: which of them stay. Reads and writes nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["kept_steps", "most_steps"]

_BYTES: Final = 200_000_000
_FEWEST: Final = 2000
_BUCKET: Final = 4
_MOST_SPECIAL: Final = 0.2


def most_steps(layers: int, statistics: int) -> int:
    """Return how many steps of an optimizer are kept before old ones are thinned.

    Example:
        >>> most_steps(400, 12), most_steps(20, 12), most_steps(100_000, 12)
        (10416, 208333, 2000)
    """
    return max(_FEWEST, _BYTES // (4 * statistics * max(1, layers)))


def kept_steps(
    steps: npt.NDArray[np.int64],
    norms: npt.NDArray[np.float64],
    layer_norms: npt.NDArray[np.float32],
    spoken_of: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Return which of the oldest steps stay: about half of them.

    Those that a later attempt made again go. Of each four that follow each other, the one with
    the largest and the one with the smallest global norm stay. So do all that a finding or an
    action names, the first that is not finite, and those with a layer's largest or smallest
    gradient norm, as long as they are not more than a fifth.

    Args:
        steps: In the order written, shape ``(n,)``.
        norms: Global gradient norm, shape ``(n,)``.
        layer_norms: Gradient norm, shape ``(n, layers)``.
        spoken_of: Whether a finding or an action names the step, shape ``(n,)``.

    Example:
        >>> norms = np.array([1.0, 9.0, 2.0, 3.0, 5.0, 5.0, np.nan, 4.0])
        >>> kept_steps(np.arange(8), norms, norms[:, None], np.arange(8) == 2).tolist()
        [True, True, True, False, False, False, True, True]
    """
    latest = np.ones(len(steps), dtype=bool)
    # Not those of equal number, which a gradient scaler makes; a reader drops what is too much.
    latest[:-1] = steps[:-1] <= np.minimum.accumulate(steps[::-1])[::-1][1:]
    rows = np.flatnonzero(latest)
    kept = np.zeros(len(steps), dtype=bool)
    ranked = np.where(np.isfinite(norms), norms, np.inf)
    for start in range(0, len(rows), _BUCKET):
        bucket = rows[start : start + _BUCKET]
        kept[bucket[ranked[bucket].argmax()]] = kept[bucket[ranked[bucket].argmin()]] = True
    broken = rows[~np.isfinite(norms[rows])]
    kept[broken[:1]] = True
    kept[_extremes(layer_norms, rows)] = True
    return kept & latest | spoken_of & latest


def _extremes(norms: npt.NDArray[np.float32], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the rows that hold extremes of most layers."""
    if not len(rows) or not norms.shape[1]:
        return rows[:0]
    finite = norms[rows]
    low = np.where(np.isfinite(finite), finite, np.inf).argmin(axis=0)
    high = np.where(np.isfinite(finite), finite, -np.inf).argmax(axis=0)
    found, counts = np.unique(np.concatenate([low, high]), return_counts=True)
    most = max(1, int(_MOST_SPECIAL * len(rows)))
    chosen: npt.NDArray[np.intp] = rows[found[np.argsort(-counts, kind="stable")[:most]]]
    return chosen
