"""What a reader sees at one moment: rows up to one, and which layers they are of.

In: an open file. Out: steps and layers of each optimizer, each read once. While a training writes,
all that is asked of one look is of the same steps and layers.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.errors import HistoryError
from lightning_gradguard.history import tables
from lightning_gradguard.history.layouts import merged
from lightning_gradguard.history.opening import reading
from lightning_gradguard.history.packing import from_json
from lightning_gradguard.history.source import Source
from lightning_gradguard.history.steps import QUERY, Steps

__all__ = ["MOST_STEPS", "MOST_TEXTS", "Look"]

MOST_STEPS: Final = 2_000_000
MOST_TEXTS: Final = 1 << 26
_MOST_LAYERS: Final = 100_000


class Look:
    """Read steps and layers once.

    Args:
        source: The file.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._steps: dict[int, Steps] = {}
        self._layers: dict[int, tuple[str, ...]] = {}
        self._redone_from: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}
        rows = source.rows("SELECT coalesce(max(id), 0) FROM steps")
        with reading(source.path):
            # Layouts are read after this, so that none of these steps lacks its own.
            self._last_id = int(rows[0][0])

    @cached_property
    def layouts(self) -> dict[int, dict[str, Any]]:
        """What is known of the layers of a step, by number."""
        rows = self.source.rows(
            "SELECT id, optimizer, about FROM layouts ORDER BY id LIMIT 10000",
            most_bytes=MOST_TEXTS,
        )
        with reading(self.source.path):
            return {int(i): _layout(optimizer, text) for i, optimizer, text in rows}

    @cached_property
    def optimizers(self) -> tuple[int, ...]:
        """Positions of the optimizers that made steps."""
        return tuple(sorted({layout["optimizer"] for layout in self.layouts.values()}))

    def layers(self, optimizer_index: int) -> tuple[str, ...]:
        """Return the names of an optimizer's layers, in depth order."""
        if optimizer_index not in self._layers:
            mine = [
                layout["layers"]
                for layout in self.layouts.values()
                if layout["optimizer"] == optimizer_index
            ]
            if self.optimizers and not mine:
                there = ", ".join(map(str, self.optimizers))
                msg = f"`optimizer_index` must be one of {there}, got {optimizer_index!r}."
                raise ValueError(msg)
            self._layers[optimizer_index] = self._bounded(mine)
        return self._layers[optimizer_index]

    def _bounded(self, layouts: list[tuple[str, ...]]) -> tuple[str, ...]:
        """Join lists of layers, the latest first, unless they are too many."""
        if len({name for layout in layouts for name in layout}) > _MOST_LAYERS:
            msg = f"{self.source.path} is too large: more than {_MOST_LAYERS} layers."
            raise HistoryError(msg)
        return merged(dict.fromkeys(reversed(layouts)))

    def place(self, layer: str, optimizer_index: int) -> int:
        """Return the column of a layer."""
        layers = self.layers(optimizer_index)
        if layer not in layers:
            msg = f"`layer` must be one of the run's {len(layers)} layers, got {layer!r}."
            raise ValueError(msg)
        return layers.index(layer)

    def steps(self, optimizer_index: int) -> Steps:
        """Return the rows of an optimizer."""
        if optimizer_index not in self._steps:
            self.layers(optimizer_index)
            most = self._last_id, 8 * len(tables.SCALARS), MOST_STEPS
            rows = self.source.rows(QUERY, optimizer_index, *most)
            with reading(self.source.path):
                self._steps[optimizer_index] = Steps(rows)
        return self._steps[optimizer_index]

    def counts(self, attempt: int, optimizer_index: int, step: int) -> bool:
        """Whether no later attempt did this step again."""
        if optimizer_index not in self.optimizers:
            return True  # something was said before any step was written
        if optimizer_index not in self._redone_from:
            self._redone_from[optimizer_index] = _redone_from(self.steps(optimizer_index))
        attempts, firsts = self._redone_from[optimizer_index]
        place = int(np.searchsorted(attempts, attempt, side="right"))
        return place == len(attempts) or step < int(firsts[place])


def _redone_from(steps: Steps) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the attempts, rising, and the first step that each or a later one made."""
    attempts, rows = np.unique(steps.attempts, return_index=True)
    firsts = steps.steps[rows]
    return attempts, np.minimum.accumulate(firsts[::-1])[::-1]


def _layout(optimizer: object, text: str) -> dict[str, Any]:
    """Return what is known of the layers of a step."""
    about = from_json(text)
    layers = tuple(map(str, about["layers"]))
    if len(layers) > _MOST_LAYERS or len(set(layers)) < len(layers):
        msg = f"a run has up to {_MOST_LAYERS} layers of different names"
        raise ValueError(msg)
    return {**about, "layers": layers, "optimizer": int(str(optimizer))}
