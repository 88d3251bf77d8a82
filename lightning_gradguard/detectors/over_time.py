"""How gradients change over time steps: what `Vanishing` and `Exploding` both look at.

In: the gradient norm of a recurrent layer's input at each time step. Out: one number.
"""

from __future__ import annotations

import math

import numpy as np

from lightning_gradguard.frame import Vector

__all__ = ["decades_over_time"]


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
