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


REGIMES = (
    "healthy",
    "vanishing",
    "faded",
    "forgetting",
    "exploding",
    "oversized",
    "rising inward",
    "growing",
    "echoing",
    "dead",
    "broken",
    "broken loss",
    "overflow",
    "poisoned",
    "broken weights",
    "stuck",
    "warming up",
    "crawling",
    "cut off",
    "runaway",
    "swinging",
    "unbounded",
    "spiky",
    "clipped",
    "unseen",
)
"""What a stretch of a drawn run is like."""

_SLOPE = np.array([1e-6, 1e-5, 1e-4, 1.0, 1.0, 1.0])
_FORGETFUL = np.logspace(-9.0, 0.0, 12)
_CUT = np.array([np.nan, np.nan, np.nan, np.nan, 1.0, 1.0])
_ALIVE = {f"l{i}": np.zeros(20, dtype=bool) for i in range(6)}
_DEAD = {**_ALIVE, "l2": np.arange(20) < 19, "l3": np.ones(20, dtype=bool)}


def frame_of(regime: str, step: int, noise: np.ndarray) -> Frame:
    """Make a frame of a regime; ``noise`` is one factor around 1 per layer."""
    ratio, first = 1e-3 * noise, float(noise[0])
    healthy = {"gradients": noise, "update_ratio": ratio, "loss": 2.0 * first**0.25 * 0.99**step}
    healthy["silent_units"] = _ALIVE if step % 2 == 0 else {}
    changes: dict[str, dict[str, Any]] = {
        "vanishing": {"gradients": _SLOPE * noise, "update_ratio": _SLOPE * ratio},
        "faded": {"gradients": 1e-6 * noise, "loss": 40.0 * first},
        "forgetting": {"time_profiles": {"l0": first * _FORGETFUL}, "loss": 2.0},
        "exploding": {"gradients": noise / _SLOPE, "update_ratio": 300.0 * ratio / _SLOPE},
        "oversized": {"update_ratio": np.array([4, 4, 1e-3, 1e-3, 1e-3, 1e-3]) * noise},
        "rising inward": {"gradients": noise / _SLOPE, "update_ratio": 0.3 * noise},
        "growing": {"gradients": 1e5 * noise, "update_ratio": 0.3 * noise},
        "echoing": {
            "time_profiles": {"l0": first * _FORGETFUL[::-1]},
            "update_ratio": 0.3 * noise,
        },
        "dead": {"gradients": np.array([0, 0, 0, 0, 1, 1]) * noise, "silent_units": _DEAD},
        "broken": {"bad": [1, 2]},
        "broken loss": {"loss": np.nan},
        "overflow": {
            "bad": [5],
            "update_ratio": 0.0,
            "stepped": False,
            "learning_rates": (0.1 * 0.999**step,),
        },
        "poisoned": {"bad": [0, 5], "batch_is_finite": False},
        "broken weights": {"bad": [3], "param_norm": np.where(noise == noise[1], np.inf, 1.0)},
        "stuck": {"update_ratio": 1e-9 * noise, "loss": 2.0},
        "warming up": {
            "update_ratio": 1e-9 * noise,
            "loss": 2.0,
            "learning_rates": (1e-4 * step,),
        },
        "crawling": {"update_ratio": 1e-6 * noise, "loss": 2.0},
        "cut off": {"gradients": _CUT * noise, "loss": 2.0},
        "runaway": {"update_ratio": 0.5 * noise, "loss": 50.0 * first},
        "swinging": {"update_ratio": 0.5 * noise, "loss": 2.0},
        "unbounded": {"weights": 1.0 + 0.1 * step, "loss": -first * 1.2**step},
        "spiky": {"gradients": 1e4 * noise},
        "clipped": {"global_grad_norm_at_update": 1e-2},
        "unseen": {"gradients": noise * np.nan, "update_ratio": np.nan, "loss": None},
    }
    return make_frame(step, **{**healthy, **changes.get(regime, {})})


class Run(list[Frame]):
    """Frames of a run that is told in one line when a law fails for it."""

    def __init__(self, plan: Sequence[tuple[str, int]], seed: int) -> None:
        rng = np.random.default_rng(seed)
        kinds = [regime for regime, steps in plan for _ in range(steps)]
        super().__init__(
            frame_of(k, step, rng.uniform(0.5, 2.0, 6)) for step, k in enumerate(kinds)
        )
        self.plan, self.seed = plan, seed

    def __repr__(self) -> str:
        return f"Run({self.plan!r}, {self.seed})"


def runs(regimes: Sequence[str] = REGIMES) -> st.SearchStrategy[Run]:
    """Draw a run of six layers: up to four stretches, each of one regime."""
    stretch = st.tuples(st.sampled_from(regimes), st.integers(1, 40))
    return st.builds(Run, st.lists(stretch, min_size=1, max_size=4), st.integers(0, 999))


severities = st.sampled_from(list(Severity))
evidence = st.lists(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), severities), max_size=3), max_size=40
)
"""For each step, what detectors said: kinds and severities."""
