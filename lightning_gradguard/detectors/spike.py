"""A gradient far above what is usual, for a moment: a notice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lightning_gradguard.baseline import Baseline
from lightning_gradguard.checks import positive
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Spike"]


class Spike:
    """Notice a global norm far above its own past.

    Reports ``spike``, a notice, when the norm before clipping lies ``z_threshold`` scales and
    ``times`` above what is usual in this run. What lasts and does harm is for `Exploding`.

    Is silent during warm-up, and when the norm is zero or not finite.

    Costs a logarithm per step.

    Args:
        z_threshold: Distance that counts, in scales of the run's own quiet part.
        times: Factor over what is usual that it must be, too.
        warmup_steps: Observed steps before anything is judged.
        decay: Weight of the past in what is usual, in ``[0, 1)``.

    State:
        What is usual.

    Example:
        >>> Spike(z_threshold=8.0).patience_steps_by_kind
        {'spike': 1}
    """

    def __init__(
        self,
        *,
        z_threshold: float = 6.0,
        times: float = 5.0,
        warmup_steps: int = 50,
        decay: float = 0.98,
    ) -> None:
        self.patience_steps_by_kind = {"spike": 1}
        self._z_threshold = positive("z_threshold", z_threshold)
        self._times = positive("times", times)
        self._warmup = warmup_steps
        self._usual = Baseline(decay=decay)

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one notice."""
        norm, usual = frame.global_grad_norm, self._usual
        self._usual = usual.after(norm)
        if usual.count < self._warmup or not norm < math.inf:
            return ()
        z = usual.z_score(norm)
        if z < self._z_threshold or norm < self._times * usual.location:
            return ()
        return [
            Finding(
                kind="spike",
                severity=Severity.INFO,
                step=frame.step,
                epoch=frame.epoch,
                value=z,
                limit=self._z_threshold,
                unit="scales",
                message=f"gradient norm {norm:.3g}, usually about {usual.location:.3g} "
                f"(z = {z:.1f})",
                advice="look at the batch it came with; if spikes are many, clip by norm.",
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"usual": self._usual.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._usual = self._usual.loaded(state["usual"])
