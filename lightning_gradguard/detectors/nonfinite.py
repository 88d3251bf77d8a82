"""NaN and infinity: the simplest detector, and the one to read before writing your own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from lightning_gradguard.baseline import Baseline
from lightning_gradguard.findings import Finding, Severity, layer_phrase
from lightning_gradguard.frame import Frame

__all__ = ["NonFinite"]

_RECENT: Final = 100
"""Steps over which the rate of refused ones is told."""


class NonFinite:
    """Find gradients or a loss that are NaN or infinite.

    Reports ``nonfinite`` at once, with the layer where it began: the last in depth order whose
    gradient is bad, since gradients travel backward; and with what brought it: the batch, weights
    that were broken before, the loss, or the backward pass. When the loss is finite and the
    optimizer did not step because a gradient scaler refused, it is the notice ``amp_overflow``
    instead: normal life of float16, unless it goes on for ``max_refused_steps``.

    Is silent when every gradient and the loss are finite, however large.

    Costs nothing beyond the exact count in the frame.

    Args:
        max_refused_steps: Steps in a row that a scaler may refuse; from its usual start at
            65,536 it has halved down to one after 16.

    State:
        The first and the last finite norm, and how many steps were refused since.

    Example:
        >>> NonFinite().patience_steps_by_kind
        {'nonfinite': 1}
    """

    def __init__(self, *, max_refused_steps: int = 30) -> None:
        self._max_refused = max_refused_steps
        self._refused = 0
        self.patience_steps_by_kind = {"nonfinite": 1}
        self._usual = Baseline()
        self._last_norm = 0.0
        self._last_step = -1
        self._recent: deque[bool] = deque(maxlen=_RECENT)

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return one finding while anything is not finite."""
        self._recent.append(frame.has_nonfinite and frame.has_scaler and not frame.stepped)
        if not frame.has_nonfinite:
            self._remember(frame)
            self._refused = 0
            return ()
        bad = tuple(
            layer for layer, n in zip(frame.layers, frame.num_nonfinite, strict=True) if n > 0
        )
        loss_is_bad = frame.loss is not None and not math.isfinite(frame.loss)
        self._refused = 0 if frame.stepped else self._refused + 1
        refused = frame.has_scaler and not frame.stepped
        if not refused or loss_is_bad or self._refused > self._max_refused:
            return [self._nonfinite(frame, bad)]
        return [self._overflow(frame, bad)]

    def _remember(self, frame: Frame) -> None:
        self._usual = self._usual.after(frame.global_grad_norm)
        self._last_norm, self._last_step = frame.global_grad_norm, frame.step

    @property
    def _last_good(self) -> str:
        if self._last_step < 0:
            return "no earlier step was finite"
        return f"last finite at step {self._last_step}, with gradient norm {self._last_norm:.3g}"

    def _nonfinite(self, frame: Frame, bad: tuple[str, ...]) -> Finding:
        rule, where, advice = self._origin(frame, bad)
        has_exploded = self._usual.count > 0 and self._last_norm > 100.0 * self._usual.location
        if rule in {"loss", "backward"} and has_exploded:
            advice = "the gradients had exploded before: clip by norm, or a lower learning rate."
        return Finding(
            kind="nonfinite",
            rule=rule,
            severity=Severity.CRITICAL,
            step=frame.step,
            epoch=frame.epoch,
            layers=bad,
            value=max(1.0, sum(n for n in frame.num_nonfinite.tolist() if n > 0)),
            limit=0.0,
            unit="numbers",
            message=f"{where}; {self._last_good}",
            advice=advice,
        )

    def _origin(self, frame: Frame, bad: tuple[str, ...]) -> tuple[str, str, str]:
        """Return what brought it, in words, and what to look at: causes before symptoms."""
        broken = np.flatnonzero(np.isnan(frame.param_norm) & ~np.isnan(frame.num_nonfinite))
        broken = np.union1d(broken, np.flatnonzero(np.isinf(frame.param_norm)))
        if frame.batch_is_finite is False:
            where = "the batch itself holds numbers that are not finite"
            return "data", where, "look at the data: missing values, a division in its preparation."
        if broken.size:
            names = layer_phrase([frame.layers[i] for i in broken])
            where = f"the weights of {names} were not finite before this step"
            return "weights", where, "go back to a checkpoint before the first such step."
        if frame.loss is not None and not math.isfinite(frame.loss):
            where = f"the loss is {frame.loss}, from a batch that is finite"
            if frame.batch_is_finite is None:
                where = f"the loss is {frame.loss}"
            advice = "look at the batch and at the forward pass: log, division, overflow."
            return "loss", where, advice
        if frame.has_scaler and not frame.stepped:
            where = f"the gradient scaler has refused {self._refused} steps in a row"
            return (
                "overflow",
                where,
                "look for what overflows in float16; bfloat16 needs no scaler.",
            )
        where = f"the loss is finite, the gradient breaks first in {bad[-1]}"
        advice = f"look at the backward pass of {bad[-1]}: square roots and norms at zero."
        return "backward", where, advice

    def _overflow(self, frame: Frame, bad: tuple[str, ...]) -> Finding:
        share = sum(self._recent) / len(self._recent)
        return Finding(
            kind="amp_overflow",
            severity=Severity.INFO,
            step=frame.step,
            epoch=frame.epoch,
            layers=bad,
            value=share,
            unit="share of steps",
            message="the gradient scaler skipped a step that overflowed, as "
            f"{sum(self._recent)} of the last {len(self._recent)}",
            advice="nothing to do unless it happens all the time.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "usual": self._usual.state_dict(),
            "last_norm": self._last_norm,
            "last_step": self._last_step,
            "refused": self._refused,
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._usual = self._usual.loaded(state["usual"])
        self._last_norm = state["last_norm"]
        self._last_step, self._refused = state["last_step"], state["refused"]
        self._recent = deque(state["recent"], maxlen=_RECENT)
