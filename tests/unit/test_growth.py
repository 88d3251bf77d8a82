"""Exploding in mid-run: a global norm that stays far above its own past."""

from __future__ import annotations

import pytest

from lightning_gradguard.detectors import Growth
from lightning_gradguard.findings import Severity
from tests.strategies import held, make_frame, stream


def growth(**changes):
    quick = {"limit_decades": 2.0, "min_update_ratio": 0.1, "warmup_steps": 20, "decay": 0.98}
    return Growth(**{**quick, **changes})


def rising(step, *, until=60, norm=1e6, **fields):
    now = 1.0 if step < until else norm
    return make_frame(step, **{"update_ratio": 0.5, "global_grad_norm": now, **fields})


def test_a_norm_that_stays_decades_above_its_past_is_an_explosion() -> None:
    found = held(growth(), stream(63, rising))
    assert [(f.step, f.rule, f.layers) for f in found] == [(62, "growth", ())]
    assert found[0].severity is Severity.ERROR
    assert found[0].value == 1e6
    assert 1e2 <= found[0].limit < 1e6
    assert "1e+06, usually about 1" in found[0].message


def test_what_is_high_teaches_the_past_a_limited_value_only() -> None:
    """Learned in full, two steps of 1e5 would widen the limit so that the third looks usual."""
    found = held(growth(), stream(63, lambda s: rising(s, norm=1e5)))
    assert [f.step for f in found] == [62]


@pytest.mark.parametrize(
    "frame_at",
    [
        lambda s: rising(s, update_ratio=0.01),
        lambda s: rising(s, until=0 if s % 100 in {60, 61} else 10**9),
        lambda s: rising(s, until=0, norm=1.005**s),
        lambda s: rising(s, norm=50.0),
        lambda s: rising(s, global_grad_norm_at_update=1.0),
    ],
    ids=[
        "moves nothing",
        "two steps only",
        "slow",
        "less than two decades",
        "clipped",
    ],
)
def test_what_only_looks_like_it_is_left_alone(frame_at) -> None:
    assert held(growth(), stream(400, frame_at)) == []


def test_the_norm_is_judged_as_the_optimizer_saw_it() -> None:
    frames = stream(
        70,
        lambda s: rising(
            s,
            global_grad_norm=1.0,
            global_grad_norm_at_update=rising(s).global_grad_norm,
        ),
    )
    assert held(growth(), frames)


def test_without_a_view_of_the_update_it_is_judged_all_the_same() -> None:
    assert held(growth(), stream(70, lambda s: rising(s, update_ratio=float("nan"))))


@pytest.mark.parametrize("norm", [0.0, float("inf"), float("nan")])
def test_a_norm_that_says_nothing_is_not_learned_and_breaks_the_row(norm) -> None:
    rule = growth()
    assert held(rule, stream(60, lambda s: rising(s, until=0, norm=norm))) == []
    assert rule.state_dict()["usual"][0] == 0
    gaps = stream(70, lambda s: rising(s, norm=norm if s % 3 == 2 else 1e6))
    assert held(growth(), gaps) == []
