"""What is normal for a number, learned from the run's own quiet part.

In: one positive number per step. Out: location and scale of its logarithm, and how many scales a
new number lies above. What is far off teaches a limited value, so that one outlier moves nothing
and a lasting change is learned in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from lightning_gradguard.moments import Moments, updated

__all__ = ["Baseline"]


@dataclass(frozen=True)
class Baseline:
    """Location and scale of a stream of positive numbers, in factors of ten.

    Args:
        decay: Weight of the past, in ``[0, 1)``.
        floor: Smallest scale, so that a stream that hardly varies does not cry at every ripple.
        width: A number further off than this many scales teaches no more than one at that distance.
        moments: What was learned.

    Example:
        >>> baseline = Baseline()
        >>> for norm in [1.0, 1.1, 0.9] * 10:
        ...     baseline = baseline.after(norm)
        >>> baseline.z_score(1.0) < 1.0 < 6.0 < baseline.z_score(10.0)
        True

    Source:
        Huber, "Robust estimation of a location parameter", 1964: limited influence.
    """

    decay: float = 0.98
    floor: float = 0.05
    width: float = 3.0
    moments: Moments = field(default_factory=Moments)

    @property
    def count(self) -> int:
        """Numbers learned."""
        return self.moments.count

    @property
    def location(self) -> float:
        """What is usual, as a number of the stream."""
        return math.pow(10.0, self.moments.mean)

    @property
    def scale(self) -> float:
        """Typical distance, in factors of ten."""
        return max(self.floor, math.sqrt(self.moments.variance))

    def z_score(self, number: float) -> float:
        """Return how many scales a number lies above what is usual; 0 while nothing is known."""
        if self.count == 0 or not 0.0 < number < math.inf:
            return 0.0
        return (math.log10(number) - self.moments.mean) / self.scale

    def after(self, number: float) -> Baseline:
        """Return the baseline that has learned one more number; zero and NaN teach nothing."""
        if not 0.0 < number < math.inf:
            return self
        x = math.log10(number)
        if self.count >= 5:
            reach = self.width * self.scale
            x = min(max(x, self.moments.mean - reach), self.moments.mean + reach)
        moments = updated(self.moments, x, decay=self.decay)
        return Baseline(self.decay, self.floor, self.width, moments)

    def state_dict(self) -> list[Any]:
        """Return what was learned, as JSON types."""
        return [self.moments.count, self.moments.mean, self.moments.variance]

    def loaded(self, state: list[Any]) -> Baseline:
        """Return a baseline that has learned what was saved."""
        return Baseline(self.decay, self.floor, self.width, Moments(*state))
