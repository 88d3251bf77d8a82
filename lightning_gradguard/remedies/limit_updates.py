"""Limit how far one step may move the weights.

In: how large the latest updates were beside the weights, as the monitor measured them. Out: a
learning rate for this step with which the next update stays below a limit. Needs no alarm: it
holds before anything breaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from lightning_gradguard import options
from lightning_gradguard.frame import Frame, Vector
from lightning_gradguard.remedies.base import Decision, LearningRate, Moment
from lightning_gradguard.remedies.gradients import Roster
from lightning_gradguard.scope import is_matrix

__all__ = ["LimitUpdates"]

_GROWTH: Final = 1.5
"""By how much the rate may grow between two looks: as updates shrink, rates would jump."""

_BLIND_GROWTH: Final = 2.0 ** (1.0 / 20.0)
"""The same per step without a look, so that a monitor that looks rarely holds nobody back."""

_SMALLEST: Final = 1e-4


class LimitUpdates:
    """Slow a step down that would change the median layer by more than a share of itself.

    The very first step is tiny, to see how large a full one would be. From then on the learning
    rate is as high as the limits allow; a healthy run reaches its own rate at the second step.
    Rates that are much too high, exploding first steps and spikes of a schedule all move the
    weights too far, whatever the optimizer, before any gradient tells.

    What an update is measured against is the norm of the layer's weight matrices when they were
    first seen, or now if that is smaller, or what PyTorch's own initialisation would have given
    if that is larger: weights that bad steps have blown up do not excuse larger steps, and layers
    that begin at zero may leave it.

    Args:
        largest: Most that one step may change the median layer by, relative to it; ``> 0``.
        sustained: The same on the mean over ``window`` steps; ``> 0``, at most ``largest``.
        window: Time constant of that mean, in steps; ``>= 1``.
        first_factor: What the rate of the first step is multiplied by, in ``(0, 1)``.

    Raises:
        ValueError: A number is out of range.

    Cost:
        Some numpy on one number per layer, on the host.

    Source:
        Updates relative to weights: You, Gitman and Ginsburg, "Large batch training of
        convolutional networks", 2017, who set them where this only limits them.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> LimitUpdates().decide(moment_of([1.0]))
        [LearningRate(factor=0.01, why='', groups=None, is_cut=False)]
    """

    acts = frozenset({"learning rate"})
    acts_on_findings = True  # frames may arrive at other steps on other ranks

    def __init__(
        self,
        largest: float = 0.1,
        *,
        sustained: float = 0.03,
        window: int = 30,
        first_factor: float = 0.01,
    ) -> None:
        options.check_positive(largest=largest, sustained=sustained)
        options.check_count("window", window)
        options.check_fraction(first_factor=first_factor)
        if not sustained <= largest:
            msg = f"`sustained` must be at most `largest`, {largest!r}, got {sustained!r}."
            raise ValueError(msg)
        self.largest, self.sustained = largest, sustained
        self.window, self.first_factor = window, first_factor
        self._now, self._mean, self._has_seen = first_factor, 0.0, False
        self._first_norms: dict[str, float] = {}

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Learn from the latest updates, and limit the next one."""
        fresh = _fresh_norms(moment.gradients.roster)
        if not fresh:  # no matrix is trained, so that nothing would ever be seen
            return ()
        if moment.is_first_look:
            self._learn(moment, fresh)
        return [LearningRate(self._now, is_cut=False)] if self._now < 1.0 else ()

    def _learn(self, moment: Moment, fresh: Mapping[str, float]) -> None:
        ratios = [
            (ratio, frame.lr_factor)
            for frame in moment.frames
            if frame.stepped and (ratio := self._ratio(frame, fresh)) is not None
        ]
        for ratio, lr_factor in ratios:
            self._limit(ratio, lr_factor)
        if not ratios and moment.step > 0:
            self._now = min(1.0, self._now * _BLIND_GROWTH)

    def _ratio(self, frame: Frame, fresh: Mapping[str, float]) -> float | None:
        """Return the median layer's update, relative to its weights; None if there is none."""
        known = np.array([layer in fresh for layer in frame.layers], dtype=bool)
        names = [layer for layer in frame.layers if layer in fresh]
        least = np.array([fresh[name] for name in names])
        now = np.maximum(frame.weight_param_norm[known], least)
        for name, norm in zip(names, now, strict=True):
            if math.isfinite(norm):
                self._first_norms.setdefault(name, float(norm))
        first = np.array([self._first_norms.get(name, math.inf) for name in names])
        ratios: Vector = frame.weight_update_norm[known] / np.fmin(now, first)
        moved = np.sort(ratios[np.isfinite(ratios) & (ratios > 0.0)])
        # Of two in the middle the smaller: half of an adapter's layers may begin at zero.
        return float(moved[(len(moved) - 1) // 2]) if len(moved) else None

    def _limit(self, ratio: float, lr_factor: float) -> None:
        self._mean += (ratio - self._mean) / self.window
        allowed = self.largest * min(1.0, self.sustained / max(self._mean, self.sustained))
        growth = self._now * _GROWTH if self._has_seen else 1.0
        self._now = max(_SMALLEST, min(1.0, growth, allowed * lr_factor / ratio))
        self._has_seen = True

    def state_dict(self) -> dict[str, Any]:
        """Return the factor and what it rests on, as JSON types."""
        return {
            "now": self._now,
            "mean": self._mean,
            "has_seen": self._has_seen,
            "first_norms": dict(self._first_norms),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._now, self._mean = state["now"], state["mean"]
        self._has_seen = state["has_seen"]
        self._first_norms = dict(state["first_norms"])


def _fresh_norms(roster: Roster) -> dict[str, float]:
    """Return the norm that PyTorch's default initialisation gives each layer's weight matrices.

    Entries are uniform within ``1 / sqrt(fan_in)``, so that their mean square is a third of that
    limit's.
    """
    known = roster.notes.get("fresh norms")
    if isinstance(known, dict):
        return known
    squares: dict[str, float] = {}
    for member in roster.members:
        parameter = member.parameter
        if is_matrix(parameter):
            units = parameter.shape[member.unit_dim]
            squares[member.layer] = squares.get(member.layer, 0.0) + units / 3.0
    fresh = {layer: math.sqrt(square) for layer, square in squares.items()}
    roster.notes["fresh norms"] = fresh
    return fresh
