"""Whether a layer without gradient is merely idle: experts to which nothing was routed.

In: frames, and which layers were silent as a whole. Out: which of them are idle, from the names
of their siblings and what these got.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.frame import Frame, Mask

__all__ = ["Idle", "kind_of"]

_NUMBER: Final = re.compile(r"(?:(?<=\.)|^)\d+(?=\.|$)")

_ENOUGH: Final = 2
"""Layers of a kind that must have come and gone before the others are taken to do so, too."""


class Idle:
    """Remember which layers come and go.

    State:
        Which layers were silent at their last sample, and which woke up, by kind: names that are
        alike but for their numbers.

    Example:
        >>> idle = Idle()
        >>> for silent in ({"experts.0", "experts.1"}, {"experts.2"}):
        ...     idle.update({"experts.0", "experts.1", "experts.2"}, silent)
        >>> idle.comes_and_goes("experts.2"), idle.comes_and_goes("head")
        (True, False)
    """

    def __init__(self) -> None:
        self._silent: set[str] = set()
        self._woken: dict[str, set[str]] = {}

    def update(self, seen: Collection[str], silent: Collection[str]) -> None:
        """Take in one sample: the layers that were in it, and those that were silent."""
        for layer in (self._silent & set(seen)).difference(silent):
            self._woken.setdefault(kind_of(layer), set()).add(layer)
        self._silent = self._silent.difference(seen).union(silent)

    def comes_and_goes(self, layer: str) -> bool:
        """Whether layers of this kind have woken up before."""
        return len(self._woken.get(kind_of(layer), ())) >= _ENOUGH

    def among(self, frame: Frame, layers: Collection[str]) -> set[str]:
        """Return which of some layers without any gradient are idle.

        So are those whose kind comes and goes. And those in a branch that was not used: a
        sibling, alike but for a number in its name, does get a gradient, and what comes next is no
        consumer of dead units, whose weights would be silent beside a bias that is not.
        """
        if not layers:
            return set()
        family = _family(frame.layers)
        gets = frame.grad_norm > 0.0
        working = {branch for branch, places in family.places.items() if gets[places].any()}
        return {
            layer
            for layer in layers
            if self.comes_and_goes(layer) or _is_unused(frame, layer, family, gets, working)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered, as JSON types."""
        woken = {kind: sorted(layers) for kind, layers in self._woken.items()}
        return {"silent": sorted(self._silent), "woken": woken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._silent = set(state["silent"])
        self._woken = {kind: set(layers) for kind, layers in state["woken"].items()}


@dataclass(frozen=True, eq=False)
class _Family:
    """Modules that are one of several by number, such as ``experts.3``.

    Attributes:
        branches: Of each layer, those around it.
        places: Of each branch, where its layers are.
        siblings: By the name that they share, the branches.
    """

    branches: Mapping[str, tuple[str, ...]]
    places: Mapping[str, npt.NDArray[np.intp]]
    siblings: Mapping[str, frozenset[str]]


@lru_cache(maxsize=8)
def _family(layers: tuple[str, ...]) -> _Family:
    branches: dict[str, tuple[str, ...]] = {}
    places: dict[str, list[int]] = {}
    siblings: dict[str, set[str]] = {}
    for place, layer in enumerate(layers):
        parts = layer.split(".")
        branches[layer] = tuple(
            ".".join(parts[: i + 1]) for i, part in enumerate(parts) if part.isdecimal()
        )
        for branch in branches[layer]:
            places.setdefault(branch, []).append(place)
            siblings.setdefault(branch.rpartition(".")[0], set()).add(branch)
    return _Family(
        branches,
        {branch: np.array(found, dtype=np.intp) for branch, found in places.items()},
        {stem: frozenset(found) for stem, found in siblings.items()},
    )


def _is_unused(
    frame: Frame, layer: str, family: _Family, gets: Mask, working: Collection[str]
) -> bool:
    for branch in family.branches[layer]:
        siblings = family.siblings[branch.rpartition(".")[0]]
        if branch in working or siblings.isdisjoint(working):
            continue
        after = int(family.places[branch][-1]) + 1
        following = np.flatnonzero(gets[after:])
        if not following.size:
            return True
        silent = frame.silent_units.get(frame.layers[after + int(following[0])])
        if silent is None or not silent.all():
            return True
    return False


@lru_cache(maxsize=4096)
def kind_of(layer: str) -> str:
    """Return a name without its numbers.

    Example:
        >>> kind_of("experts.3.up")
        'experts.#.up'
    """
    return _NUMBER.sub("#", layer)
