"""What a browser draws of a run, as bytes: the same for the TensorBoard tab and the HTML report.

In: a `Run`. Out: JSON, and `pack`ed arrays. Steps are joined into columns so that nothing worth
seeing is lost: a column shows the value that stands out, if one does, else the mean, and a single
exact zero or non-finite number in a column is shown. Imports only numpy and the standard library.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lightning_gradguard import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_gradguard.history import Run

__all__ = ["heatmap", "histogram", "lines", "overview", "pack", "plain", "scalars", "unpack"]

_MOST_COLUMNS: Final = 4096
_OUTSTANDING: Final = 2.0
"""Octaves from its column's mean at which a value is shown instead of the mean."""
_OUTSTANDING_SHARE: Final = 0.25
"""The same for shares."""
_SHARES: Final = {"zero_fraction"}
"""Statistics between 0 and 1, of which zero is an ordinary value."""
_COUNTS: Final = {"num_nonfinite"}
"""Statistics of which zero is what is usual, so that it hides nothing else."""
_OF_GRADIENTS: Final = ("grad_", "update_", "weight_grad_", "weight_update_")
"""How the names begin of what is not known where a gradient is not finite."""
_MEDIAN_STEPS: Final = 2048
"""What is usual for a layer is taken from at most so many steps, evenly spread."""


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a run holds
    """Return a value as JSON types; NaN becomes None and infinities their names.

    Example:
        >>> plain({"a": (float("inf"), float("nan"), 1)})
        {'a': ['Infinity', None, 1]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (bool, int, str, type(None))):
        return value
    if isinstance(value, (float, np.floating)):
        return _number(float(value))
    return int(value) if isinstance(value, np.integer) else str(value)


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isfinite(value):
        return value
    return "-Infinity" if value < 0.0 else "Infinity"


def overview(run: Run) -> dict[str, Any]:
    """Say what a run holds: layers and steps of each optimizer, findings, actions, how it ended.

    Returns:
        JSON types. Layer names are as they were given: escape them where they are shown.
    """
    parts = []
    for index in run.optimizers:
        steps = run.steps(index)
        ends = [int(steps[0]), int(steps[-1])] if len(steps) else None
        parts.append(
            {"index": index, "layers": run.layers(index), "steps": len(steps), "range": ends}
        )
    found: dict[str, Any] = plain(
        {
            "name": run.name,
            "meta": run.meta,
            "optimizers": parts,
            "statistics": run.statistics,
            "scalars": run.scalars,
            "findings": [finding.to_dict() for finding in run.findings],
            "actions": [action.to_dict() for action in run.actions],
        }
    )
    return found


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
        A float16 array ``(layers, columns)``: the mean log2 magnitude of the column, or
        its furthest value where that lies two octaves or more away; ``-inf`` where a step was
        exactly zero, ``+inf`` where one was not finite, NaN where nothing was measured. Shares are
        not in log2, as ``scale`` says. Beside it ``steps`` (first step of each column), ``last``
        and ``medians``.

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
    chosen = _between(steps, first, last)
    steps, starts = steps[chosen], _columns(steps[chosen], columns)
    header = {
        "layers": sizes.shown.shape[1],
        "steps": steps[starts].tolist(),
        "last": int(steps[-1]) if len(steps) else None,
        "medians": plain(medians.tolist()),
        "statistic": statistic,
        "relative": relative,
        "scale": "linear" if statistic in _SHARES else "log2",
    }
    cells = _joined(sizes.between(chosen), starts, statistic)
    return pack(header, cells=cells.T.astype(np.float16))


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
    nonfinite = np.isinf(values)
    if "num_nonfinite" in run.statistics and statistic.startswith(_OF_GRADIENTS):
        nonfinite |= run.statistic("num_nonfinite", optimizer_index) > 0
    zero = (values == 0.0) & ~nonfinite
    if statistic in _SHARES:
        return _Sizes(values, np.isfinite(values) & ~nonfinite, np.zeros_like(zero), nonfinite)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(values)
    if relative == "last" and values.size:
        logs = logs - _last_layer(logs)[:, None]
        logs[values == 0.0] = -np.inf
    return _Sizes(logs, np.isfinite(logs) & ~nonfinite, zero, nonfinite)


def _joined(sizes: _Sizes, starts: NDArray[np.int64], statistic: str) -> NDArray[np.floating[Any]]:
    """Return one row per column of the picture, see `heatmap`."""
    shown, usual, zero, nonfinite = sizes
    if not len(starts):
        return np.zeros((0, shown.shape[1]), np.float32)
    high = np.maximum.reduceat(np.where(usual, shown, -np.inf), starts)
    low = np.minimum.reduceat(np.where(usual, shown, np.inf), starts)
    least = _OUTSTANDING_SHARE if statistic in _SHARES else _OUTSTANDING
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.add.reduceat(usual, starts, dtype=np.float32)
        means = np.add.reduceat(np.where(usual, shown, 0.0), starts) / count
        cells = np.where(high - means >= means - low, high, low)
        cells = np.where(np.abs(cells - means) > least, cells, means)
    is_known = np.logical_or.reduceat(usual, starts)
    cells[~is_known] = np.nan
    has_zero = np.logical_or.reduceat(zero, starts)
    cells[has_zero & ~is_known if statistic in _COUNTS else has_zero] = -np.inf
    cells[np.logical_or.reduceat(nonfinite, starts)] = np.inf
    return cells


def lines(run: Run, layer: str, optimizer_index: int = 0, *, columns: int = 600) -> bytes:
    """Pack all statistics of one layer as lines over the steps.

    Returns:
        ``x`` (float64 steps) and ``y`` float32 ``(statistics, points)``; of each column the
        smallest and the largest value, in the order in which they came. NaN: not measured.

    Raises:
        ValueError: If there is no such layer.
    """
    rows = run.layer(layer, optimizer_index)
    header = {"names": list(rows), "layer": layer}
    return _thin(run.steps(optimizer_index), list(rows.values()), header, columns)


def scalars(run: Run, optimizer_index: int = 0, *, columns: int = 600) -> bytes:
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
    return _thin(run.steps(optimizer_index), rows, {"names": list(run.scalars)}, columns)


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
    starts = _columns(steps, columns)
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


def pack(header: Mapping[str, Any], **arrays: NDArray[Any]) -> bytes:
    """Join a JSON header and arrays: length of the header, header, arrays at multiples of 8 bytes.

    Example:
        >>> unpack(pack({"a": 1}, x=np.arange(2.0)))
        ({'a': 1}, {'x': array([0., 1.])})
    """
    little = {k: np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for k, a in arrays.items()}
    table = [[name, a.dtype.str[1:], list(a.shape)] for name, a in little.items()]
    head = json.dumps({**header, "arrays": table}, allow_nan=False).encode()
    head += b" " * (-(len(head) + 4) % 8)
    parts = [struct.pack("<I", len(head)), head]
    for array in little.values():
        body = array.tobytes()
        parts += [body, bytes(-len(body) % 8)]
    return b"".join(parts)


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Undo `pack`."""
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    place, arrays = 4 + length, {}
    for name, kind, shape in header.pop("arrays"):
        count = math.prod(shape)
        array = np.frombuffer(data, f"<{kind}", count, place)
        arrays[name] = array.reshape(shape)
        place += array.nbytes + -array.nbytes % 8
    return header, arrays


