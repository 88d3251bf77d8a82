"""How often to look, so that looking stays within a budget.

In: what each step took, and how much of that was ours. Out: an interval. Decides by its own
clock only; that all ranks take the same interval is for the adapter to see to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import fmean, median
from typing import Final

__all__ = ["Governor"]

_INTERVALS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_WARMUP_BATCHES: Final = 10
_BATCHES_PER_DECISION: Final = 25
_MOST_TIMINGS: Final = 100
_MOST_LOOKS: Final = 20
"""Fewer, since at a long interval a slow moment would be remembered for very long."""

_MARGIN: Final = 0.7
"""A shorter interval must stay this far within the budget, or it would flap."""


class Governor:
    """Keep the monitor's share of the training time below a limit.

    Time is that of the host. What is never thinned, the glance for numbers that are not finite,
    is counted too; where it leaves less than half of the budget, full looks get that half.

    Args:
        max_overhead: Our time over the rest of a step's time, such as 0.02; ``> 0``.

    Attributes:
        interval: Steps from one full look to the next.

    Raises:
        ValueError: ``max_overhead`` is not positive.

    Example:
        >>> governor = Governor(0.02)
        >>> for _ in range(40):
        ...     _ = governor.count_batch()
        ...     governor.note(spent=0.001, step=0.011, looked=True)
        >>> governor.wanted  # 10 % is five times too much
        5
    """

    def __init__(self, max_overhead: float) -> None:
        if not max_overhead > 0.0:
            msg = f"`max_overhead` must be positive, got {max_overhead!r}."
            raise ValueError(msg)
        self.max_overhead = max_overhead
        self.interval = 1
        self._batches = 0
        self._looks: deque[float] = deque(maxlen=_MOST_LOOKS)
        self._glances: deque[float] = deque(maxlen=_MOST_TIMINGS)
        self._rest: deque[float] = deque(maxlen=_MOST_TIMINGS)

    def note(self, *, spent: float, step: float, looked: bool) -> None:
        """Take in what one optimizer step took, with all of its batches.

        Args:
            spent: Seconds that were ours.
            step: Seconds from the last step's end to this one's.
            looked: Whether it was looked at in full.
        """
        if self._batches <= _WARMUP_BATCHES:
            return  # compiling, first allocations, building tables
        (self._looks if looked else self._glances).append(spent)
        self._rest.append(max(0.0, step - spent))

    def count_batch(self) -> bool:
        """Count a batch, and tell whether the interval is up for decision.

        Every rank must count every batch, also one on which watching has been switched off: the
        others wait for it when they decide.
        """
        self._batches += 1
        return self._batches % _BATCHES_PER_DECISION == 0

    @property
    def wanted(self) -> int:
        """The shortest interval that keeps the budget; shorter than now only with a margin."""
        now = self._shortest(1.0)
        return now if now >= self.interval else min(self.interval, self._shortest(_MARGIN))

    def _shortest(self, share: float) -> int:
        if not self._looks:
            return self.interval
        look, glance, rest = _mean(self._looks), _mean(self._glances), median(self._rest)
        budget = share * self.max_overhead * rest
        left = max(budget - glance, budget / 2.0)
        wanted = (interval for interval in _INTERVALS if look - glance <= left * interval)
        return next(wanted, _INTERVALS[-1])


def _mean(seconds: Sequence[float] | deque[float]) -> float:
    """Return the mean, in which a single slow moment counts for no more than three of the usual."""
    if not seconds:
        return 0.0
    most = 3.0 * median(seconds)
    return fmean(min(x, most) for x in seconds)
