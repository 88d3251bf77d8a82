"""Limit how far steps may move the weights.

In: how large the latest updates were beside the weights, as the monitor measured them. Out: a
learning rate with which the next update should stay below a limit. Needs no alarm: it holds
before anything is found.
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

_RELEASE: Final = 2.0 ** (1.0 / 3000.0)
"""By how much the norm that updates are measured against may grow from one look to the next."""

_TINY: Final = 0.1
"""Layers that begin below this share of what PyTorch would have made have to grow."""

_SMALLEST: Final = 1e-4


class LimitUpdates:
    """Slow steps down that would change the median layer by more than a share of itself.

    The very first step is tiny, to see how large a full one would be. From then on the learning
    rate is as high as the limits allow, going by the update before and by what a schedule has done
    to the rate since; a healthy run reaches its own rate at the second step. Rates that are much
    too high, exploding first steps and spikes of a schedule all move the weights too far, whatever
    the optimizer, before any gradient tells.

    What an update is measured against is the norm of the layer's weight matrices when they were
    first seen, or now if that is smaller: weights that bad steps have blown up do not excuse larger
    steps. So that nothing is held for ever, it follows weights that grow, doubling in 3,000
    looks at most. Layers that begin at zero or next to it have to grow and are not judged, and
    neither is a model of one layer, in which nothing builds up. Of optimizers that do not read
    their rate in each step, such as LBFGS, steps are not held back. It looks at all of an
    optimizer's layers: `Only` refuses it.

    Args:
        largest: Most that one step should change the median layer by, relative to it; ``> 0``.
        sustained: Mean change per step from which less than that is allowed, in proportion, so
            that a run which would go on settles at ``sqrt(largest * sustained)``; ``> 0``, at
            most ``largest``. None is three tenths of that.
        window: Time constant of that mean, in looks; ``>= 1``. Before, it is that of all looks.
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
        >>> LimitUpdates().decide(moment_of([1.0]))  # one layer
        ()
    """

    acts = frozenset({"learning rate"})
    needs_whole_optimizer = True
    acts_on_findings = True  # frames may arrive at other steps on other ranks

    def __init__(
        self,
        largest: float = 0.1,
        *,
        sustained: float | None = None,
        window: int = 30,
        first_factor: float = 0.01,
    ) -> None:
        sustained = 0.3 * largest if sustained is None else sustained
        options.check_positive(largest=largest, sustained=sustained)
        options.check_count("window", window)
        options.check_fraction(first_factor=first_factor)
        if not sustained <= largest:
            msg = f"`sustained` must be at most `largest`, {largest!r}, got {sustained!r}."
            raise ValueError(msg)
        self.largest, self.sustained = largest, sustained
        self.window, self.first_factor = window, first_factor
        self._now, self._mean, self._looks = first_factor, 0.0, 0
        self._room, self._is_idle = math.inf, False
        self._rates: tuple[float, ...] = ()
        self._norms: dict[str, float] = {}

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Learn from the latest updates, and limit the next one."""
        fresh = _fresh_norms(moment.gradients.roster)
        if moment.is_first_look and not self._is_idle:
            self._follow(moment.learning_rates)
            self._learn(moment, fresh)
        if self._is_idle or not fresh:
            return ()
        return [LearningRate(self._now, is_cut=False)] if self._now < 1.0 else ()

    def _follow(self, rates: tuple[float, ...]) -> None:
        """Allow for what a schedule has done to the user's own rates."""
        rise = _rise(self._rates, rates)
        self._room, self._rates = self._room / rise, rates
        self._now = max(_SMALLEST, min(1.0, self._now / min(1.0, rise), self._room))

    def _learn(self, moment: Moment, fresh: Mapping[str, float]) -> None:
        has_looked = False
        for frame in (frame for frame in moment.frames if frame.stepped):
            ratios = self._ratios(frame, fresh)
            self._is_idle = not len(ratios)
            moved = np.sort(ratios[np.isfinite(ratios) & (ratios > 0.0)])
            if self._looks == 0 and len(ratios) and not np.any(ratios):
                self._now = 1.0  # frozen, or a schedule that begins at zero: nothing to see
            if len(moved):
                has_looked = True
                # Of two in the middle the smaller: half of a model may be new.
                self._limit(float(moved[(len(moved) - 1) // 2]), frame)
        if not has_looked and moment.step > 0:
            self._room *= _BLIND_GROWTH
            self._now = min(1.0, self._now * _BLIND_GROWTH)

    def _ratios(self, frame: Frame, fresh: Mapping[str, float]) -> Vector:
        """Return the updates of the layers that are judged, relative to their weights."""
        found = []
        for layer, now, update in zip(
            frame.layers, frame.weight_param_norm, frame.weight_update_norm, strict=True
        ):
            if layer in fresh:
                against = self._measure_of(layer, float(now), fresh[layer])
                if against != 0.0:
                    found.append(float(update) / against)
        return np.array(found)

    def _measure_of(self, layer: str, now: float, fresh: float) -> float:
        """Return what a layer's updates are measured against; 0 for one that has to grow."""
        if not math.isfinite(now):
            return math.nan
        norm = max(now, fresh)
        known = self._norms.setdefault(layer, norm if now >= _TINY * fresh else 0.0)
        if norm > known > 0.0:
            known = self._norms[layer] = min(norm, known * _RELEASE)
        return min(norm, known)

    def _limit(self, ratio: float, frame: Frame) -> None:
        self._looks += 1
        self._mean += (ratio - self._mean) / min(self._looks, self.window)
        allowed = self.largest * min(1.0, self.sustained / max(self._mean, self.sustained))
        growth = self._now * _GROWTH if self._looks > 1 else 1.0
        self._room = allowed * frame.lr_factor / ratio / _rise(frame.learning_rates, self._rates)
        self._now = max(_SMALLEST, min(1.0, growth, self._room))

    def state_dict(self) -> dict[str, Any]:
        """Return the factor and what it rests on, as JSON types."""
        return {
            "now": self._now,
            "mean": self._mean,
            "room": self._room,
            "rates": list(self._rates),
            "looks": self._looks,
            "is_idle": self._is_idle,
            "norms": dict(self._norms),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._now, self._mean, self._room = state["now"], state["mean"], state["room"]
        self._rates = tuple(state["rates"])
        self._looks, self._is_idle = state["looks"], state["is_idle"]
        self._norms = dict(state["norms"])


def _rise(before: Sequence[float], now: Sequence[float]) -> float:
    """Return by what the rate of the group was multiplied that rose most; 1 where that is unknown.

    Example:
        >>> _rise([0.1, 0.0], [0.05, 1.0]), _rise([], [0.1]), _rise([math.nan], [0.1])
        (0.5, 1.0, 1.0)
    """
    rises = [new / old for old, new in zip(before, now, strict=False) if old > 0.0 and new > 0.0]
    return max(rises, default=1.0)


def _fresh_norms(roster: Roster) -> dict[str, float]:
    """Return the norm that PyTorch's default initialisation gives each layer's weight matrices.

    Entries are uniform within ``1 / sqrt(fan_in)``, so that their mean square is a third of that
    limit's. A row of a frame is a layer or a parameter; both names are there. Empty for a model
    of one layer.
    """
    known = roster.notes.get("fresh norms")
    if isinstance(known, dict):
        return known
    layers: dict[str, float] = {}
    parameters: dict[str, float] = {}
    for member in roster.members:
        units = member.parameter.shape[member.unit_dim] if is_matrix(member.parameter) else 0
        if units:
            layers[member.layer] = math.hypot(layers.get(member.layer, 0.0), math.sqrt(units / 3.0))
            parameters[member.name] = math.sqrt(units / 3.0)
    fresh = {**parameters, **layers} if len(layers) > 1 else {}
    roster.notes["fresh norms"] = fresh
    return fresh
