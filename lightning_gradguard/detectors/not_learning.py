"""A loss that does not move although it should."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import judged
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Mask

__all__ = ["NotLearning"]


class NotLearning:
    """Find training that goes nowhere.

    Reports ``not_learning`` of a loss that has not moved since the start when its layers stand
    still (none moves by more than ``min_update_ratio`` of its size per step), when they crawl (by
    no more than ``min_speed``), or when half of the weight layers never got a gradient. And, as a
    notice only, when the loss alone stays where it was for ``stall_steps``.

    Is silent once the loss has fallen, and while the learning rate rises, as in a warm-up. What
    stands still because of vanishing gradients is told apart by `Vanishing`, which looks at depth
    and time.

    Costs a median of ten numbers per step.

    Args:
        min_update_ratio: Relative update per step below which weights stand still; half a
            million such steps would not change them by a tenth.
        min_speed: The same for a loss that has hardly moved in 60 steps, which is then only a
            warning.
        patience_steps: Observed steps in a row before a finding is reported.
        stall_steps: Length of a plateau at the start that is too long.
        tolerance: Smallest fall of the loss that counts as progress, relative to its level.

    State:
        The course of the loss, and the latest learning rate.

    Example:
        >>> NotLearning(patience_steps=40).patience_steps_by_kind
        {'not_learning': 40}
    """

    def __init__(
        self,
        *,
        min_update_ratio: float = 2e-7,
        min_speed: float = 2e-4,
        patience_steps: int = 10,
        stall_steps: int = 3000,
        tolerance: float = 0.01,
    ) -> None:
        self.patience_steps_by_kind = {"not_learning": patience_steps}
        self._min_update_ratio = positive("min_update_ratio", min_update_ratio)
        self._min_speed = positive("min_speed", min_speed)
        self._fastest: deque[float] = deque(maxlen=20)
        self._reached: Mask | None = None
        self._stall_steps, self._tolerance = stall_steps, tolerance
        self._progress = LossProgress()
        self._rate = 0.0
        self._had_rate = False
        self._risen_at = 0

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding."""
        self._progress.update(frame.loss)
        if frame.has_nonfinite or not frame.stepped:
            return ()
        if self._is_warming_up(frame):
            return ()
        found = (
            self._stands_still(frame)
            or self._is_cut_off(frame)
            or self._crawls(frame)
            or self._stalls(frame)
        )
        return () if found is None else (found,)

    def _is_warming_up(self, frame: Frame) -> bool:
        """Whether the rate rose within the last steps, or was zero from the very first."""
        rate = max((r for r in frame.learning_rates if not math.isnan(r)), default=math.nan)
        if math.isnan(rate):
            return False
        if rate > self._rate and self._had_rate:
            self._risen_at = frame.step
        self._rate, self._had_rate = rate, self._had_rate or rate > 0.0
        return not self._had_rate or (0 < self._risen_at > frame.step - 20)

    def _stands_still(self, frame: Frame) -> Finding | None:
        ratios = frame.weight_update_ratio[np.isfinite(frame.weight_update_ratio)]
        if ratios.size == 0 or not self._never_moved(10):
            return None
        largest = float(ratios.max())
        if largest >= self._min_update_ratio:
            return None
        return Finding(
            kind="not_learning",
            step=frame.step,
            epoch=frame.epoch,
            rule="still",
            value=largest,
            limit=self._min_update_ratio,
            unit="update ratio",
            message=f"no layer moves by more than {largest:.1e} of its size per step, and the "
            "loss has not moved",
            advice="a higher learning rate; check the schedule, and that the loss is connected.",
            severity=Severity.ERROR,
        )

    def _crawls(self, frame: Frame) -> Finding | None:
        """Judge whether the fastest layer is too slow, over a stretch that is long enough."""
        largest = min(1.0, float(np.nanmax(frame.weight_update_ratio, initial=0.0)))
        self._fastest.append(largest)
        largest = max(self._fastest)
        progress = self._progress
        if progress.steps < 60 or not progress.never_moved(tolerance=0.1):
            return None
        if largest >= self._min_speed:
            return None
        return Finding(
            kind="not_learning",
            step=frame.step,
            epoch=frame.epoch,
            rule="crawling",
            value=largest,
            limit=self._min_speed,
            unit="update ratio",
            message=f"no layer moves by more than {largest:.1e} of its size per step, and the "
            f"loss is {progress.recent:.3g} after {progress.steps}, {progress.start:.3g} at first",
            advice="a higher learning rate; check the schedule, and whether gradients are cut off.",
            severity=Severity.WARNING,
        )

    def _is_cut_off(self, frame: Frame) -> Finding | None:
        """Judge whether most weight matrices never got a gradient."""
        mine = judged(frame)
        if self._reached is None or self._reached.shape != mine.shape:
            self._reached = np.zeros(mine.shape, dtype=np.bool_)
        self._reached |= frame.weight_grad_norm > 0.0
        missed = np.flatnonzero(mine & ~self._reached)
        total = int(mine.sum())
        if total < 3 or len(missed) < total / 2 or self._progress.steps < 20:
            return None
        if not self._progress.never_moved(tolerance=0.2):
            return None
        return Finding(
            kind="not_learning",
            step=frame.step,
            epoch=frame.epoch,
            rule="cut off",
            value=len(missed) / total,
            limit=0.5,
            unit="share of layers",
            message=f"{len(missed)} of {total} layers never got a gradient, and the loss "
            "hardly moves",
            advice="look for a `detach()`, a `no_grad()` or a tensor that was made anew on the way "
            "from the loss to these layers: gradients are cut off.",
            layers=tuple(frame.layers[i] for i in missed),
            severity=Severity.ERROR,
        )

    def _never_moved(self, steps: int) -> bool:
        return self._progress.never_moved(steps=steps, tolerance=self._tolerance)

    def _stalls(self, frame: Frame) -> Finding | None:
        progress = self._progress
        if progress.steps < self._stall_steps:
            return None
        fall = progress.start - progress.best
        limit = max(self._tolerance * abs(progress.start), 2.0 * progress.noise)
        if fall > limit:
            return None
        # A notice: alone, a flat loss is also an adversary's, a plateau's or a finished run's.
        return Finding(
            kind="not_learning",
            step=frame.step,
            epoch=frame.epoch,
            rule="flat",
            value=fall,
            limit=limit,
            unit="loss",
            message=f"the loss is {progress.recent:.3g} after {progress.steps} steps, "
            f"{progress.start:.3g} at the start",
            advice="overfit a single batch first; then check rate, targets and initialisation.",
            severity=Severity.INFO,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "progress": self._progress.state_dict(),
            "fastest": list(self._fastest),
            "reached": None if self._reached is None else self._reached.tolist(),
            "rate": self._rate,
            "had_rate": self._had_rate,
            "risen_at": self._risen_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._progress.load_state_dict(state["progress"])
        self._fastest = deque(state["fastest"], maxlen=20)
        reached = state["reached"]
        self._reached = None if reached is None else np.array(reached, dtype=np.bool_)
        self._rate, self._had_rate = state["rate"], state["had_rate"]
        self._risen_at = state["risen_at"]
