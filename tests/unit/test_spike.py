"""A gradient far above what is usual, for a moment."""

from __future__ import annotations

import math

import pytest

from lightning_gradguard.detectors import Spike
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream


def spike(**changes):
    return Spike(**{"z_threshold": 6.0, "times": 5.0, "warmup_steps": 30, **changes})


def ripple(step):
    return 1.1 if step % 2 else 0.9


def steps_of(norms, **changes):
    frames = stream(len(norms), lambda s: make_frame(s, global_grad_norm=norms[s]))
    return [f.step for f in said_by(spike(**changes), frames)]


def test_a_norm_far_above_its_past_is_a_notice_with_its_distance() -> None:
    frames = stream(101, lambda s: make_frame(s, global_grad_norm=50.0 if s == 100 else ripple(s)))
    (finding,) = said_by(spike(), frames)
    assert (finding.kind, finding.severity, finding.step) == ("spike", Severity.INFO, 100)
    assert finding.value > finding.limit == 6.0
    assert "gradient norm 50, usually about" in finding.message


def test_a_second_and_smaller_spike_is_one_too() -> None:
    """Learned in full, the first would make the second look usual."""
    norms = [ripple(s) for s in range(110)]
    norms[100], norms[102] = 1e6, 30.0
    assert steps_of(norms) == [100, 102]


@pytest.mark.parametrize(
    "norms",
    [
        [1.0] * 100 + [4.9],
        [1.0] * 29 + [1e6],
        [1.01**s for s in range(1000)],
        [10.0 ** (s % 5 - 2) for s in range(300)],
        [1.0] * 100 + [1e-6, 0.0],
        [1.0] * 100 + [math.inf, math.nan],
    ],
    ids=["not many times", "in the warm-up", "slow growth", "always so", "a drop", "not finite"],
)
def test_what_only_looks_like_it_is_left_alone(norms) -> None:
    assert steps_of(norms) == []


def test_what_lasts_becomes_usual() -> None:
    assert steps_of([1.0] * 100 + [100.0] * 400)[-1] < 250
