"""A schedule that moves on while the optimizer does not."""

from __future__ import annotations

import math

import pytest

from lightning_gradguard.detectors import SchedulerDrift
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream


def drift(rate_at, *, refused=lambda step: step % 2 == 0, steps=60):
    frames = stream(
        steps,
        lambda s: make_frame(s, learning_rates=(rate_at(s), 1e-3), stepped=not refused(s)),
    )
    return said_by(SchedulerDrift(limit_steps=5), frames)


def falling(step):
    return 0.1 * 0.99**step


def test_a_schedule_that_counts_refused_steps_is_a_notice() -> None:
    first, second, *_ = drift(falling)
    assert (first.kind, first.severity, first.step) == ("scheduler_drift", Severity.INFO, 9)
    assert (first.value, first.limit) == (5, 5)
    assert "moved on at 5 steps that the optimizer did not make" in first.message
    assert second.step == 11  # only at steps at which it drifts on


@pytest.mark.parametrize(
    ("rate_at", "refused"),
    [
        (lambda _: 0.1, lambda s: s % 2 == 0),
        (falling, lambda _: False),
        (falling, lambda s: s < 4),
        (lambda s: falling(s // 2), lambda s: s % 2 == 0),
        (lambda _: float("nan"), lambda s: s % 2 == 0),
    ],
    ids=["constant rate", "no refusal", "few refusals", "waits for the optimizer", "unknown rate"],
)
def test_what_only_looks_like_it_is_left_alone(rate_at, refused) -> None:
    assert drift(rate_at, refused=refused) == []


def test_a_rate_that_is_not_known_stays_out_of_the_state() -> None:
    detector = SchedulerDrift()
    detector.update(make_frame(0, learning_rates=(math.nan, 0.1)))
    assert not any(
        isinstance(rate, float) and math.isnan(rate) for rate in detector.state_dict()["rates"]
    )


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="`limit_steps` must be at least 1, got 0"):
        SchedulerDrift(limit_steps=0)
