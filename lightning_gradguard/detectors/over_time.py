"""How gradients change over time steps: what `Vanishing` and `Exploding` both look at.

In: gradient norms of a recurrent layer's input or state over time steps. Out: one number.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from lightning_gradguard.frame import Vector

__all__ = ["MEMORY_DECADES", "decades_over_time", "decades_per_step", "memory_horizon"]

MEMORY_DECADES: Final = 4.0
"""What is beyond the memory horizon gets less than 10**-4 of the gradient, 0.01 %."""
_FEWEST: Final = 3


def decades_over_time(profile: Vector) -> float:
    """Return how many factors of ten the gradient loses from the late to the early time steps.

    Args:
        profile: Gradient norm per time step, first time step first.

    Returns:
        Median of the last quarter over median of the first, as log10; negative when the early
        steps get more. NaN for fewer than eight time steps, or when the last quarter is zero.

    Example:
        >>> round(decades_over_time(np.logspace(-9, 0, 10)), 1)
        8.0
    """
    quarter = len(profile) // 4
    if quarter < 2 or not np.all(np.isfinite(profile)):
        return math.nan
    early, late = float(np.median(profile[:quarter])), float(np.median(profile[-quarter:]))
    if late == 0.0:
        return math.nan
    tiny = 1e-300
    return math.log10(late / max(early, tiny))


def decades_per_step(steps: Vector, norms: Vector) -> float:
    """Return how many factors of ten a gradient loses per time step on its way back, as fitted.

    Args:
        steps: Time steps, ``(k,)``.
        norms: Gradient norm at each, ``(k,)``; what is zero or not measured is left out.

    Returns:
        Slope of log10 of the norm over the steps, by least squares; negative when the early steps
        get more. NaN with fewer than three norms.

    Example:
        >>> round(decades_per_step(np.arange(0, 40, 10), 10.0 ** np.array([-9, -6, -3, 0])), 3)
        0.3
    """
    known = np.isfinite(norms) & (norms > 0.0)
    if np.count_nonzero(known) < _FEWEST:
        return math.nan
    at, sizes = steps[known] - np.mean(steps[known]), np.log10(norms[known])
    return float(np.dot(at, sizes) / np.dot(at, at))


def memory_horizon(decades: float) -> float:
    """Return how many time steps back a gradient is smaller than 0.01 % of what it was.

    Args:
        decades: Factors of ten that it loses per time step.

    Returns:
        Steps; infinite when nothing is lost.

    Example:
        >>> round(memory_horizon(0.19))
        21
    """
    return MEMORY_DECADES / decades if decades > 0.0 else math.inf
