"""Whether the loss still moves.

In: one loss per step. Out: where the loss started, its best and its latest level, and whether
it stalls. Levels are medians of blocks of steps, so that one odd batch says nothing.
"""

from __future__ import annotations

import math
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
        block_steps: Steps whose median makes one level.

    Attributes:
        steps: Losses taken in.
        noise: Typical distance of a loss from its block's level; NaN before the first.

    Example:
        >>> progress = LossProgress(block_steps=2)
        >>> for loss in (4.0, 4.0, 2.0, 2.0, 2.0, 2.0):
        ...     progress.update(loss)
        >>> progress.start, progress.best, progress.recent
        (4.0, 2.0, 2.0)
    """

    block_steps: int = 20

    def __post_init__(self) -> None:
        self._block: list[float] = []
        self._levels: list[float] = []
        self._spreads: list[float] = []
        self._best: float | None = None
        self._first_high: float | None = None
        self.steps = 0
        self.noise = math.nan

    def update(self, loss: float | None) -> None:
        """Take in the loss of one step; what is missing or not finite is left out."""
        if loss is None or not math.isfinite(loss):
            return
        self.steps += 1
        self._block.append(loss)
        if len(self._block) < self.block_steps:
            return
        level = median(self._block)
        if self._first_high is None:
            self._first_high = max(self._block)
        self._spreads.append(median(abs(x - level) for x in self._block))
        self._levels.append(level)
        self._best = level if self._best is None else min(self._best, level)
        self.noise = median(self._spreads)
        self._block.clear()
        if len(self._levels) > _MOST_BLOCKS:
            del self._levels[1:-1:2], self._spreads[1:-1:2]

    @property
    def start(self) -> float:
        """Level of the first block; NaN before it is complete."""
        return self._levels[0] if self._levels else math.nan

    @property
    def start_high(self) -> float:
        """Highest loss of the first block, which may fall fast; NaN before it is complete."""
        return math.nan if self._first_high is None else self._first_high

    @property
    def best(self) -> float:
        """Lowest level; NaN before the first block is complete."""
        return math.nan if self._best is None else self._best

    @property
    def recent(self) -> float:
        """Level of the latest block; NaN before the first is complete."""
        return self._levels[-1] if self._levels else math.nan

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

    def never_moved(self, *, blocks: int = 2, tolerance: float = 0.05) -> bool:
        """Whether no level so far is better than the first.

        Args:
            blocks: Complete blocks that are needed to say so.
            tolerance: Smallest improvement that counts, relative to the first level.
        """
        return len(self._levels) >= blocks and self.start - self.best <= tolerance * abs(self.start)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "block": list(self._block),
            "levels": list(self._levels),
            "spreads": list(self._spreads),
            "best": self._best,
            "first_high": self._first_high,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._block, self._levels = list(state["block"]), list(state["levels"])
        self._spreads, self.steps = list(state["spreads"]), state["steps"]
        self.noise = median(self._spreads) if self._spreads else math.nan
        self._best, self._first_high = state["best"], state["first_high"]
