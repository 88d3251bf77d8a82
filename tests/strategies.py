"""Frames without a model, and what Hypothesis draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

Numbers = Sequence[float] | np.ndarray


def make_frame(
    step: int = 0,
    gradients: Numbers = (1.0, 1.0, 1.0, 1.0),
    *,
    weights: Numbers | float = 1.0,
    update_ratio: Numbers | float = 1e-3,
    bias_only: Sequence[int] = (),
    bad: Sequence[int] = (),
    layers: Sequence[str] | None = None,
    **fields: Any,
) -> Frame:
    """Make a frame of layers ``l0``, ``l1``, … with one weight matrix each.

    Args:
        step: Its step.
        gradients: Gradient norm per layer.
        weights: Weight norm per layer.
        update_ratio: Applied update over weights, per layer.
        bias_only: Layers that have no weight matrix.
        bad: Layers with three non-finite entries in their gradient.
        layers: Other names.
        fields: Anything else of `Frame`; of ``stepped=False`` a scaler is the reason.
    """
    norms = np.array(gradients, dtype=np.float64)
    sizes = np.broadcast_to(np.asarray(weights, dtype=np.float64), norms.shape)
    sizes = sizes * (1.0 + 1e-9 * step)  # weights that are updated are never the same again
    updates = np.broadcast_to(np.asarray(update_ratio, dtype=np.float64), norms.shape) * sizes
    count = np.zeros_like(norms)
    count[list(bad)] = 3.0
    hidden = np.zeros_like(norms)
    hidden[list(bias_only)] = np.nan
    names = tuple(f"l{i}" for i in range(len(norms))) if layers is None else tuple(layers)
    numbers: dict[str, Any] = {
        "grad_norm": norms,
        "grad_rms": norms / 10.0,
        "grad_mean": np.zeros_like(norms),
        "grad_std": norms / 10.0,
        "grad_abs_max": norms,
        "zero_fraction": np.zeros_like(norms),
        "num_nonfinite": count,
        "param_norm": sizes,
        "update_norm": updates,
        "weight_grad_norm": norms + hidden,
        "weight_param_norm": sizes + hidden,
        "weight_update_norm": updates + hidden,
        "is_sampled": np.zeros(norms.shape, dtype=bool),
        "global_grad_norm": float(np.sqrt(np.nansum(norms**2))),
        "loss": 1.0,
        "learning_rates": (0.1,),
        "has_scaler": not fields.get("stepped", True),
    }
    return Frame(step=step, layers=names, **{**numbers, **fields})


def stream(steps: int, frame_at: Callable[[int], Frame]) -> list[Frame]:
    """Return the frames of steps ``0, 1, …``."""
    return [frame_at(step) for step in range(steps)]


def said_by(detector: Any, frames: Iterable[Frame]) -> list[Finding]:
    """Return all evidence that a detector gives."""
    return [finding for frame in frames for finding in detector.update(frame)]


def held(rule: Any, frames: Iterable[Frame]) -> list[Finding]:
    """Return all that one rule of a detector finds."""
    return [f for frame in frames if (f := rule.update(frame)) is not None]


def through_json(part: Any, fresh: Any) -> Any:
    """Save a part, read it back from text, and return ``fresh`` that goes on from there."""
    fresh.load_state_dict(json.loads(json.dumps(part.state_dict())))
    return fresh


def make_finding(kind: str = "vanishing", step: int = 0, **fields: Any) -> Finding:
    """Make a finding with a message."""
    return Finding(
        **{"kind": kind, "severity": Severity.ERROR, "step": step, "message": "seen", **fields}
    )


severities = st.sampled_from(list(Severity))
evidence = st.lists(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), severities), max_size=3), max_size=40
)
"""For each step, what detectors said: kinds and severities."""
