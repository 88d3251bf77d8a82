"""Slow, obvious versions of what remedies compute, from the papers, and steps to try them on.

Everything is a Python number or float64. A limit is the largest norm that is let through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gradguard.remedies import Moment
from lightning_gradguard.remedies.gradients import Gradients, Member, Roster
from lightning_gradguard.remedies.testing import moment_of

RNG = np.random.default_rng(20)

CALM = list(np.exp(RNG.normal(0.0, 0.3, 90)))
SPIKES = [norm * (40.0 if i in {30, 31, 55, 80} else 1.0) for i, norm in enumerate(CALM)]
DRIFT = [norm * 1.03**i for i, norm in enumerate(CALM)]
DECAY = [norm * 0.9**i for i, norm in enumerate(SPIKES)]
STREAMS = {"calm": CALM, "spikes": SPIKES, "drift": DRIFT, "decay": DECAY}

POISON = (math.nan, math.inf, 0.0)


def poisoned(norms: Sequence[float]) -> tuple[list[float], list[int]]:
    """Return a stream with NaN, infinity and zero in it, and where the old norms are now."""
    found: list[float] = []
    places: list[int] = []
    for i, norm in enumerate(norms):
        if i % 7 == 3:
            found.append(POISON[i % 3])
        places.append(len(found))
        found.append(norm)
    return found, places


def autoclip_limits(norms: Sequence[float], percentile: float, window: int = 10**9) -> list[float]:
    """Seetharaman 2020: a percentile of all norms up to and including the current one."""
    return [
        float(np.percentile(norms[max(0, i + 1 - window) : i + 1], percentile))
        for i in range(len(norms))
    ]


def zclip_limits(
    norms: Sequence[float],
    *,
    z_threshold: float = 2.5,
    decay: float = 0.97,
    warmup: int = 25,
    max_norm: float = math.inf,
) -> list[float]:
    """Kumar 2025: z-score mode with adaptive scaling, as published."""
    limits = [max_norm] * min(warmup, len(norms))
    mean, variance = float(np.mean(norms[:warmup])), float(np.var(norms[:warmup]))
    for norm in norms[warmup:]:
        std = math.sqrt(variance)
        z = (norm - mean) / (std + 1e-6)
        limit = mean + z_threshold * std / (z / z_threshold) if z > z_threshold else math.inf
        limits.append(min(limit, max_norm))
        let_through = min(norm, limit)
        mean = decay * mean + (1.0 - decay) * let_through
        variance = decay * variance + (1.0 - decay) * (let_through - mean) ** 2
    return limits


def lower_median(numbers: Sequence[float]) -> float:
    """The middle one; of two in the middle, the smaller."""
    return sorted(numbers)[(len(numbers) - 1) // 2]


def log_center_and_spread(
    logs: Sequence[float], floor: float, ceiling: float = math.inf
) -> tuple[float, float]:
    """Median, and median absolute deviation as a standard deviation, within bounds."""
    center = lower_median(logs)
    spread = 1.4826 * lower_median([abs(x - center) for x in logs])
    return center, min(ceiling, max(floor, spread))


def robust_limits(
    norms: Sequence[float],
    *,
    z_threshold: float = 3.0,
    window: int = 100,
    warmup: int = 10,
    floor: float = 0.1,
    ceiling: float = 0.3,
) -> list[float]:
    """Our own: far outliers in log space come down closer to the median."""
    logs: list[float] = []
    limits = []
    for norm in norms:
        limit, x = math.inf, math.log(norm)
        if len(logs) >= warmup:
            center, spread = log_center_and_spread(logs[-window:], floor, ceiling)
            z = (x - center) / spread
            if z > z_threshold:
                limit = math.exp(center + z_threshold * spread * z_threshold / z)
                x = center + z_threshold * spread
        logs.append(x)
        limits.append(limit)
    return limits


def agc(gradient: Any, weight: Any, clipping: float = 0.01, epsilon: float = 1e-3) -> np.ndarray:
    """Brock 2021: unit-wise, a unit is one entry of the first dimension."""
    gradient = np.asarray(gradient, dtype=float).copy()
    weight = np.asarray(weight, dtype=float)
    for unit in range(len(gradient)):
        largest = clipping * max(float(np.sqrt((weight[unit] ** 2).sum())), epsilon)
        norm = float(np.sqrt((gradient[unit] ** 2).sum()))
        if norm > largest:
            gradient[unit] *= largest / norm
    return gradient


def loss_spikes(
    losses: Sequence[float],
    *,
    sigmas: float = 6.0,
    window: int = 128,
    warmup: int = 64,
    floor: float = 0.01,
) -> list[int]:
    """OLMo-core: mean and unbiased deviation of the losses before; a spike teaches the limit.

    Our own is the floor under the deviation, as a share of the mean.
    """
    past: list[float] = []
    found = []
    for i, loss in enumerate(losses):
        learned = loss
        if len(past) >= warmup:
            mean = np.mean(past[-window:])
            limit = mean + sigmas * max(np.std(past[-window:], ddof=1), floor * abs(mean))
            if loss > limit:
                found.append(i)
                learned = float(limit)
        past.append(learned)
    return found


def let_through(remedy: Any, norms: Sequence[float]) -> list[float]:
    """Return what is left of each norm of a stream."""
    return [norm * factor for norm, factor in zip(norms, factors_of(remedy, norms), strict=True)]


def factors_of(remedy: Any, norms: Sequence[float]) -> list[float]:
    """Return what a clipper of the whole model multiplies each norm of a stream by."""
    return [
        remedy.decide(moment_of(torch.tensor([norm], dtype=torch.float64), step=i))[0]
        .factors.reshape(-1)[0]
        .item()
        for i, norm in enumerate(norms)
    ]


def skipped(remedy: Any, *, norms: Any = None, losses: Any = None) -> list[int]:
    """Return the positions of a stream at which a rule leaves the step out."""
    length = len(norms if losses is None else losses)
    flags = [
        remedy.decide(
            moment_of(
                torch.tensor([1.0 if norms is None else norms[i]], dtype=torch.float64),
                loss=None if losses is None else torch.tensor(losses[i], dtype=torch.float64),
            )
        )[0].when.item()
        for i in range(length)
    ]
    return [i for i, flag in enumerate(flags) if flag]


def limited(norms: Sequence[float], limits: Sequence[float]) -> list[float]:
    """Return norms that were brought down to limits."""
    return [min(pair) for pair in zip(norms, limits, strict=True)]


def roster_of_layers(
    gradients: Mapping[str, Tensor | None],
    *,
    groups: Mapping[str, int] | None = None,
    units: Mapping[str, int] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Roster:
    """Return parameters of given names with given gradients; a name is ``layer.parameter``."""
    members = []
    for name, gradient in gradients.items():
        start = (weights or {}).get(name)
        zeros = torch.zeros(2) if gradient is None else torch.zeros(gradient.shape).to(gradient)
        parameter = nn.Parameter((zeros.to_dense() if start is None else start).clone())
        parameter.grad = gradient
        layer, group = name.rpartition(".")[0], (groups or {}).get(name, 0)
        members.append(Member(parameter, name, layer, group, (units or {}).get(name, 0)))
    return Roster(tuple(members), num_groups=1 + max(m.group for m in members))


def moment_of_layers(
    gradients: Mapping[str, Tensor | None], *, scale: Tensor | None = None, **more: Any
) -> Moment:
    """Return a step of several parameters, see `roster_of_layers`."""
    roster_fields = {key: more.pop(key) for key in ("groups", "units", "weights") if key in more}
    roster = roster_of_layers(gradients, **roster_fields)
    return Moment(**{"step": 0, "gradients": Gradients.of(roster, scale=scale), **more})
