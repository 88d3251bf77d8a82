"""Every default detector with short warm-ups, and stretches in which each of its rules speaks."""

from __future__ import annotations

import pytest

from lightning_gradguard.detectors import (
    ClipDominated,
    Dead,
    Diverging,
    Exploding,
    Fading,
    Flat,
    Forgetting,
    Growth,
    Inward,
    NonFinite,
    NotLearning,
    Oversized,
    Saturated,
    SchedulerDrift,
    Shallow,
    Slow,
    Spike,
    UnusedParameters,
    Vanishing,
)
from tests.regimes import frame_of
from tests.strategies import make_frame


def vanishing():
    return Vanishing(
        depth=Shallow(limit_decades=3.0, mild_decades=2.0, warmup_steps=5),
        late=Fading(limit_decades=1.5, warmup_steps=10),
        time=Forgetting(limit_decades=4.0, warmup_steps=30, stall_blocks=1),
    )


def exploding():
    return Exploding(
        update=Oversized(max_update_ratio=1.0),
        inward=Inward(limit_decades=2.0, min_update_ratio=0.1),
        growth=Growth(limit_decades=2.0, min_update_ratio=0.1, warmup_steps=10, decay=0.9),
    )


def dead():
    return Dead(limit_share=0.7, mild_share=0.6, patience_samples=3, min_units=16)


def saturated():
    return Saturated(limit_share=0.5, patience_samples=2)


def diverging():
    return Diverging(excess=0.5, min_update_ratio=0.02)


def not_learning():
    return NotLearning(slow=Slow(min_update_ratio=1e-7, min_speed=1e-4), flat=Flat(stall_steps=80))


def spike():
    return Spike(z_threshold=6.0, times=5.0, warmup_steps=10)


def unused_parameters():
    return UnusedParameters(warmup_steps=10)


def clip_dominated():
    return ClipDominated(limit_share=0.9, window_steps=20)


def scheduler_drift():
    return SchedulerDrift(limit_steps=5)


ALL = [
    NonFinite,
    exploding,
    vanishing,
    dead,
    saturated,
    diverging,
    not_learning,
    spike,
    unused_parameters,
    clip_dominated,
    scheduler_drift,
]
every_detector = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)

FIRED = {
    ("nonfinite", "data"): ["poisoned"],
    ("nonfinite", "weights"): ["broken weights"],
    ("nonfinite", "loss"): ["broken loss"],
    ("nonfinite", "backward"): ["broken"],
    ("amp_overflow", ""): ["overflow"],
    ("exploding", "update as large as the weights"): ["oversized"],
    ("exploding", "over depth"): ["rising inward"],
    ("exploding", "over time"): ["echoing"],
    ("exploding", "growth"): ["healthy", "growing"],
    ("vanishing", "over depth"): ["vanishing"],
    ("vanishing", "late"): ["healthy", "faded"],
    ("vanishing", "over time"): ["forgetting"],
    ("dead", ""): ["healthy", "dead"],
    ("dead", "never active"): ["never active"],
    ("saturated", ""): ["saturated"],
    ("diverging", "runs away"): ["healthy", "runaway"],
    ("diverging", "swings"): ["swinging"],
    ("diverging", "without bound"): ["unbounded"],
    ("not_learning", "still"): ["warming up", "stuck"],
    ("not_learning", "cut off"): ["cut off"],
    ("not_learning", "crawling"): ["crawling"],
    ("not_learning", "flat"): ["forgetting"],
    ("spike", ""): ["healthy", "spiky"],
    ("unused_parameters", ""): ["cut off"],
    ("clip_dominated", ""): ["clipped"],
    ("scheduler_drift", ""): ["overflow"],
}
"""What is to be found in which stretches: a hundred steps of each."""

QUIET = [
    ["dead"],
    ["never active"],
    ["exploding"],
    ["newborn"],
    ["decaying"],
    ["limping"],
    ["routed"],
    ["unseen"],
]
"""Where the past keeps detectors from speaking, or tells what they say."""


def stretches(*regimes):
    noise = make_frame(gradients=[1.1, 0.9, 1.0, 1.2, 0.8, 1.0]).grad_norm
    each = [regime for regime in regimes for _ in range(100)]
    return [frame_of(regime, step, noise) for step, regime in enumerate(each)]
