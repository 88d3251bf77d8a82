"""What the monitor costs on the host, by its own clock.

In: the time spent in the monitor's methods, and the end of each optimizer step. Out: medians. On
a GPU the device's own time is not in it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Final

__all__ = ["Stopwatch"]

_TIMINGS: Final = 1000
_TIMINGS_PER_MEDIAN: Final = 50


class Stopwatch:
    """Time optimizer steps with all their batches, and our part of them.

    Attributes:
        spent: Seconds that were ours since the last step ended.
        overhead_ms: Median of that over many steps, in milliseconds, from time to time.
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
        if self._steps % _TIMINGS_PER_MEDIAN == 1:
            self.overhead_ms = _median_ms(self._overheads)
        return spent, now - before

    def medians_ms(self) -> tuple[float, float]:
        """Return the medians of our part and of whole steps, in milliseconds; NaN for none."""
        return _median_ms(self._overheads), _median_ms(self._durations)


def _median_ms(seconds: Iterable[float]) -> float:
    known = list(seconds)
    return 1000.0 * median(known) if known else float("nan")
