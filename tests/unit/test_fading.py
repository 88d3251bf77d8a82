"""Vanishing late in a run: a gradient that was there fades, and the loss does not get better."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors import Fading
from tests.strategies import held, make_frame, stream

ALL = np.ones(4, dtype=bool)
EARLY = np.array([True, True, False, False])


def fading(**changes):
    return Fading(**{"limit_decades": 1.5, "warmup_steps": 20, **changes})


def fall(decades, *, loss, of=ALL, at=100):
    """From a step on, gradients are smaller by some decades, and the loss is another."""
    low = np.where(of, 10.0**-decades, 1.0)

    def frame_at(step):
        return make_frame(step, low if step >= at else ALL, loss=loss if step >= at else 1.0)

    return stream(at + 30, frame_at)


def test_a_gradient_that_fades_while_the_loss_gets_worse_is_named_with_its_fall() -> None:
    first, *_ = held(fading(), fall(3.0, loss=2.0))
    assert (first.kind, first.rule) == ("vanishing", "late")
    assert first.layers == ("l0", "l1")  # the first half
    assert 1.5 < first.value <= 3.0
    assert "the loss got worse" in first.message


@pytest.mark.parametrize("loss", [1.0, 0.01, None], ids=["flat", "converged", "not known"])
def test_a_gradient_that_fades_with_the_loss_has_converged(loss) -> None:
    assert held(fading(), fall(6.0, loss=loss)) == []


def test_a_smooth_convergence_by_twelve_decades_is_none() -> None:
    scales = np.logspace(0.0, -12.0, 600)
    frames = stream(600, lambda s: make_frame(s, scales[s] * np.ones(4), loss=scales[s]))
    assert held(fading(), frames) == []


def test_a_loss_that_gets_worse_alone_is_no_fading() -> None:
    assert held(fading(), fall(0.0, loss=5.0)) == []


def test_a_small_fall_is_none_though_it_is_unusual() -> None:
    assert held(fading(), fall(1.4, loss=5.0)) == []
    assert held(fading(limit_decades=1.0), fall(1.4, loss=5.0)) != []


def test_a_large_fall_of_a_gradient_that_always_swings_so_far_is_none() -> None:
    rng = np.random.default_rng(0)
    frames = stream(
        300,
        lambda s: make_frame(
            s, 10.0 ** rng.normal(0.0, 1.0) * np.ones(4), loss=1.0 if s < 200 else 3.0
        ),
    )
    assert held(fading(), frames) == []


def test_a_gradient_of_zero_is_a_fall_of_any_size() -> None:
    found = held(fading(), fall(math.inf, loss=5.0))
    assert found
    assert found[0].value == 300.0
    assert "is zero" in found[0].message


def test_only_the_first_half_of_the_layers_is_looked_at() -> None:
    assert held(fading(), fall(4.0, loss=5.0, of=EARLY))
    assert held(fading(), fall(4.0, loss=5.0, of=~EARLY)) == []


def test_nothing_is_said_before_it_is_known_what_is_usual() -> None:
    assert held(fading(warmup_steps=200), fall(6.0, loss=5.0)) == []


@pytest.mark.parametrize(
    "fields", [{"stepped": False}, {"bias_only": [0, 1]}], ids=["no step", "no depth"]
)
def test_steps_without_a_profile_teach_nothing_and_are_not_judged(fields) -> None:
    frames = stream(200, lambda s: make_frame(s, 10.0 ** (-s / 20) * np.ones(4), **fields))
    rule = fading()
    assert held(rule, frames) == []
    assert rule.state_dict()["usual"][0] == 0
