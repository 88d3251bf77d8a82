"""Gradients that shrink on the way to the early layers or the early time steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from lightning_gradguard.detectors.depth import DepthProfile, depth_profile
from lightning_gradguard.detectors.over_time import decades_over_time
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Vector

__all__ = ["Vanishing"]

_DEPTH_ADVICE: Final = (
    "batch or layer normalisation, skip connections together with it, or ReLU with He "
    "initialisation; clipping and a lower learning rate do not help."
)
_TIME_ADVICE: Final = (
    "a GRU, or an LSTM whose forget bias starts high, or an orthogonal recurrent matrix; "
    "clipping and a lower learning rate do not help."
)

_SAMPLES: Final = 20
"""Profiles over time whose median is judged: single ones swing by two decades."""


class Vanishing:
    """Find early layers or early time steps that get next to no gradient.

    Reports ``vanishing`` when, from the first weight layer on, gradient over weight is
    ``limit_decades`` smaller than near the loss and so is the applied update over weight,
    ``max_update_ratio`` per step at most; when both are ``mild_decades`` smaller and the loss has
    not moved since the start; or when the gradient of a recurrent layer's input is
    ``time_limit_decades`` smaller at the early time steps than at the late ones while the loss
    stalls.

    Is silent when all layers shrink together (convergence, a schedule's end, a small loss), when
    the update still moves the weights (Adam divides the scale out), during warm-up, and about
    biases, norm layers and frozen weights. An untrained LSTM looks vanished over time; hence the
    warm-up and the stalled loss.

    Costs a few operations on vectors of one number per layer.

    Args:
        limit_decades: Drop from the layers near the loss that counts, in factors of ten.
            Healthy reference runs stay below one.
        mild_decades: Drop that counts while the loss has not moved since the start.
        max_update_ratio: Relative update per step above which a layer does learn.
        warmup_steps: Observed steps before depth is judged.
        patience_steps: Observed steps in a row before a finding is reported.
        time_limit_decades: Drop from the last to the first quarter of the time steps, median
            over recent samples, in factors of ten.
        time_warmup_steps: Observed steps before time is judged.
        stall_blocks: The loss stalls when this many blocks of 20 steps are no better than as
            many before them.

    State:
        The course of the loss and the recent drops over time.

    Example:
        >>> Vanishing(limit_decades=3.0).patience_steps_by_kind
        {'vanishing': 10}
    """

    def __init__(
        self,
        *,
        limit_decades: float = 4.0,
        mild_decades: float = 2.0,
        max_update_ratio: float = 1e-4,
        warmup_steps: int = 10,
        patience_steps: int = 10,
        time_limit_decades: float = 4.0,
        time_warmup_steps: int = 500,
        stall_blocks: int = 5,
    ) -> None:
        for name, value in (
            ("limit_decades", limit_decades),
            ("mild_decades", mild_decades),
            ("max_update_ratio", max_update_ratio),
            ("time_limit_decades", time_limit_decades),
        ):
            if not value > 0.0:
                msg = f"`{name}` must be positive, got {value!r}."
                raise ValueError(msg)
        if stall_blocks < 1:
            msg = f"`stall_blocks` must be at least 1, got {stall_blocks!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"vanishing": patience_steps}
        self._limit, self._mild_limit = limit_decades, min(mild_decades, limit_decades)
        self._time_limit = time_limit_decades
        self._max_update_ratio = max_update_ratio
        self._warmup, self._time_warmup = warmup_steps, time_warmup_steps
        self._stall_blocks = stall_blocks
        self._progress = LossProgress()
        self._drops: dict[str, deque[float]] = {}
        self._seen = 0

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding: over depth, or else over time."""
        self._seen += 1
        self._progress.update(frame.loss)
        self._learn_time(frame)
        finding = self._over_depth(frame) if self._seen > self._warmup else None
        if finding is None and self._seen > self._time_warmup:
            finding = self._over_time(frame)
        return () if finding is None else (finding,)

    def _over_depth(self, frame: Frame) -> Finding | None:
        profile = depth_profile(frame)
        if profile is None or not frame.stepped or self._moves(profile.update_ratio[0]):
            return None
        if not math.isfinite(profile.near_loss):
            return None
        drop = profile.near_loss - profile.decades
        limit = self._mild_limit if self._is_stuck(profile) else self._limit
        count = self._first_layers_below(profile, drop, limit)
        if count == 0:
            return None
        deepest = float(drop[0])
        return Finding(
            kind="vanishing",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=profile.layers[:count],
            value=deepest,
            limit=limit,
            unit="decades",
            message=_depth_message(profile, deepest),
            advice=_DEPTH_ADVICE,
        )

    def _is_stuck(self, profile: DepthProfile) -> bool:
        """Whether the loss never moved although the last layer does, so not for a small rate."""
        return self._moves(profile.update_ratio[-1]) and self._progress.never_moved()

    def _moves(self, update_ratio: float) -> bool:
        return bool(update_ratio > self._max_update_ratio)

    def _first_layers_below(self, profile: DepthProfile, drop: Vector, limit: float) -> int:
        """Count layers, from the input on, whose gradient is too small and which stand still."""
        still = ~(profile.update_ratio > self._max_update_ratio)
        below = (drop >= limit) & still
        return int(np.argmin(below))  # never all of them: half of those near the loss are above

    def _learn_time(self, frame: Frame) -> None:
        for layer, profile in frame.time_profiles.items():
            decades = decades_over_time(profile)
            if not math.isnan(decades):
                self._drops.setdefault(layer, deque(maxlen=_SAMPLES)).append(decades)

    def _over_time(self, frame: Frame) -> Finding | None:
        if not self._progress.stalls(self._stall_blocks):
            return None
        for layer, drops in self._drops.items():
            drop = float(np.median(drops))
            if len(drops) == drops.maxlen and drop >= self._time_limit:
                return Finding(
                    kind="vanishing",
                    severity=Severity.ERROR,
                    step=frame.step,
                    epoch=frame.epoch,
                    layers=(layer,),
                    value=drop,
                    limit=self._time_limit,
                    unit="decades",
                    message=(
                        f"the gradient at its first time steps is 10^{drop:.1f} times smaller than "
                        "at the last ones, and the loss stalls"
                    ),
                    advice=_TIME_ADVICE,
                )
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "seen": self._seen,
            "progress": self._progress.state_dict(),
            "drops": {layer: list(drops) for layer, drops in self._drops.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._seen = state["seen"]
        self._progress.load_state_dict(state["progress"])
        self._drops = {
            name: deque(drops, maxlen=_SAMPLES) for name, drops in state["drops"].items()
        }


def _depth_message(profile: DepthProfile, drop: float) -> str:
    size = "zero" if math.isinf(drop) else f"10^{drop:.1f} times smaller than near the loss"
    ratio = float(np.nan_to_num(profile.update_ratio[0]))
    moves = f"an update moves {profile.layers[0]} by {ratio:.1e} of its size"
    if ratio == 0.0:
        moves = f"an update does not move {profile.layers[0]} at all"
    return f"gradient over weight is {size}; {moves}"
