"""For how many samples each unit has had no gradient.

In: masks of silent units, layer by layer, of whichever layers had a gradient. Out: counts, and how
many units of each layer have been silent for so long. One vector for all layers: a loop over
hundreds of them would cost more than all other detectors together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_gradguard.frame import Mask

__all__ = ["Silence"]

Counts = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]


class Joined(NamedTuple):
    """Some layers after one another.

    Attributes:
        layers: Their names.
        where: Places of their units among all; a slice when it is all of them in order.
        starts: Where each layer begins.
        sizes: How many units each has.
    """

    layers: tuple[str, ...]
    where: Places | slice
    starts: Places
    sizes: Places


class Silence:
    """Count samples without gradient, per unit.

    Example:
        >>> silence = Silence()
        >>> for mask in ([True, True, False], [True, False, False]):
        ...     silence.update({"fc": np.array(mask)})
        >>> silence.of("fc").tolist(), silence.longer_than(2, ["fc"]).tolist()
        ([2, 0, 0], [1])
    """

    def __init__(self) -> None:
        self._counts: Counts = np.zeros(0, dtype=np.int64)
        self._places: dict[str, slice] = {}
        self._joined: Joined | None = None

    def update(self, masks: Mapping[str, Mask]) -> None:
        """Take in one sample; layers that are not in it keep their counts."""
        for layer, mask in masks.items():
            place = self._places.get(layer)
            if place is None or place.stop - place.start != mask.size:
                self._add(layer, np.zeros(mask.size, dtype=np.int64))
        where = self._join(tuple(masks)).where
        silent = np.concatenate(list(masks.values()))
        self._counts[where] = (self._counts[where] + 1) * silent

    def silent_now(self, layers: tuple[str, ...]) -> list[str]:
        """Return the layers all of whose units were silent in the latest sample."""
        silent = self.longer_than(1, layers) == self.sizes(layers)
        return [layers[place] for place in np.flatnonzero(silent).tolist()]

    def of(self, layer: str) -> Counts:
        """Return the counts of one layer."""
        return self._counts[self._places[layer]]

    def sizes(self, layers: Sequence[str]) -> Places:
        """Return how many units layers have."""
        return self._join(tuple(layers)).sizes

    def longer_than(self, samples: int, layers: Sequence[str]) -> Counts:
        """Return how many units of each layer have been silent for so many samples."""
        joined = self._join(tuple(layers))
        return np.add.reduceat(self._counts[joined.where] >= samples, joined.starts, dtype=np.int64)

    def _add(self, layer: str, counts: Counts) -> None:
        start = len(self._counts)
        self._places[layer] = slice(start, start + len(counts))
        self._counts = np.concatenate([self._counts, counts])
        self._joined = None

    def _join(self, layers: tuple[str, ...]) -> Joined:
        if self._joined is None or self._joined.layers != layers:
            places = [self._places[layer] for layer in layers]
            sizes = np.array([place.stop - place.start for place in places], dtype=np.intp)
            where = np.concatenate([np.arange(place.start, place.stop) for place in places])
            is_all = len(where) == len(self._counts) and bool((np.diff(where) == 1).all())
            self._joined = Joined(
                layers, slice(None) if is_all else where, np.cumsum(sizes) - sizes, sizes
            )
        return self._joined

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON types, those that are not zero."""
        found = {}
        for layer in self._places:
            counts = self.of(layer)
            silent = np.flatnonzero(counts).tolist()
            found[layer] = {
                "units": counts.size,
                "silent": silent,
                "samples": counts[silent].tolist(),
            }
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._counts, self._places, self._joined = np.zeros(0, dtype=np.int64), {}, None
        for layer, saved in state.items():
            counts = np.zeros(saved["units"], dtype=np.int64)
            counts[np.array(saved["silent"], dtype=np.intp)] = saved["samples"]
            self._add(layer, counts)
