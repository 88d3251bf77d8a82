"""ZClip: a moving mean and variance of the norm.

In: norms. Out: factors that bring outliers down, the farther off the more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment
from lightning_gradguard.remedies.factors import check_per, clip_to
from lightning_gradguard.remedies.memory import Memory
from lightning_gradguard.remedies.segments import Per, segment_names, segment_norms

__all__ = ["ZClip"]


class ZClip:
    """Clip norms that lie far above their moving mean.

    During the warm-up only ``max_norm`` holds. Norms that are zero or not finite teach nothing, and
    the standard deviation has a floor, so that after equal norms a ripple is no outlier.

    Args:
        z_threshold: Standard deviations above the mean from which a norm is clipped; ``> 0``.
        decay: Weight of the past in mean and variance, in ``(0, 1)``.
        warmup_steps: Norms from which the first mean and variance are taken; ``>= 1``.
        max_norm: A fixed limit beside it, as published; None for none.
        relative_floor: Smallest standard deviation, as a share of the mean.
        per: What one norm is taken of, see `ClipNorm`.

    Raises:
        ValueError: A number is out of range, or there is no such ``per``.

    Cost:
        No host sync.

    Source:
        Kumar et al., "ZClip: adaptive spike mitigation for LLM pre-training", 2025: the z-score
        mode with adaptive scaling, and its defaults. https://arxiv.org/abs/2504.02507

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> clipper = ZClip(warmup_steps=2, max_norm=None)
        >>> for norm in (1.0, 3.0):  # mean 2, standard deviation 1
        ...     _ = clipper.decide(moment_of([norm]))
        >>> factor = clipper.decide(moment_of([7.0]))[0].factors  # z = 5, so 2 + 2.5 / 2
        >>> round(7.0 * factor.item(), 4)
        3.25
    """

    acts = frozenset({"clip"})
    acts_on_findings = False

    def __init__(
        self,
        z_threshold: float = 2.5,
        *,
        decay: float = 0.97,
        warmup_steps: int = 25,
        max_norm: float | None = 1.0,
        relative_floor: float = 0.01,
        per: Per = "model",
    ) -> None:
        options.check_positive(z_threshold=z_threshold, warmup_steps=warmup_steps)
        options.check_positive(max_norm=1.0 if max_norm is None else max_norm)
        options.check_fraction(decay=decay)
        options.check_positive(relative_floor=relative_floor)
        check_per(per)
        self.z_threshold, self.decay, self.warmup_steps = z_threshold, decay, warmup_steps
        self.max_norm, self.relative_floor, self.per = max_norm, relative_floor, per
        self._memory = Memory({"count": (1, 0.0), "mean": (1, 0.0), "variance": (1, 0.0)})

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Judge the norm against the past, and learn no more of it than what was let through."""
        norms = segment_norms(moment.gradients, self.per)
        self._memory.align(segment_names(moment.gradients.roster, self.per), like=norms)
        limits = self._limits(norms)
        if moment.is_first_look:
            self._learn(norms, torch.minimum(norms, limits))
        if self.max_norm is not None:
            limits = limits.clamp(max=self.max_norm)
        return [clip_to(moment, self.per, limits, "zclip", norms)]

    def _limits(self, norms: Tensor) -> Tensor:
        memory = self._memory
        mean = memory["mean"][0]
        std = torch.maximum(memory["variance"][0].sqrt(), self.relative_floor * mean)
        z = (norms - mean) / (std + 1e-6 * mean)
        limits = mean + self.z_threshold * std / (z / self.z_threshold)
        is_outlier = (memory["count"][0] >= self.warmup_steps) & (z > self.z_threshold)
        return torch.where(is_outlier, limits, torch.full_like(norms, torch.inf))

    def _learn(self, norms: Tensor, limited: Tensor) -> None:
        memory = self._memory
        count, mean, variance = memory["count"][0], memory["mean"][0], memory["variance"][0]
        known = torch.isfinite(norms) & (norms > 0.0)
        # Warm-up: mean and variance of all, one at a time (Welford).
        share = 1.0 / (count + 1.0)
        delta = limited - mean
        first_mean = mean + share * delta
        first_variance = (1.0 - share) * (variance + share * delta.square())
        # Afterwards: moving ones.
        past, new = self.decay, 1.0 - self.decay
        next_mean = past * mean + new * limited
        next_variance = past * variance + new * (limited - next_mean).square()
        warm = count >= self.warmup_steps
        learned = {
            "count": count + 1.0,
            "mean": torch.where(warm, next_mean, first_mean),
            "variance": torch.where(warm, next_variance, first_variance),
        }
        for name, numbers in learned.items():
            memory[name] = torch.where(known, numbers, memory[name][0]).unsqueeze(0)
        memory.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return mean and variance, as JSON types."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._memory.load_state_dict(state)
