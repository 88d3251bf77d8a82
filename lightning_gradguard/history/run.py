"""One run, read back.

In: a history file, perhaps of a training that goes on. Out: arrays by name, findings, actions and
frames. What a file holds is never trusted: sizes are checked before memory is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from lightning_gradguard import schema
from lightning_gradguard.audit import Action
from lightning_gradguard.errors import HistoryError
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.history import tables
from lightning_gradguard.history.frames import frames_of, histogram_at
from lightning_gradguard.history.opening import reading
from lightning_gradguard.history.packing import from_json, unpack_rows
from lightning_gradguard.history.places import locate, name_of
from lightning_gradguard.history.source import Source
from lightning_gradguard.history.steps import QUERY, Steps

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Run", "load_run"]

R = TypeVar("R", Finding, Action)

_RATIOS: Final = {
    "update_ratio": ("update_norm", "param_norm"),
    "grad_ratio": ("grad_norm", "param_norm"),
    "weight_update_ratio": ("weight_update_norm", "weight_param_norm"),
    "weight_grad_ratio": ("weight_grad_norm", "weight_param_norm"),
}
_MOST_STEPS: Final = 2_000_000
_MOST_NUMBERS: Final = 1 << 26
_MOST_LAYERS: Final = 100_000
_MOST_RECORDS: Final = 100_000
_MOST_RECORD: Final = 1 << 20
_MOST_TEXT: Final = 1 << 22
_MOST_TEXTS: Final = 1 << 26


def load_run(path: Path | str, *, start: Path | str | None = None) -> Run:
    """Open the history of a run.

    Args:
        path: A log directory with one run, a version folder, its ``gradguard`` folder, or the file.
        start: The folder to name the run relative to; None is ``path``.

    Raises:
        HistoryError: There is no history, there are several, or it cannot be read.

    Cost:
        Milliseconds; numbers are read when they are asked for.

    Example:
        >>> import tempfile
        >>> from lightning_gradguard.history.writer import Writer
        >>> folder = tempfile.TemporaryDirectory()
        >>> Writer(Path(folder.name, "gradguard", "history.sqlite")).close("finished")
        >>> with load_run(folder.name) as run:
        ...     run.meta["schema"], run.meta["finished"], run.steps().tolist()
        ('gradguard/1', 'finished', [])
        >>> folder.cleanup()
    """
    file = locate(path)
    return Run(file, start=Path(path if start is None else start))


class Run:
    """What a training wrote down; made by `load_run`.

    Attributes:
        path: The file.
        name: Its version folder, relative to where it was looked for.
        statistics: Names that `statistic` knows.
        scalars: Names that `scalar` knows.
    """

    statistics = (*tables.STATISTICS, *_RATIOS)
    scalars = tables.SCALARS

    def __init__(self, path: Path, *, start: Path | None = None) -> None:
        self.path = path
        self.name = name_of(path, start)
        self._source = Source(path)
        self._forget()

    def __repr__(self) -> str:
        """Name the run and its file."""
        return f"Run({self.name!r}, {str(self.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def refresh(self) -> bool:
        """Take note of what was written since; True when there is something new."""
        if not self._source.refresh():
            return False
        self._forget()
        return True

    def _forget(self) -> None:
        self._steps: dict[int, Steps] = {}
        self._layouts: dict[int, dict[str, Any]] | None = None
        self._redone_from: dict[tuple[int, int], int | None] = {}

    @property
    def meta(self) -> Mapping[str, Any]:
        """What is known of the run, as plain JSON types."""
        text = "SELECT key, value FROM meta LIMIT 1000"
        rows = self._source.rows(text, most_bytes=_MOST_TEXT)
        tries = self._source.rows(
            "SELECT about FROM attempts WHERE length(about) <= 65536 ORDER BY id DESC LIMIT 1000",
            most_bytes=_MOST_TEXTS,
        )
        with reading(self.path):
            found = {str(key): from_json(value) for key, value in rows}
            return {**found, "attempts": [from_json(about) for (about,) in reversed(tries)]}

    @property
    def optimizers(self) -> tuple[int, ...]:
        """Positions of the optimizers that made steps."""
        rows = self._source.rows("SELECT DISTINCT optimizer FROM layouts ORDER BY 1 LIMIT 1000")
        with reading(self.path):
            return tuple(int(row[0]) for row in rows)

    def layers(self, optimizer_index: int = 0) -> tuple[str, ...]:
        """Return the names of the layers, in depth order; those of the latest step first."""
        names: dict[str, None] = {}
        mine = [v for v in self._all_layouts().values() if v["optimizer"] == optimizer_index]
        for layout in reversed(mine):
            names.update(dict.fromkeys(layout["layers"]))
        return tuple(names)

    def _all_layouts(self) -> dict[int, dict[str, Any]]:
        if self._layouts is None:
            rows = self._source.rows(
                "SELECT id, optimizer, about FROM layouts ORDER BY id LIMIT 10000",
                most_bytes=_MOST_TEXTS,
            )
            with reading(self.path):
                self._layouts = {int(i): _layout(optimizer, text) for i, optimizer, text in rows}
        return self._layouts

    def _of(self, optimizer_index: int) -> Steps:
        if optimizer_index not in self._steps:
            most = 8 * len(tables.SCALARS), _MOST_STEPS
            rows = self._source.rows(QUERY, optimizer_index, *most)
            with reading(self.path):
                self._steps[optimizer_index] = Steps(rows)
        return self._steps[optimizer_index]

    def steps(self, optimizer_index: int = 0) -> npt.NDArray[np.int64]:
        """Return the steps, rising, shape ``(n,)``."""
        return self._of(optimizer_index).steps

    def statistic(self, name: str, optimizer_index: int = 0) -> npt.NDArray[np.float32]:
        """Return a number per step and layer, shape ``(n, layers)``; NaN is not measured.

        Raises:
            ValueError: There is no such statistic.
            HistoryError: The file is damaged.
        """
        if name in _RATIOS:
            return _ratio(*(self.statistic(part, optimizer_index) for part in _RATIOS[name]))
        if name not in tables.STATISTICS:
            msg = f"`name` must be one of {', '.join(self.statistics)}, got {name!r}."
            raise ValueError(msg)
        return self._block(name, optimizer_index, slice(None))

    def _block(self, name: str, optimizer_index: int, which: slice) -> npt.NDArray[np.float32]:
        """Return a stored statistic of some of the steps."""
        mine, layers = self._of(optimizer_index), self.layers(optimizer_index)
        ids, layouts = mine.ids[which], mine.layouts[which]
        if len(ids) * max(1, len(layers)) > _MOST_NUMBERS:
            msg = f"{self.path} is too large: {len(ids)} steps of {len(layers)} layers."
            raise HistoryError(msg)
        result = np.full((len(ids), len(layers)), np.nan, dtype=np.float32)
        if not result.size:
            return result
        place = {layer: k for k, layer in enumerate(layers)}
        rows = dict(
            self._source.rows(
                f"SELECT id, data FROM stat_{name} WHERE id BETWEEN ? AND ? "  # noqa: S608
                "AND length(data) <= ? LIMIT ?",
                int(ids[0]),
                int(ids[-1]),
                4 * len(layers),
                _MOST_STEPS,
            )
        )
        with reading(self.path):
            for layout in np.unique(layouts).tolist():
                names = self._all_layouts()[layout]["layers"]
                where = np.flatnonzero(layouts == layout)
                there = np.array([i for i in where.tolist() if int(ids[i]) in rows], dtype=int)
                blobs = [rows[i] for i in ids[there].tolist()]
                columns = np.array([place[layer] for layer in names], dtype=np.intp)
                result[np.ix_(there, columns)] = unpack_rows(blobs, len(names))
        return result

    def layer(self, layer: str, optimizer_index: int = 0) -> dict[str, npt.NDArray[np.float32]]:
        """Return all statistics of one layer by name, each ``(n,)``; NaN is not measured.

        Raises:
            ValueError: There is no such layer.
            HistoryError: The file is damaged.

        Cost:
            Of each row four bytes are read; much less than `statistic` for all layers.
        """
        self._place(layer, optimizer_index)
        found = {name: self._column(name, layer, optimizer_index) for name in tables.STATISTICS}
        return found | {name: _ratio(found[a], found[b]) for name, (a, b) in _RATIOS.items()}

    def _place(self, layer: str, optimizer_index: int) -> int:
        """Return the column of a layer."""
        layers = self.layers(optimizer_index)
        if layer not in layers:
            msg = f"`layer` must be one of the run's {len(layers)} layers, got {layer!r}."
            raise ValueError(msg)
        return layers.index(layer)

    def _column(self, name: str, layer: str, optimizer_index: int) -> npt.NDArray[np.float32]:
        mine = self._of(optimizer_index)
        result = np.full(len(mine.ids), np.nan, dtype=np.float32)
        for layout in np.unique(mine.layouts).tolist():
            names = self._all_layouts()[layout]["layers"]
            if layer not in names:
                continue
            ids = mine.ids[mine.layouts == layout]
            rows = self._source.rows(
                "SELECT id, CASE length(data) WHEN 4 THEN data ELSE substr(data, ?, 4) END "  # noqa: S608
                f"FROM stat_{name} WHERE id BETWEEN ? AND ? AND length(data) IN (4, ?) LIMIT ?",
                4 * names.index(layer) + 1,
                int(ids[0]),
                int(ids[-1]),
                4 * len(names),
                _MOST_STEPS,
            )
            with reading(self.path):
                found = np.array([row[0] for row in rows], dtype=np.int64)
                numbers = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
                _, here, there = np.intersect1d(found, ids, return_indices=True)
                result[np.flatnonzero(mine.layouts == layout)[there]] = numbers[here]
        return result

    def scalar(self, name: str, optimizer_index: int = 0) -> npt.NDArray[np.float64]:
        """Return a number per step, shape ``(n,)``; NaN is not measured.

        Raises:
            ValueError: There is no such scalar.
        """
        if name not in tables.SCALARS:
            msg = f"`name` must be one of {', '.join(self.scalars)}, got {name!r}."
            raise ValueError(msg)
        return self._of(optimizer_index).scalars[:, tables.SCALARS.index(name)].copy()

    def is_measured(self, name: str, optimizer_index: int = 0) -> npt.NDArray[np.bool_]:
        """Return at which steps a scalar was measured, ``(n,)``: one that is NaN may have been.

        Raises:
            ValueError: There is no such scalar.
        """
        self.scalar(name, optimizer_index)
        bit = np.int64(1 << tables.SCALARS.index(name))
        return np.asarray(self._of(optimizer_index).present & bit, dtype=np.bool_)

    def histograms(
        self, layer: str, optimizer_index: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return sampled steps, ``(m,)``, and counts by magnitude, ``(m, HISTOGRAM_BINS)``."""
        self._place(layer, optimizer_index)
        mine, steps, counts = self._of(optimizer_index), [], []
        sampled = {int(row[0]) for row in self._source.rows("SELECT id FROM histogram")}
        layouts = self._all_layouts()
        with reading(self.path):
            for i, layout, step in zip(mine.ids, mine.layouts, mine.steps, strict=True):
                names = layouts[int(layout)]["layers"]
                if int(i) in sampled and layer in names:
                    found = histogram_at(self._source, int(i), len(names))
                    if found is not None:
                        steps.append(int(step))
                        counts.append(found[names.index(layer)].copy())
        shape = (-1, schema.HISTOGRAM_BINS)
        return np.array(steps, dtype=np.int64), np.array(counts, np.float32).reshape(shape)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, oldest first."""
        return tuple(self._records("findings", Finding.from_dict))

    @property
    def actions(self) -> tuple[Action, ...]:
        """What a guard did, oldest first."""
        return tuple(self._records("actions", Action.from_dict))

    def _records(self, table: str, make: Callable[[dict[str, Any]], R]) -> Iterator[R]:
        """Yield what no later attempt did again, oldest first."""
        rows = self._source.rows(
            f"SELECT attempt, record FROM {table} WHERE length(record) <= ? "  # noqa: S608
            "ORDER BY id DESC LIMIT ?",
            _MOST_RECORD,
            _MOST_RECORDS,
            most_bytes=_MOST_TEXTS,
        )
        with reading(self.path):
            for attempt, text in reversed(rows):
                record = make(from_json(text))
                if self._counts(int(attempt), record.optimizer_index, record.step):
                    yield record

    def _counts(self, attempt: int, optimizer_index: int, step: int) -> bool:
        """Whether no later attempt did this step again."""
        key = attempt, optimizer_index
        if key not in self._redone_from:
            mine = self._of(optimizer_index)
            later = mine.steps[mine.attempts > attempt]
            self._redone_from[key] = int(later[0]) if len(later) else None
        first = self._redone_from[key]
        return first is None or step < first

    def frames(self, optimizer_index: int = 0) -> Iterator[Frame]:
        """Yield what the detectors saw, as near as it was kept: float32, and histograms."""

        def block(which: slice) -> dict[str, npt.NDArray[np.float32]]:
            return {n: self._block(n, optimizer_index, which) for n in tables.STATISTICS}

        place = {layer: k for k, layer in enumerate(self.layers(optimizer_index))}
        steps = self._of(optimizer_index)
        return frames_of(self._source, steps, self._all_layouts(), block, place)

    @property
    def is_replaced(self) -> bool:
        """Whether the file was deleted or replaced since it was opened."""
        return self._source.is_replaced


def _layout(optimizer: object, text: str) -> dict[str, Any]:
    """Return what is known of the layers of a step."""
    about = from_json(text)
    layers = tuple(map(str, about["layers"]))
    if len(layers) > _MOST_LAYERS or len(set(layers)) < len(layers):
        msg = f"a run has up to {_MOST_LAYERS} layers of different names"
        raise ValueError(msg)
    return {**about, "layers": layers, "optimizer": int(str(optimizer))}


def _ratio(
    above: npt.NDArray[np.float32], below: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return np.divide(above, np.where(below > 0.0, below, np.float32("nan")))
