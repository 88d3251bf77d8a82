"""Vanishing over depth: only the layers near the loss learn."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import DepthProfile, depth_profile
from lightning_gradguard.detectors.driven import DrivenUpdates
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.detectors.signal import Signal
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Vector

__all__ = ["Shallow"]

_ADVICE: Final = (
    "batch or layer normalisation, skip connections together with it, or ReLU with He "
    "initialisation; clipping and a lower learning rate do not help."
)


_ADVICE_ON_INPUTS: Final = (
    "scaling the inputs to unit variance, or normalisation: the gradient does arrive at what the "
    "first layers put out, and what they are given is small."
)

_SIGNAL_IS_LOST: Final = 1.0
"""Decades that the gradient of layers' outputs loses from which on it is itself what vanishes."""

_MOST_DECADES: Final = 300.0
"""Stands for a gradient of zero: infinity cannot be written as JSON."""

_STALL_BLOCKS: Final = 2
"""The loss stalls when 40 steps are no better than the 40 before."""


class Shallow:
    """Judge whether gradients shrink on their way to the first layers, in the model or a branch.

    Holds when, from the first weight layer on, gradient over weight is ``limit_decades`` smaller
    than near the loss, and either an update moves these layers by ``max_update_ratio`` at most, not
    counting what weight decay does, or the loss stalls; or when it is ``mild_decades`` smaller in
    two layers or more while the loss has not moved since the start. Weights that are next to
    nothing still, a hundredth of the largest layer's, are left out.

    Args:
        limit_decades: Drop from the layers near the loss that counts, in factors of ten.
        mild_decades: Drop that counts while the loss has not moved since the start.
        max_update_ratio: Relative update per step above which a layer does learn.
        warmup_steps: Observed steps before anything is judged.

    State:
        Steps seen, the course of the loss, and the latest norms.
    """

    def __init__(
        self,
        *,
        limit_decades: float = 4.0,
        mild_decades: float = 2.0,
        max_update_ratio: float = 1e-4,
        warmup_steps: int = 5,
    ) -> None:
        self._limit = positive("limit_decades", limit_decades)
        self._mild_limit = min(positive("mild_decades", mild_decades), limit_decades)
        self._max_update_ratio = positive("max_update_ratio", max_update_ratio)
        self._warmup = warmup_steps
        self._progress = LossProgress()
        self._driven = DrivenUpdates()
        self._signal = Signal()
        self._seen = 0

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        self._seen += 1
        self._progress.update(frame.loss)
        self._driven.remember(frame)
        self._signal.update(frame)
        profile = depth_profile(frame)
        if self._seen <= self._warmup or profile is None or not frame.stepped:
            return None
        if not profile.spread >= self._mild_limit:
            return None
        driven = self._driven.ratio()
        for part in profile.parts(self._mild_limit):
            found = self._judge(frame, part, driven[part.index])
            if found is not None:
                return found
        return None

    def _judge(self, frame: Frame, profile: DepthProfile, moved: Vector) -> Finding | None:
        # Where the loss stalls, moving is no learning: Adam moves by noise, too.
        is_still = ~(moved > self._max_update_ratio) | self._progress.stalls(_STALL_BLOCKS)
        if not is_still[0] or not math.isfinite(profile.near_loss):
            return None
        drop = profile.near_loss - profile.decades
        # A small rate alone is no reason: the layers near the loss must be learning.
        is_stuck = moved[-1] > self._max_update_ratio and self._progress.never_moved()
        limit = self._mild_limit if is_stuck else self._limit
        below = (drop >= limit) & is_still
        count = int(np.argmin(below))  # never all of them: half of those near the loss are above
        # A single layer may be small for a reason of its own, as a factor before one of zeros.
        if count < (2 if is_stuck else 1):
            return None
        return Finding(
            kind="vanishing",
            rule="over depth",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=profile.layers[:count],
            value=min(float(drop[0]), _MOST_DECADES),
            limit=limit,
            unit="decades",
            message=_message(profile, float(drop[0]), float(np.nan_to_num(moved[0])))
            + _of_signal(lost := self._signal.lost(profile.layers)),
            advice=_ADVICE if lost is None or lost >= _SIGNAL_IS_LOST else _ADVICE_ON_INPUTS,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "seen": self._seen,
            "progress": self._progress.state_dict(),
            "driven": self._driven.state_dict(),
            "signal": self._signal.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._seen = state["seen"]
        self._progress.load_state_dict(state["progress"])
        self._driven.load_state_dict(state["driven"])
        self._signal.load_state_dict(state["signal"])


def _of_signal(lost: float | None) -> str:
    """Say what became of the gradient of layers' outputs, where steps were looked inside."""
    if lost is None:
        return ""
    return f"; the gradient of what layers put out loses {lost:.1f} decades over them"


def _message(profile: DepthProfile, drop: float, moved: float) -> str:
    where = f"near the end of {profile.branch}" if profile.branch else "near the loss"
    size = "zero" if math.isinf(drop) else f"10^{drop:.1f} times smaller than {where}"
    first = profile.layers[0]
    moves = f"an update moves {first} by {moved:.1e} of its size"
    if moved == 0.0:
        moves = f"an update does not move {first} at all"
    return f"gradient over weight is {size}; {moves}"
