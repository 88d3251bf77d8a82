"""Gradients that grow until a step destroys the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradguard.detectors.depth import depth_profile
from lightning_gradguard.detectors.over_time import decades_over_time
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame
from lightning_gradguard.moments import Moments, updated

__all__ = ["Exploding"]


class Exploding:
    """Find gradients that are too large for the weights they change.

    Reports ``exploding`` when one update changes a layer's weights by more than
    ``max_update_ratio`` of their size two observed steps in a row, or once if it is a hundred
    times that or the next loss is ten times the last; when gradient over weight is
    ``limit_decades`` larger at the first layers than near the loss, or at the first time steps of
    a recurrent layer than at the last; or when the global norm stays ``growth_decades`` above its
    own past. The last three count only if an update is a tenth of ``max_update_ratio``.

    Is silent when clipping or a small rate keeps the applied update in bounds, however large
    the gradient, about weights that start at zero, and about a single outlier.

    Costs a few operations on vectors of one number per layer.

    Args:
        max_update_ratio: Update over weights, per step, that no layer survives for long.
        limit_decades: Excess of the first layers over those near the loss, or of the first time
            steps over the last, in factors of ten.
        growth_decades: Rise of the global norm over its past, in factors of ten.
        warmup_steps: Observed steps before growth is judged, and before the update of weights
            that start at zero is.
        decay: Weight of the past in that comparison, in ``[0, 1)``.

    State:
        Moments of the global norm's logarithm, and how long it has been high.

    Example:
        >>> Exploding(max_update_ratio=0.5).patience_steps_by_kind
        {'exploding': 1}
    """

    def __init__(
        self,
        *,
        max_update_ratio: float = 1.0,
        limit_decades: float = 2.0,
        growth_decades: float = 2.0,
        warmup_steps: int = 20,
        decay: float = 0.98,
    ) -> None:
        if not max_update_ratio > 0.0:
            msg = f"`max_update_ratio` must be positive, got {max_update_ratio!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"exploding": 1}
        self._max_update_ratio = max_update_ratio
        self._limit, self._growth = limit_decades, growth_decades
        self._warmup, self._decay = warmup_steps, decay
        self._log_norm = Moments()
        self._high_steps = 0
        self._large_updates: dict[str, int] = {}
        self._young: dict[str, int] = {}
        self._last_large: dict[str, float] = {}
        self._last_loss: float | None = None

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding, the most direct evidence first."""
        if frame.has_nonfinite:
            return ()  # NonFinite speaks about these
        found = (
            self._by_update(frame),
            self._by_depth(frame),
            self._by_time(frame),
            self._by_growth(frame),
        )
        return [finding for finding in found if finding is not None][:1]

    def _by_update(self, frame: Frame) -> Finding | None:
        """Judge how far the applied update moved each layer's weights."""
        self._note_young_layers(frame)
        ratio = frame.weight_update_ratio
        large = {
            frame.layers[index]: float(ratio[index])
            for index in np.flatnonzero(ratio >= self._max_update_ratio)
            if frame.layers[index] not in self._young
        }
        self._large_updates = {layer: self._large_updates.get(layer, 0) + 1 for layer in large}
        lasting = [
            layer
            for layer, steps in self._large_updates.items()
            if steps >= 2 or large[layer] >= 100.0 * self._max_update_ratio
        ]
        before, self._last_large = self._last_large, large
        jumped = self._loss_jumped(frame)
        if not lasting and before and jumped:
            large, lasting = before, list(before)
        if not lasting:
            return None
        worst = max(lasting, key=large.__getitem__)
        return Finding(
            kind="exploding",
            severity=Severity.CRITICAL,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(lasting),
            value=large[worst],
            limit=self._max_update_ratio,
            unit="update ratio",
            message=f"one update changes {worst} by {_times(large[worst])} its own size",
            advice=(
                "clip by norm, lower the learning rate, or start from weights that suit the "
                "activation; over time, a recurrent matrix of spectral radius one."
            ),
        )

    def _loss_jumped(self, frame: Frame) -> bool:
        """Whether the loss is ten times that of the step before."""
        before, self._last_loss = self._last_loss, frame.loss
        if before is None or frame.loss is None:
            return False
        return frame.loss > 10.0 * abs(before)

    def _note_young_layers(self, frame: Frame) -> None:
        """Keep in mind which weights were zero a little while ago: any step is large for them."""
        zero = {frame.layers[index] for index in np.flatnonzero(frame.weight_param_norm == 0.0)}
        older = {layer: left - 1 for layer, left in self._young.items() if left > 1}
        self._young = older | dict.fromkeys(zero, self._warmup)

    def _by_depth(self, frame: Frame) -> Finding | None:
        """Judge whether gradients grow on their way to the input."""
        profile = depth_profile(frame)
        if profile is None:
            return None
        quarter = max(1, len(profile.decades) // 4)
        moved = float(np.median(profile.update_ratio[:quarter]))
        if not moved >= self._max_update_ratio / 10.0 or not math.isfinite(profile.near_loss):
            return None
        excess = profile.decades - profile.near_loss
        early = float(np.median(excess[:quarter]))
        if early < self._limit:
            return None
        return Finding(
            kind="exploding",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(np.array(profile.layers)[excess >= self._limit].tolist()),
            value=early,
            limit=self._limit,
            unit="decades",
            message=(
                f"gradient over weight is 10^{early:.1f} times that near the loss, and an update "
                f"moves {profile.layers[0]} by {_times(profile.update_ratio[0])} its size"
            ),
            advice=(
                "skip connections with normalisation, or an initialisation that keeps the "
                "scale; batch normalisation without skips makes deep networks do this."
            ),
        )

    def _by_time(self, frame: Frame) -> Finding | None:
        """Judge whether gradients grow on their way to the first time steps."""
        if not frame.time_profiles:
            return None
        moved = dict(zip(frame.layers, frame.weight_update_ratio.tolist(), strict=True))
        for layer, profile in frame.time_profiles.items():
            excess = -decades_over_time(profile)
            if excess >= self._limit and moved.get(layer, 0.0) >= self._max_update_ratio / 10.0:
                return Finding(
                    kind="exploding",
                    severity=Severity.ERROR,
                    step=frame.step,
                    epoch=frame.epoch,
                    layers=(layer,),
                    value=excess,
                    limit=self._limit,
                    unit="decades",
                    message=(
                        f"the gradient at its first time steps is 10^{excess:.1f} times that at "
                        f"the last, and an update moves it by {_times(moved[layer])} its size"
                    ),
                    advice=(
                        "clip by norm, or start from a recurrent matrix of spectral radius one "
                        "(orthogonal)."
                    ),
                )
        return None

    def _by_growth(self, frame: Frame) -> Finding | None:
        """Judge the global norm at the update against its own past, then learn from it."""
        norm = frame.global_grad_norm
        if frame.global_grad_norm_at_update is not None:
            norm = frame.global_grad_norm_at_update
        if not 0.0 < norm < math.inf:
            self._high_steps = 0
            return None
        x, past = math.log10(norm), self._log_norm
        limit = past.mean + self._growth + 3.0 * math.sqrt(past.variance)
        is_high = past.count >= self._warmup and x > limit
        self._log_norm = updated(past, min(x, limit) if is_high else x, decay=self._decay)
        self._high_steps = self._high_steps + 1 if is_high else 0
        ratios = frame.weight_update_ratio[np.isfinite(frame.weight_update_ratio)]
        harmless = ratios.size > 0 and ratios.max() < self._max_update_ratio / 10.0
        if self._high_steps < 3 or harmless:
            return None
        return Finding(
            kind="exploding",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=(),
            value=norm,
            limit=10.0**limit,
            unit="global gradient norm",
            message=f"the global gradient norm is {norm:.3g}, usually about {10.0**past.mean:.3g}",
            advice="lower the learning rate or clip by norm, and look at the batch it began with.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "log_norm": [self._log_norm.count, self._log_norm.mean, self._log_norm.variance],
            "high_steps": self._high_steps,
            "large_updates": dict(self._large_updates),
            "young": dict(self._young),
            "last_large": dict(self._last_large),
            "last_loss": self._last_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._log_norm = Moments(*state["log_norm"])
        self._high_steps = state["high_steps"]
        self._large_updates = dict(state["large_updates"])
        self._young = dict(state["young"])
        self._last_large, self._last_loss = dict(state["last_large"]), state["last_loss"]


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 1000.0 else f"{ratio:.1e} times"
