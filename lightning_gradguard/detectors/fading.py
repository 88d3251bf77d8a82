"""Vanishing late in a run: a gradient that was there fades, and the loss does not get better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lightning_gradguard.baseline import Baseline
from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import depth_profile
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Fading"]


class Fading:
    """Judge the gradient of the first half of the layers against its own past.

    Holds when it lies ``limit_decades`` and six scales below what is usual in this run while the
    loss is worse than it was: then it is no convergence, in which both fall together.

    Args:
        limit_decades: Fall that counts, in factors of ten.
        excess: How much worse than its best the loss must be, relative to that; and by more than
            its own noise.
        warmup_steps: Observed steps before anything is judged.

    State:
        What is usual, and the course of the loss.
    """

    def __init__(
        self, *, limit_decades: float = 1.5, excess: float = 0.2, warmup_steps: int = 50
    ) -> None:
        self._limit, self._excess = positive("limit_decades", limit_decades), excess
        self._warmup = warmup_steps
        self._usual = Baseline(decay=0.99, floor=0.1)
        self._progress = LossProgress()

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        self._progress.update(frame.loss)
        profile = depth_profile(frame)
        if profile is None or not frame.stepped:
            return None
        first_half = profile.index[: (len(profile.index) + 1) // 2]
        norm = float(np.sqrt(np.sum(frame.weight_grad_norm[first_half] ** 2)))
        usual = self._usual
        z = usual.z_score(norm) if norm > 0.0 else -math.inf
        self._usual = usual.after(norm)
        is_worse = self._progress.is_worse(excess=self._excess)
        if usual.count < self._warmup or z > -6.0 or not is_worse:
            return None
        fall = math.log10(usual.location / norm) if norm > 0.0 else math.inf
        if fall < self._limit:
            return None
        return Finding(
            kind="vanishing",
            rule="late",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(frame.layers[i] for i in first_half),
            value=min(fall, 300.0),  # infinity cannot be written as JSON
            limit=self._limit,
            unit="decades",
            message=f"the gradient of the first layers is {_size(fall)} in this run, and the loss "
            "got worse",
            advice="look at what changed: too much weight decay shrinks the weights, and a step "
            "that was too large kills or saturates the units (a lower learning rate, "
            "normalisation).",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "usual": self._usual.state_dict(),
            "progress": self._progress.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._usual = self._usual.loaded(state["usual"])
        self._progress.load_state_dict(state["progress"])


def _size(fall: float) -> str:
    if math.isinf(fall):
        return "zero, as it never was"
    return f"10^{fall:.1f} times smaller than it was"
