"""The rule that says of a random run that it is healthy; it looks at what was learnt only.

In: how good the model's answers are, before and after. Out: its skill, which has to reach `LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import nn

__all__ = ["LEVEL", "Skill", "skill"]

LEVEL: Final = 0.6
"""Share of the way that a healthy run has gone at its end."""


def skill(quality: float, untrained: float, chance: float, good: float) -> float:
    """Return the share of the way to a good quality that training has gone.

    Args:
        quality: At the end; larger is better, at most one.
        untrained: Quality of the same model before its first step.
        chance: Quality of the best constant answer.
        good: Quality that a small sound model reaches.

    Example:
        >>> skill(quality=0.5, untrained=0.125, chance=0.25, good=0.75)
        0.5
    """
    start = max(untrained, chance)
    return (quality - start) / (good - start) if start < good else -math.inf


class Skill:
    """The skill of a model, which is untrained as yet.

    Args:
        model: What will be trained.
        quality: How good its answers are now.
        chance: Quality of the best constant answer.
        good: Quality that a small sound model reaches.
    """

    def __init__(
        self, model: nn.Module, quality: Callable[[], float], *, chance: float, good: float
    ) -> None:
        self._model, self._quality = model, quality
        self._chance, self._good = chance, good
        self._untrained = self._looked_at()

    def __call__(self) -> float:
        """Return the skill of what it has become."""
        return skill(self._looked_at(), self._untrained, self._chance, self._good)

    def _looked_at(self) -> float:
        self._model.eval()
        with torch.no_grad():
            return self._quality()
