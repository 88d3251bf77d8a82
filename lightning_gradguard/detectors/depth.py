"""How gradients change over depth: what `Vanishing` and `Exploding` both look at.

In: a frame. Out: one number per layer that has a weight matrix, in depth order, for the whole model
and for each of its branches. Gradient norms are taken relative to the norm of the weights, since
that is what separates failing runs from healthy ones; absolute norms of healthy runs span nine
decades. Biases, norm layers and embeddings are left out: a bias before a batch norm has no gradient
in the healthiest of models, and of an embedding only a batch's own rows have one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.frame import Frame, Mask, Vector
from lightning_gradguard.roles import LEFT_OUT, Role

__all__ = ["DepthProfile", "depth_profile", "judged", "middle"]

_NEWBORN: Final = 1e-2
"""Share of the largest layer's norm below which weights are next to nothing."""

_FEWEST: Final = 3
"""Below this many layers a first and a last one are neighbours."""


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """Weight matrices from the input to the loss.

    Attributes:
        all_layers: The layers of the frame, in depth order.
        index: Which of them these are.
        decades: log10 of gradient norm over weight norm; minus infinity for a zero gradient.
        update_ratio: Applied update over weights.
        branch: Enclosing module whose layers these are; empty for the whole model.
    """

    all_layers: tuple[str, ...]
    index: npt.NDArray[np.intp]
    decades: Vector
    update_ratio: Vector
    branch: str = ""

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in depth order."""
        return tuple(self.all_layers[index] for index in self.index.tolist())

    @cached_property
    def near_loss(self) -> float:
        """Median of ``decades`` over the quarter of the layers nearest to the loss."""
        quarter = max(1, len(self.decades) // 4)
        return middle(self.decades[-quarter:])

    @cached_property
    def spread(self) -> float:
        """Distance from the smallest to the largest of ``decades``; NaN when all are zero."""
        with np.errstate(invalid="ignore"):
            return float(self.decades.max() - self.decades.min())

    def parts(self, spread: float) -> Iterator[DepthProfile]:
        """Yield this profile and those of the branches that it is made of.

        Args:
            spread: What is spread out less than this is left out.
        """
        if not self.spread >= spread:
            return
        yield self
        branches = _branches(self.layers)
        if not branches.names:
            return
        with np.errstate(invalid="ignore"):
            together = self.decades[branches.places]
            high = np.maximum.reduceat(together, branches.starts)
            wide = high - np.minimum.reduceat(together, branches.starts) >= spread
        for number in np.flatnonzero(wide):
            name, places = branches.names[number], branches.parts[number]
            yield DepthProfile(
                self.all_layers,
                self.index[places],
                self.decades[places],
                self.update_ratio[places],
                name,
            )


@lru_cache(maxsize=1)  # several detectors ask about the same frame
def depth_profile(frame: Frame) -> DepthProfile | None:
    """Return the profile, or None with fewer than three weight layers or bad numbers.

    Layers whose gradient was not measured, or whose weights are all zero, are left out.
    """
    if frame.has_nonfinite:
        return None
    ratio = frame.weight_grad_ratio
    index = np.flatnonzero(~np.isnan(ratio) & judged(frame) & ~_newborn(frame.weight_param_norm))
    if index.size < _FEWEST:
        return None
    with np.errstate(divide="ignore"):
        decades = np.log10(ratio[index])
    return DepthProfile(frame.layers, index, decades, frame.weight_update_ratio[index])


def _newborn(norms: Vector) -> Mask:
    """Return which weights are near zero still: any gradient is large for them."""
    largest = float(np.nanmax(norms, initial=0.0))
    return norms < _NEWBORN * largest


def judged(frame: Frame) -> Mask:
    """Return which layers have a place in a profile; all where roles are not known."""
    if not frame.roles:
        return np.ones(len(frame.layers), dtype=np.bool_)
    return _judged(_Same(frame.roles))


@dataclass(frozen=True, eq=False)
class _Same:
    """Roles that are told apart by identity: frames share them, and to compare takes longer."""

    roles: tuple[Role, ...]

    def __hash__(self) -> int:
        return id(self.roles)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.roles is self.roles


@lru_cache(maxsize=8)
def _judged(same: _Same) -> Mask:
    return np.array([role not in LEFT_OUT for role in same.roles], dtype=np.bool_)


def middle(numbers: Vector) -> float:
    """Return the median, several times as fast as numpy's for short vectors.

    Example:
        >>> middle(np.array([3.0, 1.0, 2.0])), middle(np.array([1.0, 2.0]))
        (2.0, 1.5)
    """
    ordered = np.sort(numbers)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[half])
    low, high = float(ordered[half - 1]), float(ordered[half])
    return low if low == high else (low + high) / 2.0


@dataclass(frozen=True, eq=False)
class _Branches:
    """Enclosing modules that hold some of the layers.

    Attributes:
        names: Of the modules.
        parts: Which layers each holds.
        places: The same, one after another.
        starts: Where each begins in ``places``.
    """

    names: tuple[str, ...]
    parts: tuple[npt.NDArray[np.intp], ...]
    places: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]


@lru_cache(maxsize=8)
def _branches(layers: tuple[str, ...]) -> _Branches:
    """Return the enclosing modules that hold some of the layers, and which these are.

    Only modules side by side are branches: what a model keeps in one module, but for its head, is
    the whole model again.
    """
    members: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        for prefix in _prefixes(layer):
            members.setdefault(prefix, []).append(place)
    sizes = {tuple(places) for places in members.values()}
    names, parts = [], []
    for name, places in members.items():
        is_new = tuple(places) in sizes
        sizes.discard(tuple(places))
        if is_new and _FEWEST <= len(places) < len(layers):
            names.append(name)
            parts.append(np.array(places, dtype=np.intp))
    lengths = np.array([len(part) for part in parts], dtype=np.intp)
    together = np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)
    return _Branches(tuple(names), tuple(parts), together, np.cumsum(lengths) - lengths)


def _prefixes(layer: str) -> Sequence[str]:
    parts = layer.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
