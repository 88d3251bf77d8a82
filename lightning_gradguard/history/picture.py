"""The picture: one statistic of all layers, in columns of steps.

In: a `Run`. Out: a `pack`ed array. Steps are joined into columns so that nothing worth seeing is
lost: a column shows the value that stands out, if one does, else the mean, and beside it that a
step was exactly zero or not finite. Imports only numpy and the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lightning_gradguard.history.nonfinite import not_finite
from lightning_gradguard.history.spans import between, columns_of
from lightning_gradguard.history.wire import pack, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_gradguard.history import Run

__all__ = ["heatmap"]

_OUTSTANDING: Final = 2.0
"""Octaves from its column's mean at which a value is shown instead of the mean."""
_OUTSTANDING_SHARE: Final = 0.25
"""The same for shares."""
_SHARES: Final = {"zero_fraction"}
"""Statistics between 0 and 1, of which zero is an ordinary value."""
_COUNTS: Final = {"num_nonfinite"}
"""Statistics of which zero is what is usual, so that it hides nothing else."""
_MEDIAN_STEPS: Final = 2048
"""What is usual for a layer is taken from at most so many steps, evenly spread."""


def heatmap(
    run: Run,
    statistic: str,
    optimizer_index: int = 0,
    *,
    relative: str = "none",
    first: int | None = None,
    last: int | None = None,
    columns: int = 600,
) -> bytes:
    """Pack log2 magnitudes of one statistic, layers by columns of steps.

    Args:
        run: What to draw.
        statistic: One of `Run.statistics`.
        optimizer_index: Position of the optimizer.
        relative: ``"none"``, or ``"last"`` to divide each step by its last measured layer.
        first: First step shown; the run's first if None.
        last: Last step shown; the run's last if None.
        columns: At most this many columns, 1 to 4096.

    Returns:
        ``cells``, float16 ``(layers, columns)``: the mean log2 magnitude of the column, or its
        furthest value where that lies two octaves or more away; ``-inf`` where all steps were
        exactly zero, ``+inf`` where they were not finite, NaN where nothing was measured.
        ``special``, uint8 of the same shape or empty: where there is a value, 1 if a step of the
        column was exactly zero, 2 if one was not finite. Shares are not in log2, as ``scale`` says.
        Beside them ``steps`` (first step of each column), ``last`` and ``medians``.

    Raises:
        ValueError: If there is no such statistic or mode.
    """
    if statistic not in run.statistics:
        msg = f"no statistic {statistic!r}; there are {', '.join(run.statistics)}"
        raise ValueError(msg)
    if relative not in {"none", "last"}:
        msg = f"relative must be 'none' or 'last', not {relative!r}"
        raise ValueError(msg)
    sizes = _sizes(run, statistic, optimizer_index, relative)
    # Of the whole run, so that a zoom changes no colour.
    medians = _medians(sizes.shown, sizes.usual)
    steps = run.steps(optimizer_index)
    chosen = between(steps, first, last)
    steps, starts = steps[chosen], columns_of(steps[chosen], columns)
    header = {
        "layers": sizes.shown.shape[1],
        "steps": steps[starts].tolist(),
        "last": int(steps[-1]) if len(steps) else None,
        "medians": plain(medians.tolist()),
        "statistic": statistic,
        "relative": relative,
        "scale": "linear" if statistic in _SHARES else "log2",
    }
    cells, beside = _joined(sizes.between(chosen), starts, statistic)
    special = beside.T.astype(np.uint8) if beside.any() else np.zeros((0, 0), np.uint8)
    return pack(header, cells=cells.T.astype(np.float16), special=special)


class _Sizes(NamedTuple):
    """One statistic by step and layer: what is shown of it, and what is special about it."""

    shown: NDArray[np.float32]
    usual: NDArray[np.bool_]
    zero: NDArray[np.bool_]
    nonfinite: NDArray[np.bool_]

    def between(self, rows: slice) -> _Sizes:
        """Return some of the steps."""
        return _Sizes(self.shown[rows], self.usual[rows], self.zero[rows], self.nonfinite[rows])


def _sizes(run: Run, statistic: str, optimizer_index: int, relative: str) -> _Sizes:
    values = np.abs(np.asarray(run.statistic(statistic, optimizer_index), np.float32))
    counts = np.full_like(values, np.nan)
    if "num_nonfinite" in run.statistics:
        counts = run.statistic("num_nonfinite", optimizer_index)
    nonfinite = not_finite(statistic, values, counts)
    zero = (values == 0.0) & ~nonfinite
    if statistic in _SHARES:
        return _Sizes(values, np.isfinite(values) & ~nonfinite, np.zeros_like(zero), nonfinite)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(values)
    if relative == "last" and values.size:
        logs = logs - _last_layer(logs)[:, None]
        logs[values == 0.0] = -np.inf
    return _Sizes(logs, np.isfinite(logs) & ~nonfinite, zero, nonfinite)


def _joined(
    sizes: _Sizes, starts: NDArray[np.int64], statistic: str
) -> tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]:
    """Return one row per column of the picture: its values, and what else was in it."""
    shown, usual, zero, nonfinite = sizes
    if not len(starts):
        return np.zeros((0, shown.shape[1]), np.float32), np.zeros((0, 0), np.uint8)
    high = np.maximum.reduceat(np.where(usual, shown, -np.inf), starts)
    low = np.minimum.reduceat(np.where(usual, shown, np.inf), starts)
    least = _OUTSTANDING_SHARE if statistic in _SHARES else _OUTSTANDING
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.add.reduceat(usual, starts, dtype=np.float32)
        means = np.add.reduceat(np.where(usual, shown, 0.0), starts) / count
        cells = np.where(high - means >= means - low, high, low)
        cells = np.where(np.abs(cells - means) > least, cells, means)
    has_zero = np.logical_or.reduceat(zero, starts)
    is_broken = np.logical_or.reduceat(nonfinite, starts)
    is_known = np.logical_or.reduceat(usual, starts)
    alone = np.where(is_broken, np.inf, np.where(has_zero, -np.inf, np.nan))
    # Among counts zero is what is usual.
    beside = np.where(is_broken, 2, has_zero & (statistic not in _COUNTS))
    return np.where(is_known, cells, alone), np.where(is_known, beside, 0)


def _last_layer(logs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return of each step the log2 of its last layer with a finite, non-zero value."""
    good = np.isfinite(logs)
    last = logs.shape[1] - 1 - np.argmax(good[:, ::-1], axis=1)
    found = logs[np.arange(len(logs)), last]
    return np.where(good.any(axis=1), found, np.float32(np.nan))


def _medians(logs: NDArray[np.float32], usual: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each layer's median of what is usual; NaN where nothing is."""
    every = max(1, len(logs) // _MEDIAN_STEPS)
    medians = np.full(logs.shape[1], np.nan)
    for place in range(logs.shape[1]):
        kept = logs[::every, place][usual[::every, place]]
        kept = kept if len(kept) else logs[:, place][usual[:, place]]
        if len(kept):
            medians[place] = np.median(kept)
    return medians
