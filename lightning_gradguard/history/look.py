"""What a reader sees at one moment: rows up to one, and which layers they are of.

In: an open file. Out: steps and layers of each optimizer, each read once. While a training writes,
all that is asked of one look is of the same steps and layers.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

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
        self._redone_from: dict[tuple[int, int], int | None] = {}
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
            self._layers[optimizer_index] = merged(reversed(mine))
        return self._layers[optimizer_index]

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
        key = attempt, optimizer_index
        if key not in self._redone_from:
            self._redone_from[key] = self._first_after(*key)
        first = self._redone_from[key]
        return first is None or step < first

    def _first_after(self, attempt: int, optimizer_index: int) -> int | None:
        """Return the first step that later attempts made."""
        if optimizer_index not in self.optimizers:
            return None  # something was said before any step was written
        mine = self.steps(optimizer_index)
        later = mine.steps[mine.attempts > attempt]
        return int(later[0]) if len(later) else None


def _layout(optimizer: object, text: str) -> dict[str, Any]:
    """Return what is known of the layers of a step."""
    about = from_json(text)
    layers = tuple(map(str, about["layers"]))
    if len(layers) > _MOST_LAYERS or len(set(layers)) < len(layers):
        msg = f"a run has up to {_MOST_LAYERS} layers of different names"
        raise ValueError(msg)
    return {**about, "layers": layers, "optimizer": int(str(optimizer))}
