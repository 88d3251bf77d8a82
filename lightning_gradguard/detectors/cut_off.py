"""Weights that should learn and never get a gradient."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import judged
from lightning_gradguard.detectors.idle import kind_of
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Mask

__all__ = ["CutOff"]

Places: TypeAlias = npt.NDArray[np.intp]

_MIN_STEPS: Final = 20

_FEWEST: Final = 3
"""Of fewer weight layers, a share says nothing."""

_ADVICE: Final = (
    "look for a `detach()`, a `no_grad()` or a tensor that was made anew on the way from the loss "
    "to these layers: gradients are cut off. Where that is meant, freeze them."
)


class CutOff:
    """Judge which weight matrices were ever reached by a gradient.

    Holds in three cases. ``limit_share`` of the weight layers never got a gradient and the loss
    hardly moves; experts that come after one that was used do not count. The first layers,
    ``first_share`` of all or more, never got one and the loss stalls; but not if they have a twin
    that learns, as the target network of a value-based learner does. Or no matrix gets one at all,
    only biases or norm layers, and the loss did not gain.

    Args:
        limit_share: Share of the weight layers, wherever they are.
        first_share: Share of the weight layers, counted from the first.

    State:
        Which layers were reached.
    """

    def __init__(self, *, limit_share: float = 0.5, first_share: float = 1 / 3) -> None:
        self._limit_share = positive("limit_share", limit_share)
        self._first_share = positive("first_share", first_share)
        self._layers: tuple[str, ...] = ()
        self._reached: Mask = np.zeros(0, dtype=np.bool_)

    def update(self, frame: Frame, progress: LossProgress) -> Finding | None:
        """Return a finding while the rule holds."""
        reached = self._note(frame)
        if progress.steps < _MIN_STEPS:
            return None
        places = np.flatnonzero(judged(frame))
        is_missed = ~reached[places]
        if len(places) >= _FEWEST and is_missed.any():
            is_missed &= ~self._are_idle(frame.layers)[places]
            found = self._of_any(frame, progress, places, is_missed)
            found = found or self._of_first(frame, progress, places, is_missed)
            if found is not None:
                return found
        return None if reached.any() else self._of_vectors(frame, progress)

    def _note(self, frame: Frame) -> Mask:
        """Return which layers were reached so far; those that are new were not."""
        if self._layers != frame.layers:
            before = dict(zip(self._layers, self._reached.tolist(), strict=True))
            self._layers = frame.layers
            self._reached = np.array([before.get(name, False) for name in frame.layers], np.bool_)
        self._reached |= frame.weight_grad_norm > 0.0
        return self._reached

    def _are_idle(self, layers: tuple[str, ...]) -> Mask:
        """Return which layers come after one of their kind that was reached, such as experts."""
        first: dict[str, int] = {}
        for place in np.flatnonzero(self._reached).tolist():
            first.setdefault(kind_of(layers[place]), place)
        last = len(layers)
        return np.array([first.get(kind_of(n), last) < i for i, n in enumerate(layers)], np.bool_)

    def _of_any(
        self, frame: Frame, progress: LossProgress, places: Places, is_missed: Mask
    ) -> Finding | None:
        share = float(is_missed.mean())
        if share < self._limit_share or not progress.never_moved(tolerance=0.2):
            return None
        return self._finding(frame, places[is_missed], len(places), self._limit_share)

    def _of_first(
        self, frame: Frame, progress: LossProgress, places: Places, is_missed: Mask
    ) -> Finding | None:
        count = len(places) if is_missed.all() else int(np.argmin(is_missed))
        is_many = max(2.0, self._first_share * len(places)) <= count < len(places)
        if not is_many or not progress.stalls(2):
            return None
        first = places[:count]
        twins = _twins(frame.layers, tuple(first.tolist()))
        if any(self._reached[list(twin)].any() for twin in twins):
            return None
        return self._finding(frame, first, len(places), self._first_share)

    def _finding(self, frame: Frame, missed: Places, total: int, limit: float) -> Finding:
        return Finding(
            kind="not_learning",
            rule="cut off",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(frame.layers[place] for place in missed.tolist()),
            value=len(missed) / total,
            limit=limit,
            unit="share of layers",
            message=f"{len(missed)} of {total} layers never got a gradient, and the loss "
            "hardly moves",
            advice=_ADVICE,
        )

    def _of_vectors(self, frame: Frame, progress: LossProgress) -> Finding | None:
        """Judge whether biases and norm layers alone, all that is trained, get anywhere."""
        if not frame.global_grad_norm > 0.0 or progress.steps < 60 or progress.has_gained():
            return None
        return Finding(
            kind="not_learning",
            rule="only vectors",
            severity=Severity.WARNING,
            step=frame.step,
            epoch=frame.epoch,
            value=0.0,
            limit=0.0,
            unit="weight matrices",
            message="no weight matrix gets a gradient, only biases or norm layers, and the loss "
            "does not fall",
            advice="see which parameters are frozen, and whether more of them should learn.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"reached": dict(zip(self._layers, self._reached.tolist(), strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._layers = tuple(state["reached"])
        self._reached = np.array(list(state["reached"].values()), dtype=np.bool_)


@lru_cache(maxsize=8)
def _twins(layers: tuple[str, ...], places: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return where all these layers occur again, under names that differ in one part."""
    where = {tuple(name.split(".")): place for place, name in enumerate(layers)}
    mine = [tuple(layers[place].split(".")) for place in places]
    found = []
    for depth in range(min(map(len, mine))):
        for other in {path[depth] for path in where.keys() - set(mine) if len(path) > depth}:
            twins = {(*path[:depth], other, *path[depth + 1 :]) for path in mine}
            # As many as before: the names of `0` and `1` in a row differ in one part, too.
            if len(twins) == len(mine) and twins <= where.keys() - set(mine):
                found.append(tuple(where[path] for path in twins))
    return found
