"""Clipping at nearly every step."""

from __future__ import annotations

import math

import pytest

from lightning_gradguard.detectors import ClipDominated
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream


def clipping(share=1.0, *, to=0.5, steps=60, **fields):
    """Clip a share of the steps, evenly."""

    def frame_at(step):
        is_clipped = math.floor((step + 1) * share) > math.floor(step * share)
        return make_frame(
            step, [3.0, 4.0], global_grad_norm_at_update=5.0 * (to if is_clipped else 1.0), **fields
        )

    return said_by(ClipDominated(limit_share=0.9, window_steps=20), stream(steps, frame_at))


def test_clipping_at_every_step_is_a_notice_with_the_typical_factor() -> None:
    first, *_ = clipping()
    assert (first.kind, first.severity, first.step) == ("clip_dominated", Severity.INFO, 19)
    assert (first.value, first.limit) == (1.0, 0.9)
    assert "100% of the last 20 steps were clipped, typically to 0.5" in first.message


@pytest.mark.parametrize(
    "fields",
    [
        {"share": 0.9},
        {"to": 0.9999},
        {"steps": 19},
        {"stepped": False},
        {"window_correction": 2.0},
    ],
    ids=["now and then", "rounding", "too few steps", "no steps", "a short last window"],
)
def test_what_only_looks_like_it_is_left_alone(fields) -> None:
    assert clipping(**fields) == []


def test_where_the_norm_at_the_update_was_not_seen_nothing_is_said() -> None:
    assert said_by(ClipDominated(window_steps=5), stream(50, make_frame)) == []


def test_it_ends_when_clipping_ends() -> None:
    def frame_at(step):
        return make_frame(step, [3.0, 4.0], global_grad_norm_at_update=1.0 if step < 50 else 5.0)

    said = said_by(ClipDominated(limit_share=0.9, window_steps=20), stream(100, frame_at))
    assert said[-1].step == 50  # 19 of 20 are more than nine tenths, 18 are not


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_makes_no_sense_is_refused(share) -> None:
    with pytest.raises(ValueError, match=r"`limit_share` must be in \(0, 1\), got"):
        ClipDominated(limit_share=share)
