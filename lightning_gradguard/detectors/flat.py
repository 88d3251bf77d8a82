"""A loss that stays where it was, whatever the updates do."""

from __future__ import annotations

from typing import Any

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Flat"]


class Flat:
    """Judge the loss alone, which is worth a notice and no more.

    An adversary's loss, a plateau's and a finished run's are flat, too.

    Args:
        stall_steps: Length of a plateau at the start that is too long.
        tolerance: Smallest fall of the loss that counts as progress, relative to its level.
    """

    def __init__(self, *, stall_steps: int = 3000, tolerance: float = 0.01) -> None:
        self._stall_steps = positive("stall_steps", stall_steps)
        self._tolerance = tolerance

    def update(self, frame: Frame, progress: LossProgress) -> Finding | None:
        """Return a finding while the rule holds."""
        if progress.steps < self._stall_steps:
            return None
        fall = progress.start - progress.best
        limit = max(self._tolerance * abs(progress.start), 2.0 * progress.noise)
        if fall > limit:
            return None
        return Finding(
            kind="not_learning",
            rule="flat",
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
        """Return nothing: the course of the loss is kept by whoever asks."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""
