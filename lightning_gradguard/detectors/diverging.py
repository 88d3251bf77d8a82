"""A loss that runs away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Diverging"]


class Diverging:
    """Find a loss that climbs above where it started, with weights on the run.

    Reports ``diverging`` when the median of the latest twenty losses lies above the highest of
    the first twenty by more than ``excess`` times that, while some layer moves by more than
    ``min_update_ratio`` per step.

    Is silent while updates are of ordinary size: a harder task, a second term that is turned on
    or an adversary raise a loss, too. A non-finite loss is for `NonFinite`.

    Costs one median per twenty steps.

    Args:
        excess: Rise above the start that counts, relative to it.
        min_update_ratio: Relative update per step below which a rate is not to blame.
        patience_steps: Observed steps in a row before a finding is reported.

    State:
        The course of the loss.

    Example:
        >>> Diverging().patience_steps_by_kind
        {'diverging': 10}
    """

    def __init__(
        self, *, excess: float = 0.5, min_update_ratio: float = 0.1, patience_steps: int = 10
    ) -> None:
        if not excess > 0.0:
            msg = f"`excess` must be positive, got {excess!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"diverging": patience_steps}
        self._excess, self._min_update_ratio = excess, min_update_ratio
        self._progress = LossProgress()

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding."""
        self._progress.update(frame.loss)
        progress = self._progress
        ratios = frame.weight_update_ratio[np.isfinite(frame.weight_update_ratio)]
        if frame.has_nonfinite or ratios.size == 0 or math.isnan(progress.recent):
            return ()
        start = progress.start_high
        limit = start + max(self._excess * abs(start), 4.0 * progress.noise)
        if progress.recent <= limit or float(ratios.max()) < self._min_update_ratio:
            return ()
        return [
            Finding(
                kind="diverging",
                severity=Severity.ERROR,
                step=frame.step,
                epoch=frame.epoch,
                value=progress.recent,
                limit=limit,
                unit="loss",
                message=f"the loss is about {progress.recent:.3g}, above the {start:.3g} "
                "where it started",
                advice="a lower learning rate, nearly always; else warm-up.",
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return self._progress.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._progress.load_state_dict(state)
