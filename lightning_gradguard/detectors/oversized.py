"""Exploding at the update: a step as large as the weights that it changes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import judged, middle
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Vector

__all__ = ["Oversized"]

_FIRST_STEPS: Final = 3
"""Optimizers that divide by what they have seen take steps of full size before they have."""

_TINY: Final = 1e-2
"""Weights that are so much smaller than those of other layers begin at next to nothing."""

_LARGEST: Final = 1e300
"""Infinity cannot be written as JSON, and says no more."""

_ADVICE: Final = (
    "clip by norm, lower the learning rate, or start from weights that suit the "
    "activation; over time, a recurrent matrix of spectral radius one."
)


class Oversized:
    """Judge how far the applied update moved each layer's weights.

    Holds when an update changes a layer by more than ``max_update_ratio`` of its size two observed
    steps in a row, or once if it is a hundred times that, if half of several layers share it, or if
    the next loss is ten times the last. At the first three steps the limit is three times as high.

    Args:
        max_update_ratio: Update over weights, per step, that no layer survives for long.
        young_steps: Observed steps for which weights that started at next to nothing are left
            alone.

    State:
        Steps seen, which layers had a large update, which started at next to nothing, and the last
        loss.
    """

    def __init__(self, *, max_update_ratio: float = 1.0, young_steps: int = 20) -> None:
        self._limit = positive("max_update_ratio", max_update_ratio)
        self._young_steps = young_steps
        self._seen = 0
        self._large_for: dict[str, int] = {}
        self._young: dict[str, int] = {}
        self._last_large: dict[str, float] = {}
        self._last_loss: float | None = None

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        self._seen += 1
        self._note_young_layers(frame)
        limit = self._limit * (3.0 if self._seen <= _FIRST_STEPS else 1.0)
        ratio = np.where(judged(frame), frame.weight_update_ratio, np.nan)
        large = self._large(frame, ratio, limit)
        self._large_for = {layer: self._large_for.get(layer, 0) + 1 for layer in large}
        before, self._last_large = self._last_large, large
        jumped = self._loss_jumped(frame)
        known = ratio[~np.isnan(ratio)]
        is_shared = len(known) > 1 and bool(large) and middle(known) >= limit
        lasting = [
            layer
            for layer, steps in self._large_for.items()
            if steps >= 2 or is_shared or large[layer] >= 100.0 * limit
        ]
        if not lasting and before and jumped:
            large, lasting = before, list(before)
        return self._finding(frame, large, lasting) if lasting else None

    def _large(self, frame: Frame, ratio: Vector, limit: float) -> dict[str, float]:
        return {
            frame.layers[index]: min(float(ratio[index]), _LARGEST)
            for index in np.flatnonzero(ratio >= limit)
            if frame.layers[index] not in self._young
        }

    def _loss_jumped(self, frame: Frame) -> bool:
        """Whether the loss is ten times that of the step before."""
        before, self._last_loss = self._last_loss, frame.loss
        if before is None or frame.loss is None:
            return False
        return frame.loss > 10.0 * abs(before)

    def _note_young_layers(self, frame: Frame) -> None:
        """Keep in mind which weights began at next to nothing: any step is large for them."""
        norms = frame.weight_param_norm
        known = norms[np.isfinite(norms)]
        tiny = _TINY * middle(known) if self._seen == 1 and known.size else 0.0
        zero = {frame.layers[index] for index in np.flatnonzero(norms <= tiny)}
        older = {layer: left - 1 for layer, left in self._young.items() if left > 1}
        self._young = older | dict.fromkeys(zero, self._young_steps)

    def _finding(self, frame: Frame, large: dict[str, float], layers: list[str]) -> Finding:
        worst = max(layers, key=large.__getitem__)
        return Finding(
            kind="exploding",
            rule="update as large as the weights",
            severity=Severity.CRITICAL,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(layers),
            value=large[worst],
            limit=self._limit,
            unit="update ratio",
            message=f"one update changes {worst} by {times(large[worst])} its own size",
            advice=_ADVICE,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "seen": self._seen,
            "large_for": dict(self._large_for),
            "young": dict(self._young),
            "last_large": dict(self._last_large),
            "last_loss": self._last_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._seen, self._large_for = state["seen"], dict(state["large_for"])
        self._young = dict(state["young"])
        self._last_large, self._last_loss = dict(state["last_large"]), state["last_loss"]


def times(ratio: float) -> str:
    """Say a factor in few characters.

    Example:
        >>> times(2.0), times(123456.0)
        ('2.0 times', '1.2e+05 times')
    """
    return f"{ratio:.1f} times" if ratio < 1000.0 else f"{ratio:.1e} times"
