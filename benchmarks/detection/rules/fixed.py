"""Fixed limits of gradient norms, as small packages have them.

Source: gradscope 0.1.0 (norm of a parameter's gradient below 1e-8 or above 1e3; loss not finite)
and trainpulse 0.4.0 (global norm above zero and below 1e-7; norm or loss not finite).

Left out: gradscope's notes on spikes, z-scores and differences between layers, and trainpulse's
global limit of 100 and plateau of 100 steps, as they would add more false alarms than findings;
neuraldbg 1.3.2, whose limits of 1e-6 and 1e3 are of the same kind. Their limits on how often an
alarm is repeated change nothing here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.detection.record import Record
from benchmarks.detection.rules.alarm import Alarm, at, in_order

__all__ = ["FixedThresholds"]


class FixedThresholds:
    """Compares norms with constants, at every step."""

    name: Final = "fixed thresholds"

    def judge(self, record: Record) -> list[Alarm]:
        """Replay a training."""
        steps, norms = record.steps, record.parameters.grad_norm
        total = np.sqrt(np.nansum(np.square(norms, dtype=np.float64), axis=1))
        is_bad = np.isinf(norms).any(axis=1) | ~np.isfinite(record.losses)
        return in_order(
            at(steps, norms < 1e-8, "vanishing", "gradscope: vanish_gradient")
            | at(steps, (total > 0.0) & (total < 1e-7), "vanishing", "trainpulse: gradient")
            | at(steps, (norms > 1e3) & np.isfinite(norms), "exploding", "gradscope: explode")
            | at(steps, is_bad, "nonfinite", "gradscope, trainpulse: not finite")
        )