def _between(steps: NDArray[np.int64], first: int | None, last: int | None) -> slice:
    begin = 0 if first is None else int(np.searchsorted(steps, first))
    end = len(steps) if last is None else int(np.searchsorted(steps, last, side="right"))
    return slice(begin, end)


def _columns(steps: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Return where each column begins, so that columns are equally many steps wide."""
    if not len(steps):
        return np.zeros(0, np.int64)
    columns = max(1, min(int(columns), _MOST_COLUMNS))
    width = max(1.0, (int(steps[-1]) - int(steps[0]) + 1) / columns)
    return np.unique(((steps - steps[0]) / width).astype(np.int64), return_index=True)[1]


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


def _thin(
    steps: NDArray[np.int64], rows: Sequence[NDArray[Any]], header: dict[str, Any], columns: int
) -> bytes:
    starts = _columns(steps, columns)
    if len(starts) == len(steps):
        y = np.array(rows, np.float32).reshape(len(rows), len(steps))
        return pack(header, x=steps.astype(np.float64), y=y)
    ends = np.append(starts[1:], len(steps))
    x = np.repeat(steps[starts].astype(np.float64), 2)
    x[1::2] += np.maximum(steps[ends - 1] - steps[starts], 1) / 2.0
    y = np.array([_ends(np.asarray(row, np.float32), starts) for row in rows], np.float32)
    return pack(header, x=x, y=y.reshape(len(rows), len(x)))


def _ends(row: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the smallest and the largest value of each column, in the order in which they came.

    Example:
        >>> _ends(np.array([5, 1, 2, np.nan, np.nan], np.float32), np.array([0, 3])).tolist()
        [5.0, 1.0, nan, nan]
    """
    known = ~np.isnan(row)
    low = np.minimum.reduceat(np.where(known, row, np.inf), starts)
    high = np.maximum.reduceat(np.where(known, row, -np.inf), starts)
    counts = np.diff(np.append(starts, len(row)))
    place = np.arange(len(row))

    def first(ends: NDArray[np.float32]) -> NDArray[np.int64]:
        at = np.where(known & (row == np.repeat(ends, counts)), place, len(row))
        return np.minimum.reduceat(at, starts)

    is_falling = first(high) < first(low)
    pairs = np.where(is_falling, [high, low], [low, high]).T
    pairs[~np.logical_or.reduceat(known, starts)] = np.nan
    return pairs.reshape(-1).astype(np.float32)
