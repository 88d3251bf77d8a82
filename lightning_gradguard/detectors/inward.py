"""Exploding over depth or time: gradients grow on their way to the input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import DepthProfile, depth_profile, middle
from lightning_gradguard.detectors.over_time import decades_over_time
from lightning_gradguard.detectors.oversized import times
from lightning_gradguard.detectors.signal import Signal
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Inward"]


class Inward:
    """Judge whether gradients grow toward the first layers or the first time steps.

    Holds when gradient over weight is ``limit_decades`` larger at the first layers than near the
    loss, in the model or a branch, or the gradient at the first time steps of a recurrent layer
    than at the last, while an update moves these layers by ``min_update_ratio``.

    Args:
        limit_decades: Excess that counts, in factors of ten.
        min_update_ratio: Relative update per step below which growth does no harm.

    State:
        The latest gradients of layers' outputs.
    """

    def __init__(self, *, limit_decades: float = 2.0, min_update_ratio: float = 0.1) -> None:
        self._limit = positive("limit_decades", limit_decades)
        self._min_update_ratio = positive("min_update_ratio", min_update_ratio)
        self._signal = Signal()

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        self._signal.update(frame)
        profile = depth_profile(frame)
        for part in () if profile is None else profile.parts(self._limit):
            found = self._over_depth(frame, part)
            if found is not None:
                return found
        return self._over_time(frame)

    def _over_depth(self, frame: Frame, profile: DepthProfile) -> Finding | None:
        quarter = max(1, len(profile.decades) // 4)
        moved = middle(profile.update_ratio[:quarter])
        if not moved >= self._min_update_ratio or not math.isfinite(profile.near_loss):
            return None
        excess = profile.decades - profile.near_loss
        early = middle(excess[:quarter])
        if early < self._limit:
            return None
        return Finding(
            kind="exploding",
            rule="over depth",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(np.array(profile.layers)[excess >= self._limit].tolist()),
            value=early,
            limit=self._limit,
            unit="decades",
            message=(
                f"gradient over weight is 10^{early:.1f} times that near the loss, and an update "
                f"moves {profile.layers[0]} by {times(profile.update_ratio[0])} its size"
                f"{_of_signal(self._signal.lost(profile.layers))}"
            ),
            advice=(
                "an initialisation that keeps the scale (Xavier or He), or skip connections with "
                "normalisation; batch normalisation without skips makes deep networks do this."
            ),
        )

    def _over_time(self, frame: Frame) -> Finding | None:
        if not frame.time_profiles:
            return None
        moved = dict(zip(frame.layers, frame.weight_update_ratio.tolist(), strict=True))
        for layer, profile in frame.time_profiles.items():
            excess = -decades_over_time(profile)
            if excess >= self._limit and moved.get(layer, 0.0) >= self._min_update_ratio:
                # The early quarter lies three quarters of all steps before the late one.
                rate = excess / (0.75 * len(profile))
                return self._of_time(frame, layer, excess, rate, moved[layer])
        return None

    def _of_time(
        self, frame: Frame, layer: str, excess: float, rate: float, moved: float
    ) -> Finding:
        return Finding(
            kind="exploding",
            rule="over time",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=(layer,),
            value=excess,
            limit=self._limit,
            unit="decades",
            message=(
                f"the gradient grows {rate:.2g} decades per time step on its way back, to "
                f"10^{excess:.1f} times, and an update moves it by {times(moved)} its size"
            ),
            advice=(
                "clip by norm, or start from a recurrent matrix of spectral radius one "
                "(orthogonal)."
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"signal": self._signal.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._signal.load_state_dict(state["signal"])


def _of_signal(lost: float | None) -> str:
    """Say what became of the gradient of layers' outputs, where steps were looked inside."""
    if lost is None:
        return ""
    return f"; the gradient of what layers put out grows by {-lost:.1f} decades toward the input"
