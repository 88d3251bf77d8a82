"""What the monitor costs on the host, by its own clock.

In: the time spent in the monitor's methods, and the end of each optimizer step. Out: means. On a
GPU the device's own time is not in it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean, median
from typing import Final

__all__ = ["Stopwatch"]

_TIMINGS: Final = 1000
_TIMINGS_PER_MEAN: Final = 50


class Stopwatch:
    """Time optimizer steps with all their batches, and our part of them.

    Attributes:
        spent: Seconds that were ours since the last step ended.
        overhead_ms: Mean of that over many steps, in milliseconds, from time to time.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self.overhead_ms = float("nan")
        self._overheads: deque[float] = deque(maxlen=_TIMINGS)
        self._durations: deque[float] = deque(maxlen=_TIMINGS)
        self._last_end: float | None = None
        self._steps = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside as ours."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent += time.perf_counter() - start

    def end_step(self) -> tuple[float, float] | None:
        """Note that a step ended.

        Returns:
            Seconds that were ours, and seconds since the step before ended; None for the first.
        """
        now, before = time.perf_counter(), self._last_end
        spent, self.spent, self._last_end = self.spent, 0.0, now
        if before is None:
            return None
        self._overheads.append(spent)
        self._durations.append(now - before)
        self._steps += 1
        if self._steps % _TIMINGS_PER_MEAN == 1:
            self.overhead_ms, _ = self.means_ms()
        return spent, now - before

    def means_ms(self) -> tuple[float, float]:
        """Return our part of a step and a whole step, in milliseconds; NaN for none.

        Our part is a mean, since it is not the same in each step; of the rest the median is taken,
        since validation and checkpoints lie between some steps.
        """
        if not self._overheads:
            return float("nan"), float("nan")
        ours = fmean(self._overheads)
        rest = median(d - o for d, o in zip(self._durations, self._overheads, strict=True))
        return 1000.0 * ours, 1000.0 * (ours + rest)
