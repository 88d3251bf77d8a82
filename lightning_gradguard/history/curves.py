"""Lines over the steps, and sizes over time.

In: a `Run`. Out: `pack`ed arrays. Of each column of steps the extremes stay, at the steps at which
they were. Imports only numpy and the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lightning_gradguard import schema
from lightning_gradguard.history.nonfinite import not_finite
from lightning_gradguard.history.packing import as_float32
from lightning_gradguard.history.spans import between, columns_of
from lightning_gradguard.history.wire import pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_gradguard.history import Run

__all__ = ["histogram", "lines", "over_time", "scalars"]

_MOST_TIMES: Final = 256


def lines(
    run: Run,
    layer: str,
    optimizer_index: int = 0,
    *,
    first: int | None = None,
    last: int | None = None,
    columns: int = 300,
) -> bytes:
    """Pack all statistics of one layer as lines over the steps.

    Args:
        run: What to draw.
        layer: Its name.
        optimizer_index: Position of the optimizer.
        first: First step shown; the run's first if None.
        last: Last step shown; the run's last if None.
        columns: Of each of at most so many columns every line has its smallest and largest value.

    Returns:
        ``x`` (float64 steps) and ``y`` float32 ``(statistics, points)``: values at steps at which
        any of them is smallest or largest in its column. NaN: not measured; infinity: not finite.

    Raises:
        ValueError: If there is no such layer.
    """
    rows = _marked(run.layer(layer, optimizer_index))
    header = {"names": list(rows), "layer": layer}
    chosen = between(run.steps(optimizer_index), first, last)
    return _thin(run.steps(optimizer_index), list(rows.values()), header, chosen, columns)


def _marked(rows: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return rows in which what is not finite is infinite, also where a norm left it out."""
    if "num_nonfinite" not in rows:
        return dict(rows)
    return {
        name: np.where(not_finite(name, row, rows["num_nonfinite"]), np.float32(np.inf), row)
        for name, row in rows.items()
    }


def scalars(
    run: Run,
    optimizer_index: int = 0,
    *,
    first: int | None = None,
    last: int | None = None,
    columns: int = 300,
) -> bytes:
    """Pack the run's numbers per step, as `lines` does a layer's.

    What was measured and is NaN, such as a loss, is infinity here: it is not finite, while NaN
    stands for what was not measured.
    """
    rows = [
        np.where(
            run.is_measured(name, optimizer_index)
            & np.isnan(numbers := run.scalar(name, optimizer_index)),
            np.inf,
            numbers,
        )
        for name in run.scalars
    ]
    chosen = between(run.steps(optimizer_index), first, last)
    header = {"names": list(run.scalars)}
    return _thin(run.steps(optimizer_index), rows, header, chosen, columns)


def histogram(run: Run, layer: str, optimizer_index: int = 0, *, columns: int = 300) -> bytes:
    """Pack the log2 histogram of one layer over time.

    Returns:
        ``cells`` uint8 ``(octaves, columns)``: each column's share of its fullest bin, 0 to 255;
        only octaves in use, the first of which is ``low``. A bin with anything in it is at least 1.

    Raises:
        ValueError: If there is no such layer.
    """
    steps, counts = run.histograms(layer, optimizer_index)
    header: dict[str, Any] = {
        "layer": layer,
        "low": schema.HISTOGRAM_LOW,
        "steps": [],
        "last": None,
    }
    counts = counts[:, schema.HISTOGRAM_FIRST : schema.HISTOGRAM_LAST + 1]
    starts = columns_of(steps, columns)
    if not len(starts):
        return pack(header, cells=np.zeros((0, 0), np.uint8))
    sums = np.add.reduceat(np.nan_to_num(counts.astype(np.float64)), starts)
    used = np.flatnonzero(sums.sum(axis=0))
    low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
    sums = sums[:, low:high]
    most = sums.max(axis=1, keepdims=True, initial=0.0)
    shares = np.ceil(255.0 * sums / np.where(most > 0.0, most, 1.0)).astype(np.uint8)
    header.update(low=schema.HISTOGRAM_LOW + low, steps=steps[starts].tolist(), last=int(steps[-1]))
    return pack(header, cells=shares.T)


def over_time(run: Run, layer: str, optimizer_index: int = 0, *, columns: int = 300) -> bytes:
    """Pack the gradient over the time steps of one recurrent layer, over training.

    Returns:
        A header with ``profiles``: of each ``what``, ``steps`` (first of each column), ``last`` and
        ``times``; and for each an array ``cells0``, ``cells1``, …, float16 ``(times, columns)``:
        mean log2 of the norm, ``-inf`` where it was exactly zero, NaN where nothing was measured.
        None for a layer that is not recurrent.
    """
    profiles, arrays = [], {}
    mine = run.time_profiles(optimizer_index).get(layer, ())
    for place, (what, steps, times, norms) in enumerate(mine):
        starts = columns_of(steps, columns)
        rows = np.unique(np.linspace(0, len(times) - 1, min(len(times), _MOST_TIMES)).astype(int))
        counts = np.diff(np.append(starts, len(steps)))[:, None]
        with np.errstate(divide="ignore"):
            cells = np.add.reduceat(np.log2(norms[:, rows]), starts) / counts
        arrays[f"cells{place}"] = cells.T.astype(np.float16)
        ends = {"steps": steps[starts].tolist(), "last": int(steps[-1])}
        profiles.append({"what": what, **ends, "times": times[rows].tolist()})
    return pack({"layer": layer, "profiles": profiles}, **arrays)


def _thin(
    steps: NDArray[np.int64],
    rows: Sequence[NDArray[Any]],
    header: dict[str, Any],
    chosen: slice,
    columns: int,
) -> bytes:
    """Pack rows at the steps at which one of them is at an end of its column."""
    starts = columns_of(steps[chosen], columns)
    y = np.array([as_float32(row[chosen]) for row in rows], np.float32)
    y = y.reshape(len(rows), len(steps[chosen]))
    kept = np.zeros(len(steps[chosen]), np.bool_)
    for row in y if len(starts) else ():
        kept[_ends(row, starts)] = True
    return pack(header, x=steps[chosen][kept].astype(np.float64), y=y[:, kept])


def _ends(row: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each column is smallest and largest.

    Example:
        >>> _ends(np.array([5, 1, 2, np.nan, np.nan], np.float32), np.array([0, 3])).tolist()
        [1, 3, 0, 3]
    """
    counts = np.diff(np.append(starts, len(row)))
    place = np.arange(len(row))
    found = []
    for numbers in (np.where(np.isnan(row), np.inf, row), np.where(np.isnan(row), np.inf, -row)):
        lowest = np.repeat(np.minimum.reduceat(numbers, starts), counts)
        at = np.where(numbers == lowest, place, len(row))
        found.append(np.minimum.reduceat(at, starts))
    return np.concatenate(found)
