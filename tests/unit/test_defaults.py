"""The default detectors together: quiet in healthy runs, cheap, and turned by one dial."""

from __future__ import annotations

import math
import time
from statistics import median

import numpy as np
import pytest

from lightning_gradguard import schema
from lightning_gradguard.detectors import (
    CutOff,
    Detector,
    Diverging,
    Fading,
    Flat,
    Forgetting,
    Growth,
    Inward,
    Oversized,
    Shallow,
    Slow,
    Spike,
    Stale,
    Undone,
    Withering,
    default_detectors,
)
from lightning_gradguard.detectors.defaults import SENSITIVITIES
from lightning_gradguard.inspector import Inspector
from tests.strategies import make_frame, stream

LAYERS = 8
EVEN = np.ones(LAYERS)
every_sensitivity = pytest.mark.parametrize("sensitivity", SENSITIVITIES)


def falling(step):
    return 2.0 * 0.995**step


def healthy_noise(step):
    rng = np.random.default_rng(step)
    return make_frame(
        step,
        10.0 ** rng.uniform(-0.5, 0.5, LAYERS),
        update_ratio=10.0 ** rng.uniform(-3.5, -2.5, LAYERS),
        loss=falling(step) * rng.uniform(0.8, 1.2),
    )


def shrinking_together(step):
    scale = 10.0 ** (-step / 50)
    return make_frame(step, scale * EVEN, update_ratio=1e-3 * scale, loss=scale)


def cosine_to_zero(step):
    rate = 0.05 * (1.0 + math.cos(math.pi * step / 599))
    return make_frame(
        step, EVEN, update_ratio=0.01 * rate, loss=falling(step), learning_rates=(rate,)
    )


def warm_up_from_zero(step):
    rates = (1e-4 * step,)
    return make_frame(
        step, EVEN, update_ratio=1e-5 * step, loss=falling(step), learning_rates=rates
    )


def spikes_of_one_step(step):
    scale = 1e4 if step % 100 == 99 else 1.0
    return make_frame(step, scale * EVEN, update_ratio=5e-5 * scale, loss=falling(step) * scale)


def adam(step):
    return make_frame(step, np.logspace(-5, 0, LAYERS), loss=falling(step))


def zero_weights_under_adam(step):
    weights, ratio = EVEN.copy(), 1e-3 * EVEN
    weights[3] = 1e-3 * step
    ratio[3] = 1.0 / max(step, 1)
    return make_frame(step, EVEN, weights=weights, update_ratio=ratio, loss=falling(step))


def first_layer_has_only_a_bias(step):
    gradients = np.append([0.0], np.ones(LAYERS - 1))
    ratio = 1e-3 * gradients
    return make_frame(step, gradients, update_ratio=ratio, loss=falling(step), bias_only=[0])


def unused_layer_in_the_middle(step):
    gradients = np.where(np.arange(LAYERS) == 4, 0.0, 1.0)
    return make_frame(step, gradients, update_ratio=1e-3 * gradients, loss=falling(step))


def clipped_giants(step):
    return make_frame(step, 1e6 * EVEN, loss=falling(step), global_grad_norm_at_update=1.0)


def scaler_overflows(step):
    if step % 50 == 0:
        return make_frame(step, EVEN, update_ratio=0.0, bad=range(LAYERS), stepped=False)
    return make_frame(step, EVEN, loss=falling(step))


def plateau_then_learning(step):
    return make_frame(step, EVEN, loss=2.3 if step < 300 else 2.3 * falling(step))


def another_task(step):
    return make_frame(step, EVEN, loss=1.0 if step < 300 else 3.0 * falling(step))


def a_third_of_the_units_rests(step):
    masks = {f"l{i}": np.arange(30) < 10 for i in range(LAYERS)} if step % 5 == 0 else {}
    return make_frame(step, EVEN, loss=falling(step), silent_units=masks)


def no_loss_known(step):
    return make_frame(step, EVEN, loss=None)


def update_never_seen(step):
    return make_frame(step, EVEN, update_ratio=math.nan, loss=falling(step))


def two_layers(step):
    return make_frame(step, (1e-9, 1.0), loss=falling(step))


