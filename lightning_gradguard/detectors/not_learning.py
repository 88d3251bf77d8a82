"""A loss that does not move although it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["NotLearning"]


class NotLearning:
    """Find training that goes nowhere.

    Reports ``not_learning`` of a loss that has not moved since the start when no layer's weights
    move by more than ``min_update_ratio`` per step either; and, as a notice only, when the loss
    alone stays where it was for ``stall_steps``.

    Is silent once the loss has fallen, and when the learning rate is zero on purpose. What
    stands still because of vanishing gradients is told apart by `Vanishing`, which looks at depth
    and time.

    Costs one median per twenty steps.

    Args:
        min_update_ratio: Relative update per step below which weights stand still; half a
            million such steps would not change them by a tenth.
        patience_steps: Observed steps in a row before a finding is reported.
        stall_steps: Length of a plateau at the start that is too long.
        tolerance: Smallest fall of the loss that counts as progress, relative to its level.

    State:
        The course of the loss.

    Example:
        >>> NotLearning(patience_steps=40).patience_steps_by_kind
        {'not_learning': 40}
    """

    def __init__(
        self,
        *,
        min_update_ratio: float = 2e-7,
        patience_steps: int = 20,
        stall_steps: int = 3000,
        tolerance: float = 0.01,
    ) -> None:
        if not min_update_ratio > 0.0:
            msg = f"`min_update_ratio` must be positive, got {min_update_ratio!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"not_learning": patience_steps}
        self._min_update_ratio = min_update_ratio
        self._stall_steps, self._tolerance = stall_steps, tolerance
        self._progress = LossProgress()

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding."""
        self._progress.update(frame.loss)
        if frame.has_nonfinite or not frame.stepped:
            return ()
        if frame.learning_rates and max(frame.learning_rates) == 0.0:
            return ()  # a schedule may rest on purpose
        found = self._stands_still(frame) or self._stalls_from_start(frame)
        return () if found is None else (found,)

    def _stands_still(self, frame: Frame) -> Finding | None:
        ratios = frame.weight_update_ratio[np.isfinite(frame.weight_update_ratio)]
        if ratios.size == 0 or not self._progress.never_moved(tolerance=self._tolerance):
            return None
        largest = float(ratios.max())
        if largest >= self._min_update_ratio:
            return None
        return Finding(
            kind="not_learning",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            value=largest,
            limit=self._min_update_ratio,
            unit="update ratio",
            message=f"no layer moves by more than {largest:.1e} of its size per step",
            advice="a higher learning rate; check the schedule, and that the loss is connected.",
        )

    def _stalls_from_start(self, frame: Frame) -> Finding | None:
        progress = self._progress
        if progress.steps < self._stall_steps:
            return None
        fall = progress.start - progress.best
        limit = max(self._tolerance * abs(progress.start), 2.0 * progress.noise)
        if fall > limit:
            return None
        return Finding(
            kind="not_learning",
            # A notice: alone, a flat loss is also an adversary's, a plateau's or a finished run's.
            severity=Severity.INFO,
            step=frame.step,
            epoch=frame.epoch,
            value=fall,
            limit=limit,
            unit="loss",
            message=f"the loss is {progress.recent:.3g} after {progress.steps} steps, "
            f"{progress.start:.3g} at the start",
            advice="overfit a single batch first; then check rate, targets and initialisation.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return self._progress.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._progress.load_state_dict(state)
