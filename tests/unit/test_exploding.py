"""Exploding: three rules in one detector, the most direct evidence first."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.detectors import Exploding, Growth, Inward, Oversized
from tests.strategies import make_frame, said_by, stream

EVEN = np.ones(8)
GROWING = np.array([1e6, 1e5, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0])


def exploding():
    return Exploding(
        update=Oversized(max_update_ratio=1.0),
        inward=Inward(limit_decades=2.0, min_update_ratio=0.1),
        growth=Growth(limit_decades=2.0, min_update_ratio=0.1, warmup_steps=20),
    )


def test_the_most_direct_evidence_speaks() -> None:
    def frame_at(step):
        scale = 1e5 if step >= 30 else 1.0
        gradients = scale * (GROWING if step >= 40 else EVEN)
        return make_frame(step, gradients, update_ratio=5.0 if step >= 50 else 0.3)

    said = said_by(exploding(), stream(60, frame_at))
    assert [said[0].rule, said[10].rule, said[-1].rule] == [
        "growth",
        "over depth",
        "update as large as the weights",
    ]
    assert len(said) == len({f.step for f in said})


def test_broken_frames_are_for_nonfinite_and_teach_nothing() -> None:
    detector = exploding()
    fresh = exploding().state_dict()
    frames = stream(5, lambda s: make_frame(s, EVEN, update_ratio=500.0, bad=[0]))
    assert said_by(detector, frames) == []
    assert detector.state_dict() == fresh


def healthy_noise(step):
    rng = np.random.default_rng(step)
    return make_frame(
        step, 10.0 ** rng.uniform(-0.5, 0.5, 8), update_ratio=10.0 ** rng.uniform(-3.5, -2.5, 8)
    )


def spikes_of_one_step(step):
    """Every hundredth step has a ten thousand times larger gradient and update."""
    scale = 1e4 if step % 100 == 99 else 1.0
    return make_frame(step, scale * EVEN, update_ratio=5e-5 * scale, loss=scale)


def clipped_giants(step):
    return make_frame(step, 1e6 * EVEN, global_grad_norm_at_update=1.0)


def zero_weights_under_adam(step):
    """One matrix starts at zero; Adam moves it by its rate each step, so it is ``step`` rates."""
    weights, ratio = EVEN.copy(), 1e-3 * EVEN
    weights[3] = 1e-3 * step
    ratio[3] = 1.0 / max(step, 1)
    return make_frame(step, EVEN, weights=weights, update_ratio=ratio)


def zero_gammas(step):
    """The last scale of a block starts at zero, so the block's layers learn one step later."""
    inner = 0.0 if step == 0 else min(1.0, 1e-3 * 2.0**step)
    gradients = [1.0, inner, 1.0, 1.0, inner, 1.0, 1.0, 1.0]
    roles = ("weights", "weights", "norm", "weights", "weights", "norm", "weights", "weights")
    gammas = np.array([1.0, 1.0, 1e-3 * step, 1.0, 1.0, 1e-3 * step, 1.0, 1.0])
    update = 1e-3 * np.ones(8) / np.where(gammas > 0.0, gammas, 1.0)
    return make_frame(
        step, gradients, weights=gammas, update_ratio=update, roles=roles, bias_only=[2, 5]
    )


HEALTHY = [healthy_noise, spikes_of_one_step, clipped_giants, zero_weights_under_adam, zero_gammas]


@pytest.mark.parametrize("frame_at", HEALTHY, ids=lambda frame_at: frame_at.__name__)
@pytest.mark.parametrize("make", [exploding, Exploding], ids=["quick", "default"])
def test_what_only_looks_like_it_is_left_alone(make, frame_at) -> None:
    assert said_by(make(), stream(600, frame_at)) == []
