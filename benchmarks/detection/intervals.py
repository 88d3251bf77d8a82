"""Exact intervals of shares and rates.

In: counts. Out: a lower and an upper bound that hold the true value with 95 % confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["of_rate", "of_share"]

_TAIL = 0.025


def of_share(hits: int, trials: int) -> tuple[float, float]:
    """Return the interval of a share.

    Example:
        >>> low, high = of_share(0, 300)
        >>> low, round(high, 4)
        (0.0, 0.0122)

    Source:
        Clopper and Pearson, "The use of confidence or fiducial limits", 1934; by bisection.
    """
    low = 0.0 if hits == 0 else _solve(lambda p: 1.0 - _binomial(hits - 1, trials, p), _TAIL)
    high = 1.0 if hits == trials else _solve(lambda p: -_binomial(hits, trials, p), -_TAIL)
    return low, high


def of_rate(hits: int) -> tuple[float, float]:
    """Return the interval of the expected number of rare events, of which some were seen.

    Example:
        >>> low, high = of_rate(0)
        >>> low, round(high, 2)
        (0.0, 3.69)

    Source:
        Garwood, "Fiducial limits for the Poisson distribution", 1936; by bisection.
    """
    most = 10.0 * (hits + 5.0)
    low = 0.0 if hits == 0 else most * _solve(lambda x: 1.0 - _poisson(hits - 1, most * x), _TAIL)
    return low, most * _solve(lambda x: -_poisson(hits, most * x), -_TAIL)


def _solve(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2.0


def _binomial(hits: int, trials: int, share: float) -> float:
    """Return the probability of at most so many hits."""
    return math.fsum(
        math.comb(trials, k) * share**k * (1.0 - share) ** (trials - k) for k in range(hits + 1)
    )


def _poisson(hits: int, mean: float) -> float:
    """Return the probability of at most so many events."""
    return math.fsum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(hits + 1))
