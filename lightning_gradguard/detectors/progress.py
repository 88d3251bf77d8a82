"""Whether the loss moves, and which way.

In: one loss per step. Out: where it started, its best and its latest level, and whether it stalls,
got worse or never moved. Levels are medians over several steps, so that one odd batch says nothing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

__all__ = ["LossProgress"]

_MOST_BLOCKS: Final = 400
"""When there are more, every other one is forgotten: memory stays bounded over any run."""


@dataclass
class LossProgress:
    """The course of a loss.

    Args:
        window_steps: Steps whose median is the latest level.
        block_steps: Steps whose median is one level of the long view that `stalls` takes.

    Attributes:
        steps: Losses taken in.
        start: Level of the first window; NaN before it is complete.
        start_high: Highest loss of the first window, in which it may fall fast.
        best: Lowest level so far; NaN before the first window is complete.
        recent: Level of the latest window.
        noise: Typical distance of a loss from its level, over the run.

    Example:
        >>> progress = LossProgress(window_steps=2)
        >>> for loss in (4.0, 4.0, 2.0, 2.0, 3.0, 3.0):
        ...     progress.update(loss)
        >>> progress.start, progress.best, progress.recent
        (4.0, 2.0, 3.0)
    """

    window_steps: int = 10
    block_steps: int = 20

    def __post_init__(self) -> None:
        self._window: deque[float] = deque(maxlen=self.window_steps)
        self._block: list[float] = []
        self._levels: list[float] = []
        self._spreads: list[float] = []
        self.steps = 0
        self.start = self.start_high = self.best = self.recent = self.noise = math.nan

    def update(self, loss: float | None) -> None:
        """Take in the loss of one step; what is missing or not finite is left out."""
        if loss is None or not math.isfinite(loss):
            return
        self.steps += 1
        self._window.append(loss)
        self._block.append(loss)
        if len(self._window) == self.window_steps:
            self.recent = median(self._window)
            if math.isnan(self.start):
                self.start, self.start_high, self.best = self.recent, max(self._window), self.recent
            self.best = min(self.best, self.recent)
        if len(self._block) == self.block_steps:
            self._close_block()

    def _close_block(self) -> None:
        level = median(self._block)
        self._levels.append(level)
        self._spreads.append(median(abs(x - level) for x in self._block))
        self.noise = median(self._spreads)
        self._block.clear()
        if len(self._levels) > _MOST_BLOCKS:
            del self._levels[1:-1:2], self._spreads[1:-1:2]

    @property
    def spread(self) -> float:
        """Typical distance of the latest losses from their level; NaN before there are enough."""
        if math.isnan(self.recent):
            return math.nan
        return median(abs(loss - self.recent) for loss in self._window)

    def stalls(self, blocks: int, *, tolerance: float = 0.05) -> bool:
        """Whether the latest blocks brought nothing.

        Args:
            blocks: How many of the latest blocks must be no better than as many before.
            tolerance: Smallest improvement that counts, relative to the level.
        """
        if len(self._levels) < 2 * blocks:
            return False
        before = median(self._levels[-2 * blocks : -blocks])
        latest = median(self._levels[-blocks:])
        return before - latest <= tolerance * abs(before)

    def never_moved(self, *, steps: int = 20, tolerance: float = 0.05) -> bool:
        """Whether the loss was never better than at the start.

        Args:
            steps: Losses that are needed to say so.
            tolerance: Smallest improvement that counts, relative to the start.
        """
        return self.steps >= steps and self.start - self.best <= tolerance * abs(self.start)

    def has_gained(self, *, tolerance: float = 0.1, noises: float = 1.0) -> bool:
        """Whether the latest 60 steps are better than the first 20, by more than the noise.

        Unlike `never_moved`, it asks for a lasting gain: the best of many noisy levels lies below
        the start in any run.

        Args:
            tolerance: Smallest improvement that counts, relative to the start.
            noises: The same, in units of the noise.
        """
        if not self._levels:
            return False
        first, latest = self._levels[0], median(self._levels[-3:])
        return first - latest > max(tolerance * abs(first), noises * self.noise)

    def is_worse(self, *, excess: float = 0.2) -> bool:
        """Whether the loss is worse than it was, by more than its noise.

        Args:
            excess: Rise over the best level that counts, relative to it.
        """
        if math.isnan(self.recent):
            return False
        return self.recent > self.best + max(excess * abs(self.best), 3.0 * self.spread)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        levels = (self.start, self.start_high, self.best, self.recent)
        return {
            "window": list(self._window),
            "block": list(self._block),
            "levels": list(self._levels),
            "spreads": list(self._spreads),
            "known": None if math.isnan(self.start) else list(levels),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._window = deque(state["window"], maxlen=self.window_steps)
        self._block, self._levels = list(state["block"]), list(state["levels"])
        self._spreads, self.steps = list(state["spreads"]), state["steps"]
        self.noise = median(self._spreads) if self._spreads else math.nan
        known = state["known"] or [math.nan] * 4
        self.start, self.start_high, self.best, self.recent = known
