"""What chooses: Python's own generator, with two more ways to draw."""

from __future__ import annotations

import math
from random import Random

__all__ = ["Dice"]


class Dice(Random):
    """A source of choices; its seed decides all of them."""

    def happens(self, probability: float) -> bool:
        """Return true with a probability."""
        return self.random() < probability

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number between two, whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))
