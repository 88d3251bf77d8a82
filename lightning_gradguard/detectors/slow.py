"""Layers that stand still or crawl, and a loss that does not move for it."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Slow"]

_OVERFLOWS: Final = 1e18
"""The square of such a gradient is infinite in float32, and Adam then divides by it."""

_TOO_LARGE: Final = "scale the loss down: the squares of its gradients overflow in the optimizer."

_TOO_SLOW: Final = "a higher learning rate; check the schedule, and that the loss is connected."


class Slow:
    """Judge whether updates are too small to matter.

    Holds when the loss has not moved since the start and no layer moves by more than
    ``min_update_ratio`` of its size per step. And, as a warning, when after 60 steps it has fallen
    by less than a tenth and no layer moved by more than ``sure_speed`` at any of the last 20; or by
    no more than ``min_speed`` while the loss does fall, if slowly. Where it does not, what was
    trained before may merely be trained on, as in fine-tuning.

    Args:
        min_update_ratio: Relative update per step below which weights stand still; half a
            million such steps would not change them by a tenth.
        min_speed: The same for the warning, while the loss falls by more than its noise.
        sure_speed: The same, whatever the loss does; 10,000 such steps change weights by a tenth.
        tolerance: Smallest fall of the loss that counts as progress for those that stand still,
            relative to its level.

    State:
        How fast the fastest layer was lately.
    """

    def __init__(
        self,
        *,
        min_update_ratio: float = 2e-7,
        min_speed: float = 2e-4,
        sure_speed: float = 1e-5,
        tolerance: float = 0.01,
    ) -> None:
        self._min_update_ratio = positive("min_update_ratio", min_update_ratio)
        self._min_speed = positive("min_speed", min_speed)
        self._sure_speed = min(positive("sure_speed", sure_speed), min_speed)
        self._tolerance = tolerance
        self._fastest: deque[float] = deque(maxlen=20)

    def update(self, frame: Frame, progress: LossProgress) -> Finding | None:
        """Return a finding while the rule holds."""
        ratios = frame.weight_update_ratio[np.isfinite(frame.weight_update_ratio)]
        largest = float(ratios.max()) if ratios.size else 0.0
        self._fastest.append(min(1.0, largest))
        is_flat = progress.never_moved(steps=10, tolerance=self._tolerance)
        if ratios.size and largest < self._min_update_ratio and is_flat:
            return self._still(frame, largest)
        fastest = max(self._fastest)
        if fastest >= self._min_speed or not progress.never_moved(steps=60, tolerance=0.1):
            return None
        if fastest >= self._sure_speed and not progress.has_gained(tolerance=0.01, noises=2.0):
            return None
        return self._crawling(frame, fastest, progress)

    def _still(self, frame: Frame, largest: float) -> Finding:
        return Finding(
            kind="not_learning",
            rule="still",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            value=largest,
            limit=self._min_update_ratio,
            unit="update ratio",
            message=f"no layer moves by more than {largest:.1e} of its size per step, and the "
            "loss has not moved",
            advice=_TOO_LARGE if frame.global_grad_norm > _OVERFLOWS else _TOO_SLOW,
        )

    def _crawling(self, frame: Frame, fastest: float, progress: LossProgress) -> Finding:
        return Finding(
            kind="not_learning",
            rule="crawling",
            severity=Severity.WARNING,
            step=frame.step,
            epoch=frame.epoch,
            value=fastest,
            limit=self._min_speed,
            unit="update ratio",
            message=f"no layer moves by more than {fastest:.1e} of its size per step, and the "
            f"loss is {progress.recent:.3g} after {progress.steps}, {progress.start:.3g} at first",
            advice="a higher learning rate; check the schedule, and whether gradients are cut off.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"fastest": list(self._fastest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._fastest = deque(state["fastest"], maxlen=20)
