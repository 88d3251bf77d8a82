"""One run, read back.

In: a history file, perhaps of a training that goes on. Out: arrays by name, findings, actions and
frames. What a file holds is never trusted: sizes are checked before memory is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard import schema
from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.history import over_time, records, tables
from lightning_gradguard.history.frames import frames_of, histogram_at
from lightning_gradguard.history.look import MOST_TEXTS, Look
from lightning_gradguard.history.opening import reading
from lightning_gradguard.history.over_time import TimeProfile
from lightning_gradguard.history.packing import from_json
from lightning_gradguard.history.places import locate, name_of
from lightning_gradguard.history.records import Bunch
from lightning_gradguard.history.source import Source
from lightning_gradguard.history.statistics import block, column

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Run", "load_run"]

_RATIOS: Final = {
    "update_ratio": ("update_norm", "param_norm"),
    "grad_ratio": ("grad_norm", "param_norm"),
    "weight_update_ratio": ("weight_update_norm", "weight_param_norm"),
    "weight_grad_ratio": ("weight_grad_norm", "weight_param_norm"),
}
_MOST_TEXT: Final = 1 << 22


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
        self._look = Look(self._source)

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
        """Take note of what was written since; True when there is something new.

        Until then all arrays are of the same steps and layers, whatever a training writes.
        """
        if not self._source.refresh():
            return False
        self._look = Look(self._source)
        return True

    @property
    def meta(self) -> Mapping[str, Any]:
        """What is known of the run, as plain JSON types."""
        text = "SELECT key, value FROM meta LIMIT 1000"
        rows = self._source.rows(text, most_bytes=_MOST_TEXT)
        tries = self._source.rows(
            "SELECT about FROM attempts WHERE length(about) <= 65536 ORDER BY id DESC LIMIT 1000",
            most_bytes=MOST_TEXTS,
        )
        with reading(self.path):
            found = {str(key): from_json(value) for key, value in rows}
            return {**found, "attempts": [from_json(about) for (about,) in reversed(tries)]}

    @property
    def optimizers(self) -> tuple[int, ...]:
        """Positions of the optimizers that made steps."""
        return self._look.optimizers

    def layers(self, optimizer_index: int = 0) -> tuple[str, ...]:
        """Return the names of the layers, in depth order.

        The order is that of the latest step; layers that it lacks stand where they stood before.

        Raises:
            ValueError: There is no such optimizer.
        """
        return self._look.layers(optimizer_index)

    def steps(self, optimizer_index: int = 0) -> npt.NDArray[np.int64]:
        """Return the steps, rising, shape ``(n,)``.

        Raises:
            ValueError: There is no such optimizer.
        """
        return self._look.steps(optimizer_index).steps

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
        return block(self._look, name, optimizer_index, slice(None))

    def layer(self, layer: str, optimizer_index: int = 0) -> dict[str, npt.NDArray[np.float32]]:
        """Return all statistics of one layer by name, each ``(n,)``; NaN is not measured.

        Raises:
            ValueError: There is no such layer.
            HistoryError: The file is damaged.

        Cost:
            Of each row four bytes are read; much less than `statistic` for all layers.
        """
        self._look.place(layer, optimizer_index)
        names = tables.STATISTICS
        found = {name: column(self._look, name, layer, optimizer_index) for name in names}
        return found | {name: _ratio(found[a], found[b]) for name, (a, b) in _RATIOS.items()}

    def scalar(self, name: str, optimizer_index: int = 0) -> npt.NDArray[np.float64]:
        """Return a number per step, shape ``(n,)``; NaN is not measured.

        Raises:
            ValueError: There is no such scalar.
        """
        if name not in tables.SCALARS:
            msg = f"`name` must be one of {', '.join(self.scalars)}, got {name!r}."
            raise ValueError(msg)
        return self._look.steps(optimizer_index).scalars[:, tables.SCALARS.index(name)].copy()

    def is_measured(self, name: str, optimizer_index: int = 0) -> npt.NDArray[np.bool_]:
        """Return at which steps a scalar was measured, ``(n,)``: one that is NaN may have been.

        Raises:
            ValueError: There is no such scalar.
        """
        self.scalar(name, optimizer_index)
        bit = np.int64(1 << tables.SCALARS.index(name))
        return np.asarray(self._look.steps(optimizer_index).present & bit, dtype=np.bool_)

    def histograms(
        self, layer: str, optimizer_index: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return sampled steps, ``(m,)``, and counts by magnitude, ``(m, HISTOGRAM_BINS)``."""
        self._look.place(layer, optimizer_index)
        mine, steps, counts = self._look.steps(optimizer_index), [], []
        sampled = {
            int(row[0]) for row in self._source.rows("SELECT id FROM histogram LIMIT 2000000")
        }
        layouts = self._look.layouts
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

    def time_profiles(self, optimizer_index: int = 0) -> dict[str, list[TimeProfile]]:
        """Return the gradient over the time steps of each recurrent layer, by its name.

        Raises:
            ValueError: There is no such optimizer.
            HistoryError: The file is damaged.
        """
        return over_time.time_profiles(self._look, optimizer_index)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, oldest first."""
        return tuple(record for _, record in records.findings(self._look))

    @property
    def actions(self) -> tuple[Action, ...]:
        """What a guard did, oldest first."""
        return tuple(record for _, record in records.actions(self._look))

    def action_bunches(self, most: int = 500) -> list[Bunch]:
        """Return what a guard did, of each kind in at most so many bunches of close steps."""
        return records.bunches(self._look, most)

    def news(
        self, since: tuple[int, int] = (0, 0)
    ) -> tuple[list[Finding | Action], tuple[int, int]]:
        """Return findings and actions that were written since, and where to go on.

        Example:
            >>> import tempfile
            >>> from lightning_gradguard.history.writer import Writer
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     writer = Writer(Path(folder, "gradguard", "history.sqlite"))
            ...     writer.add(Action(what="skip", step=12))
            ...     writer.close()
            ...     with load_run(folder) as run:
            ...         said, until = run.news()
            ...         len(said), run.news(until)
            (1, ([], (0, 1)))
        """
        found = dict(records.findings(self._look, since[0]))
        done = dict(records.actions(self._look, since[1]))
        until = max([since[0], *found]), max([since[1], *done])
        return [*found.values(), *done.values()], until

    def frames(self, optimizer_index: int = 0) -> Iterator[Frame]:
        """Yield what the detectors saw, as near as it was kept: float32, and histograms."""

        def rows(which: slice) -> dict[str, npt.NDArray[np.float32]]:
            names = tables.STATISTICS
            return {name: block(self._look, name, optimizer_index, which) for name in names}

        place = {layer: k for k, layer in enumerate(self.layers(optimizer_index))}
        steps = self._look.steps(optimizer_index)
        return frames_of(self._source, steps, self._look.layouts, rows, place)

    @property
    def is_replaced(self) -> bool:
        """Whether the file was deleted or replaced since it was opened."""
        return self._source.is_replaced


def _ratio(
    above: npt.NDArray[np.float32], below: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return np.divide(above, np.where(below > 0.0, below, np.float32("nan")))
