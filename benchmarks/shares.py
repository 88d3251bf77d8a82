"""From the costs of single steps to the few numbers that are reported.

In: numbers per step. Out: medians with quartiles, and the cost per step with rare steps spread
over their real distance. Plain arithmetic, without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["WARM_UP", "Recurring", "Share", "per_step", "share"]

WARM_UP = 3
"""Steps at the start that are left out: memory is allocated, and lists are made, only once."""

_WIDTH = 2
"""A step's numbers are read and written in the step after it, so both belong to it."""


@dataclass(frozen=True)
class Share:
    """Median and quartiles of some numbers.

    Attributes:
        middle: The median.
        low: The lower quartile.
        high: The upper quartile.
    """

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Recurring:
    """Steps that cost more than the others, such as those that are written.

    Attributes:
        period: Steps between two of them in the benchmark.
        offset: The first of them.
        real_period: Steps between two of them in a real run.
    """

    period: int
    offset: int
    real_period: int

    def starts(self, steps: int) -> list[int]:
        """Return those that lie, with the step after each, between warm-up and `steps`."""
        found = range(self.offset % self.period, steps - _WIDTH + 1, self.period)
        return [start for start in found if start >= WARM_UP]


def share(numbers: Sequence[float]) -> Share:
    """Return median and quartiles."""
    low, middle, high = np.quantile(np.asarray(numbers), (0.25, 0.5, 0.75)).tolist()
    return Share(middle, low, high)


def per_step(costs: Sequence[float], recurring: Sequence[Recurring]) -> float:
    """Return the mean cost of a step, with the rare ones as often as in a real run.

    It is the median of the ordinary steps, plus, for each kind of rare steps, the median of what
    they cost beyond that, divided by their real distance.

    Args:
        costs: Of each step, from the first on.
        recurring: The kinds of rare steps, frequent ones first.

    Example:
        >>> costs = [1.0, 1.0, 1.0, 1.0, 6.0, 1.0, 1.0, 1.0, 6.0, 1.0]
        >>> per_step(costs, [Recurring(period=4, offset=0, real_period=50)])
        1.1
    """
    steps = len(costs)
    starts = [kind.starts(steps) for kind in recurring]
    rare = {step for kind in starts for start in kind for step in _window(start)}
    ordinary = [cost for step, cost in enumerate(costs) if step >= WARM_UP and step not in rare]
    quiet = float(np.median(ordinary or costs))
    expected = np.full(steps, quiet)
    total = quiet
    for number, kind in enumerate(recurring):
        rarer = {
            step for later in starts[number + 1 :] for start in later for step in _window(start)
        }
        clean = [start for start in starts[number] if not rarer & set(_window(start))]
        if clean:
            beyond = [sum(costs[i] - expected[i] for i in _window(start)) for start in clean]
            excess = float(np.median(beyond))
            expected[starts[number]] += excess
            total += excess / kind.real_period
    return total


def _window(start: int) -> range:
    return range(start, start + _WIDTH)
