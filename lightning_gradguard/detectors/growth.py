"""Exploding in mid-run: a global norm that stays far above its own past."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lightning_gradguard.baseline import Baseline
from lightning_gradguard.checks import positive
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Growth"]


class Growth:
    """Judge the global norm, as the optimizer sees it, against what is usual in this run.

    Holds when it lies ``limit_decades`` and three scales above that for three observed steps in a
    row, while some layer moves by ``min_update_ratio`` per step.

    Args:
        limit_decades: Rise that counts, in factors of ten, beyond three scales.
        min_update_ratio: Relative update per step below which growth does no harm.
        warmup_steps: Observed steps before anything is judged.
        decay: Weight of the past in what is usual, in ``[0, 1)``.

    State:
        What is usual, and how long the norm has been high.
    """

    def __init__(
        self,
        *,
        limit_decades: float = 2.0,
        min_update_ratio: float = 0.1,
        warmup_steps: int = 20,
        decay: float = 0.98,
    ) -> None:
        self._limit = positive("limit_decades", limit_decades)
        self._min_update_ratio = positive("min_update_ratio", min_update_ratio)
        self._warmup = warmup_steps
        self._usual = Baseline(decay=decay)
        self._high_steps = 0

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        after = frame.global_grad_norm_at_update
        norm = frame.global_grad_norm if after is None else after
        if not 0.0 < norm < math.inf:
            self._high_steps = 0
            return None
        usual = self._usual
        limit = math.log10(usual.location) + self._limit + 3.0 * usual.scale
        is_high = usual.count >= self._warmup and math.log10(norm) > limit
        self._usual = usual.after(norm)
        self._high_steps = self._high_steps + 1 if is_high else 0
        ratios = frame.weight_update_ratio[np.isfinite(frame.weight_update_ratio)]
        is_harmless = ratios.size > 0 and ratios.max() < self._min_update_ratio
        if self._high_steps < 3 or is_harmless:
            return None
        return Finding(
            kind="exploding",
            rule="growth",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            value=norm,
            limit=10.0**limit,
            unit="global gradient norm",
            message=f"the global gradient norm is {norm:.3g}, usually about {usual.location:.3g}",
            advice="a lower learning rate or clip by norm, and look at the batch it began with.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"usual": self._usual.state_dict(), "high_steps": self._high_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._usual = self._usual.loaded(state["usual"])
        self._high_steps = state["high_steps"]
