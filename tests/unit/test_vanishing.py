"""Vanishing: three rules in one detector, of which the first that holds speaks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors import Fading, Forgetting, Shallow, Vanishing
from tests.strategies import make_frame, said_by, stream

EVEN = np.ones(8)
FADING = np.array([1e-6, 1e-5, 1e-4, 1.0, 1.0, 1.0, 1.0, 1.0])
FORGETFUL = np.logspace(-15.0, 0.0, 16)


def vanishing():
    return Vanishing(
        depth=Shallow(limit_decades=3.5, mild_decades=3.5),
        late=Fading(warmup_steps=20),
        time=Forgetting(limit_decades=4.0, warmup_steps=30, stall_blocks=1),
    )


def test_patience_is_what_was_asked_for() -> None:
    assert Vanishing(patience_steps=3).patience_steps_by_kind == {"vanishing": 3}


def test_depth_speaks_before_time() -> None:
    frames = stream(
        100,
        lambda s: make_frame(
            s,
            FADING if s >= 80 else EVEN,
            update_ratio=1e-9,
            time_profiles={"l0": FORGETFUL},
        ),
    )
    said = said_by(vanishing(), frames)
    assert len(said) == len({f.step for f in said})
    assert {f.rule for f in said if f.step < 80} == {"over time"}
    assert {f.rule for f in said if f.step >= 80} == {"over depth"}


def shrinking_together(step):
    """Gradients, updates and the loss go to zero together, by twelve decades: convergence."""
    scale = 10.0 ** (-step / 50)
    return make_frame(step, scale * EVEN, update_ratio=1e-3 * scale, loss=scale)


def cosine_to_zero(step):
    rate = 0.05 * (1.0 + math.cos(math.pi * step / 599))
    return make_frame(step, EVEN, update_ratio=0.01 * rate, learning_rates=(rate,))


def warm_up_from_zero(step):
    fields = {"learning_rates": (1e-5 * step,), "loss": 2.0 * 0.995**step}
    return make_frame(step, FADING**0.5, update_ratio=1e-6 * step, **fields)


def adam(step):
    """Early gradients are five decades smaller, updates of ordinary size, the loss falls."""
    return make_frame(step, np.logspace(-5, 0, 8), update_ratio=1e-3, loss=2.0 * 0.995**step)


def bias_before_norm(step):
    gradients = np.array([1.0, 1e-12, 1.0, 1e-12, 1.0, 1e-12, 1.0, 1.0])
    ratio = 1e-3 * gradients
    return make_frame(step, gradients, update_ratio=ratio, bias_only=[1, 3, 5], loss=2.0)


def embedding_first(step):
    gradients = np.append([1e-9], np.ones(7))
    roles = ("embedding", *["weights"] * 7)
    return make_frame(step, gradients, update_ratio=1e-3 * gradients, roles=roles, loss=2.0)


HEALTHY = [
    shrinking_together,
    cosine_to_zero,
    warm_up_from_zero,
    adam,
    bias_before_norm,
    embedding_first,
]


@pytest.mark.parametrize("frame_at", HEALTHY, ids=lambda frame_at: frame_at.__name__)
@pytest.mark.parametrize("make", [vanishing, Vanishing], ids=["quick", "default"])
def test_what_only_looks_like_it_is_left_alone(make, frame_at) -> None:
    assert said_by(make(), stream(600, frame_at)) == []
