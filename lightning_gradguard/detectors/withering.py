"""Weights that shrink to nothing while nothing is learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import middle
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Vector

__all__ = ["Withering"]


class Withering:
    """Judge the weights against their own start.

    Holds when half of the weight matrices, embeddings among them, have shrunk by ``times`` and the
    loss has never moved. What weight decay takes from a model that learns, gradients give back.

    Args:
        times: Factor by which weights must have shrunk.

    State:
        How large the weights were when first seen.
    """

    def __init__(self, *, times: float = 10.0) -> None:
        self._times = positive("times", times)
        self._first: Vector | None = None
        self._layers: tuple[str, ...] = ()

    def update(self, frame: Frame, progress: LossProgress) -> Finding | None:
        """Return a finding while the rule holds."""
        norms = frame.weight_param_norm
        if self._first is None or self._layers != frame.layers:
            self._first, self._layers = norms, frame.layers
        known = (self._first > 0.0) & np.isfinite(norms)
        if not known.any() or not progress.never_moved(steps=40):
            return None
        left = middle(norms[known] / self._first[known])
        if left * self._times > 1.0:
            return None
        return Finding(
            kind="not_learning",
            rule="withering",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            value=left,
            limit=1.0 / self._times,
            unit="share of the first weights",
            message=f"weights have shrunk to {left:.1e} of what they were, and the loss has not "
            "moved",
            advice="less weight decay: it outweighs what the loss asks for.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        first = self._first
        known = None if first is None else [x if np.isfinite(x) else None for x in first.tolist()]
        return {"first": known, "layers": list(self._layers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        first, self._layers = state["first"], tuple(state["layers"])
        self._first = None if first is None else np.array(first, dtype=np.float64)