HEALTHY = [
    healthy_noise,
    shrinking_together,
    cosine_to_zero,
    warm_up_from_zero,
    spikes_of_one_step,
    adam,
    zero_weights_under_adam,
    first_layer_has_only_a_bias,
    unused_layer_in_the_middle,
    clipped_giants,
    scaler_overflows,
    plateau_then_learning,
    another_task,
    a_third_of_the_units_rests,
    no_loss_known,
    update_never_seen,
    two_layers,
]


@every_sensitivity
@pytest.mark.parametrize("frame_at", HEALTHY, ids=lambda frame_at: frame_at.__name__)
def test_a_healthy_run_raises_no_alarm(frame_at, sensitivity) -> None:
    inspector = Inspector(sensitivity=sensitivity)
    for frame in stream(600, frame_at):
        inspector.update(frame)
    assert [(f.kind, f.rule, f.step) for f in inspector.findings if f.is_alarm] == []


@every_sensitivity
def test_detectors_are_fresh_and_keep_the_protocol(sensitivity) -> None:
    first, second = default_detectors(sensitivity), default_detectors(sensitivity)
    assert all(isinstance(detector, Detector) for detector in first)
    assert [type(detector) for detector in first] == [type(d) for d in default_detectors()]
    assert not {id(d) for d in first} & {id(d) for d in second}


def test_the_kinds_that_they_ask_patience_for_are_known() -> None:
    kinds = {kind for detector in default_detectors() for kind in detector.patience_steps_by_kind}
    assert kinds <= {*schema.KINDS, *schema.NOTICES}


def test_an_unknown_sensitivity_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="one of 'low', 'normal', 'high', got 'medium'"):
        default_detectors("medium")


def first_alarms(sensitivity, frames):
    inspector = Inspector(sensitivity=sensitivity)
    for frame in frames:
        inspector.update(frame)
    return {f.kind: f.step for f in reversed(inspector.findings) if f.is_alarm}


@pytest.mark.parametrize("decades", np.arange(1.0, 8.0, 0.5))
def test_a_higher_sensitivity_finds_no_less_and_no_later(decades) -> None:
    gradients = np.append(np.full(4, 10.0**-decades), np.ones(4))
    ratio = np.append(np.full(7, 1e-9), 1e-2)
    frames = stream(100, lambda s: make_frame(s, gradients, update_ratio=ratio, loss=2.0))
    low, normal, high = (first_alarms(sensitivity, frames) for sensitivity in SENSITIVITIES)
    assert set(low) <= set(normal) <= set(high)
    assert all(high[kind] <= normal[kind] <= low[kind] for kind in low)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Shallow, "limit_decades"),
        (Shallow, "mild_decades"),
        (Shallow, "max_update_ratio"),
        (Fading, "limit_decades"),
        (Forgetting, "limit_decades"),
        (Oversized, "max_update_ratio"),
        (Inward, "limit_decades"),
        (Inward, "min_update_ratio"),
        (Growth, "limit_decades"),
        (Growth, "min_update_ratio"),
        (Slow, "min_update_ratio"),
        (Slow, "min_speed"),
        (Slow, "sure_speed"),
        (CutOff, "limit_share"),
        (CutOff, "first_share"),
        (Flat, "stall_steps"),
        (Stale, "warmup_steps"),
        (Undone, "times"),
        (Withering, "times"),
        (Diverging, "excess"),
        (Diverging, "min_update_ratio"),
        (Diverging, "growth"),
        (Spike, "z_threshold"),
        (Spike, "times"),
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused_by_name(make, name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be positive, got"):
        make(**{name: value})


def test_judging_a_frame_of_four_hundred_layers_takes_little_time() -> None:
    """Some 0.3 ms on one core; the limit leaves room for a busy machine."""
    layers = tuple(f"blocks.{i // 4}.{name}" for i in range(400) for name in ["qkvo"[i % 4]])
    roles = ("weights",) * 400
    rng = np.random.default_rng(0)
    masks = {layer: np.zeros(64, dtype=bool) for layer in layers}
    frames = stream(
        200,
        lambda s: make_frame(
            s,
            10.0 ** rng.uniform(-1.0, 1.0, 400),
            layers=layers,
            roles=roles,
            loss=falling(s),
            silent_units=masks if s % 5 == 0 else {},
        ),
    )
    inspector, durations = Inspector(), []
    for frame in frames:
        began = time.thread_time()
        inspector.update(frame)
        durations.append(time.thread_time() - began)
    assert median(durations) < 3e-3
