"""Runs that change their ways: stretches of frames that Hypothesis draws and puts together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from lightning_gradguard.activation import Activation
from lightning_gradguard.frame import Frame
from lightning_gradguard.schema import HISTOGRAM_BINS
from tests.strategies import make_frame

REGIMES = (
    "healthy",
    "vanishing",
    "decaying",
    "faded",
    "forgetting",
    "exploding",
    "oversized",
    "newborn",
    "rising inward",
    "growing",
    "echoing",
    "dead",
    "never active",
    "saturated",
    "broken",
    "broken loss",
    "overflow",
    "poisoned",
    "broken weights",
    "stuck",
    "warming up",
    "crawling",
    "limping",
    "cut off",
    "routed",
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
_FIRST = np.arange(6) == 0
_CUT = np.array([np.nan, np.nan, np.nan, np.nan, 1.0, 1.0])
_ALIVE = {f"l{i}": np.zeros(20, dtype=bool) for i in range(6)}
_DEAD = {**_ALIVE, "l2": np.arange(20) < 19, "l3": np.ones(20, dtype=bool)}


def activation(layer: str, function: str, **units: Any) -> Activation:
    """Make what an activation function put out."""
    histogram = np.zeros(HISTOGRAM_BINS)
    numbers = {"mean": 0.0, "std": 1.0, "zero_fraction": 0.0, "log2_histogram": histogram}
    return Activation(function=function, module="act", layer=layer, **{**numbers, **units})


def frame_of(regime: str, step: int, noise: np.ndarray) -> Frame:
    """Make a frame of a regime; ``noise`` is one factor around 1 per layer."""
    ratio, first = 1e-3 * noise, float(noise[0])
    healthy = {"gradients": noise, "update_ratio": ratio, "loss": 2.0 * first**0.25 * 0.99**step}
    healthy["silent_units"] = _ALIVE if step % 2 == 0 else {}
    changes: dict[str, dict[str, Any]] = {
        "vanishing": {"gradients": _SLOPE * noise, "update_ratio": _SLOPE * ratio},
        "decaying": {
            "gradients": _SLOPE * noise * 0.9**step,
            "weights": 0.9**step,
            "update_ratio": 0.1,
        },
        "faded": {"gradients": 1e-6 * noise, "loss": 40.0 * first},
        "forgetting": {"time_profiles": {"l0": first * _FORGETFUL}, "loss": 2.0},
        "exploding": {"gradients": noise / _SLOPE, "update_ratio": 300.0 * ratio / _SLOPE},
        "oversized": {"update_ratio": np.array([4, 4, 1e-3, 1e-3, 1e-3, 1e-3]) * noise},
        "newborn": {
            "weights": np.where(_FIRST & (step % 40 == 0), 0.0, 1.0),
            "update_ratio": np.where(_FIRST & (0 < step % 40 < 10), 4.0, 1e-3),
        },
        "rising inward": {"gradients": noise / _SLOPE, "update_ratio": 0.3 * noise},
        "growing": {"gradients": 1e5 * noise, "update_ratio": 0.3 * noise},
        "echoing": {
            "time_profiles": {"l0": first * _FORGETFUL[::-1]},
            "update_ratio": 0.3 * noise,
        },
        "dead": {
            "gradients": np.array([0, 0, 0, 0, 1, 1]) * noise,
            "silent_units": _DEAD if step % 2 == 0 else {},
        },
        "never active": {
            "activations": (activation("l2", "relu", active=np.zeros(20, dtype=bool)),),
            "loss": 2.0,
        },
        "saturated": {
            "activations": (activation("l2", "tanh", saturated=np.ones(20)),),
            "loss": 2.0,
        },
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
        "limping": {"update_ratio": (1e-3 if step % 15 == 0 else 1e-6) * noise, "loss": 2.0},
        "cut off": {"gradients": _CUT * noise, "loss": 2.0},
        "routed": {"gradients": np.where(np.arange(6) == step % 6, noise, np.nan)},
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
    stretch = st.tuples(st.sampled_from(regimes), st.integers(1, 30))
    return st.builds(Run, st.lists(stretch, min_size=1, max_size=4), st.integers(0, 999))
