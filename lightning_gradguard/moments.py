"""Remember a stream of numbers in a few numbers.

In: one float per step. Out: decayed mean and variance. State is a value; `updated` returns the
next one and never sees an outlier that the caller has not limited first.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Moments", "updated"]


@dataclass(frozen=True)
class Moments:
    """Decayed mean and variance of a stream.

    Attributes:
        count: Numbers seen.
        mean: Weighted mean; recent numbers count more.
        variance: Weighted variance around the mean, never negative.
    """

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0


def updated(moments: Moments, x: float, *, decay: float) -> Moments:
    """Return the moments after one more number.

    Early on the weights are those of a plain average, so that the first numbers do not count
    for ever.

    Args:
        moments: The past.
        x: The next number; finite.
        decay: Weight of the past, in ``[0, 1)``.

    Example:
        >>> m = updated(updated(Moments(), 1.0, decay=0.9), 3.0, decay=0.9)
        >>> m.mean, m.variance
        (2.0, 1.0)

    Source:
        Finch, "Incremental calculation of weighted mean and variance", 2009, section 9.
    """
    decay = min(decay, moments.count / (moments.count + 1))
    delta = x - moments.mean
    step = (1.0 - decay) * delta
    return Moments(
        count=moments.count + 1,
        mean=moments.mean + step,
        variance=decay * (moments.variance + delta * step),
    )
