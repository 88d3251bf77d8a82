"""The numbers of a step, under the names they are logged by.

In: an observation. Out: a flat mapping from key to number, which every logger understands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from lightning_gradguard import schema
from lightning_gradguard.events import Observation
from lightning_gradguard.frame import Frame

__all__ = ["layer_scalars", "scalars"]


def scalars(observation: Observation) -> dict[str, float]:
    """Return the numbers that describe the whole step; what was not measured is left out."""
    frame = observation.frame
    ratios = frame.update_ratio[np.isfinite(frame.update_ratio)]
    numbers: dict[str, float | None] = {
        "global_grad_norm": frame.global_grad_norm,
        "global_grad_norm_at_update": frame.global_grad_norm_at_update,
        "clip_coefficient": frame.clip_coefficient,
        "guard_clip_coefficient": frame.guard_clip_coefficient,
        "lr_factor": frame.lr_factor,
        "num_nonfinite": float(np.nansum(frame.num_nonfinite)),
        "update_ratio_median": float(np.median(ratios)) if ratios.size else None,
        "noise_scale": observation.noise_scale,
        "layers_flagged": float(len(observation.flagged_layers)),
        "severity": float(observation.severity or 0),
        "overhead_ms": observation.overhead_ms,
    }
    return {
        schema.scalar_key(name, frame.optimizer_index): number
        for name in schema.SCALARS
        if (number := numbers[name]) is not None and not math.isnan(number)
    }


def layer_scalars(frame: Frame, layers: Iterable[str]) -> dict[str, float]:
    """Return the gradient norm of some layers; what was not measured is left out."""
    norms = dict(zip(frame.layers, frame.grad_norm.tolist(), strict=True))
    return {
        schema.layer_key("grad_norm", layer, frame.optimizer_index): norms[layer]
        for layer in layers
        if layer in norms and not math.isnan(norms[layer])
    }
