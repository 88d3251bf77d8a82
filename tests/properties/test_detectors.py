"""Laws that every detector keeps, on runs that change their ways."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.detectors import (
    Diverging,
    Exploding,
    NonFinite,
    NotLearning,
    Vanishing,
)
from lightning_gradguard.inspector import Inspector
from tests.strategies import frame_of, make_frame, runs, said_by, through_json

NEVER = float("inf")


def vanishing(**changes):
    quick = {
        "limit_decades": 3.0,
        "mild_decades": 2.0,
        "max_update_ratio": 1e-5,
        "warmup_steps": 5,
        "patience_steps": 3,
        "time_limit_decades": 4.0,
        "time_warmup_steps": 30,
        "stall_blocks": 1,
    }
    return Vanishing(**{**quick, **changes})


def exploding(**changes):
    quick = {"max_update_ratio": 1.0, "limit_decades": 2.0, "growth_decades": 2.0}
    return Exploding(**{**quick, "warmup_steps": 10, "decay": 0.9, **changes})


def not_learning(**changes):
    return NotLearning(**{"min_update_ratio": 1e-6, "stall_steps": 60, **changes})


def diverging(**changes):
    return Diverging(**{"excess": 0.5, "min_update_ratio": 0.02, **changes})


ALL = [NonFinite, vanishing, exploding, not_learning, diverging]
every_detector = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)


def found(detector, frames):
    return [(f.kind, f.step, f.layers) for f in said_by(detector, frames)]


@pytest.mark.parametrize(
    ("make", "regime"),
    [
        (NonFinite, "broken"),
        (vanishing, "vanishing"),
        (vanishing, "forgetting"),
        (exploding, "exploding"),
        (exploding, "echoing"),
        (not_learning, "stuck"),
    ],
)
def test_regimes_are_what_they_are_called(make, regime) -> None:
    """The laws below would say little about streams in which nothing is ever found."""
    noise = make_frame().grad_norm[[0, 1, 2, 3, 0, 1]]
    assert said_by(make(), [frame_of(regime, step, noise) for step in range(150)])


@every_detector
@given(frames=runs(), stop=st.integers(0, 300))
def test_stopping_anywhere_changes_nothing(make, frames, stop) -> None:
    whole, first = make(), make()
    said = said_by(first, frames[:stop])
    second = through_json(first, make())
    said += said_by(second, frames[stop:])
    assert repr(said) == repr(said_by(whole, frames))
    assert repr(second.state_dict()) == repr(whole.state_dict())


@given(frames=runs(), stop=st.integers(0, 300))
def test_stopping_the_default_detectors_anywhere_changes_nothing(frames, stop) -> None:
    whole, first = Inspector(), Inspector()
    for frame in frames:
        whole.update(frame)
    for frame in frames[:stop]:
        first.update(frame)
    second = through_json(first, Inspector())
    for frame in frames[stop:]:
        second.update(frame)
    assert repr(second.findings) == repr(whole.findings)
    assert repr(second.state_dict()) == repr(whole.state_dict())


@every_detector
@given(frames=runs())
def test_nan_never_enters_the_state(make, frames) -> None:
    detector = make()
    said_by(detector, [make_frame(gradients=[1.0] * 6), *frames])
    json.dumps(detector.state_dict(), allow_nan=False)


@every_detector
@given(frames=runs())
def test_renaming_layers_renames_findings(make, frames) -> None:
    def renamed(name):
        return f"model.{name}.block"

    others = [
        replace(
            frame,
            layers=tuple(map(renamed, frame.layers)),
            time_profiles={renamed(name): p for name, p in frame.time_profiles.items()},
        )
        for frame in frames
    ]
    expected = [(k, s, tuple(map(renamed, layers))) for k, s, layers in found(make(), frames)]
    assert found(make(), others) == expected


@every_detector
@given(frames=runs())
def test_a_finding_is_about_its_frame(make, frames) -> None:
    detector = make()
    for frame in frames:
        for finding in detector.update(frame):
            assert (finding.step, finding.epoch) == (frame.step, frame.epoch)
            assert set(finding.layers) <= set(frame.layers)
            assert finding.message
            assert finding.advice
            assert not finding.message.endswith(".")


@pytest.mark.parametrize("make", [vanishing, exploding, diverging], ids=lambda m: m.__name__)
@given(frames=runs())
def test_value_of_a_finding_is_beyond_its_limit(make, frames) -> None:
    assert all(finding.value >= finding.limit for finding in said_by(make(), frames))


@given(frames=runs())
def test_update_of_what_does_not_learn_is_below_its_limit(frames) -> None:
    said = said_by(not_learning(stall_steps=10**9), frames)
    assert all(finding.value < finding.limit for finding in said)


@given(frames=runs(["healthy", "broken"]))
def test_broken_entries_are_more_than_none(frames) -> None:
    assert all(finding.value > finding.limit for finding in said_by(NonFinite(), frames))


@pytest.mark.parametrize(
    ("make", "name", "low", "high"),
    [
        (vanishing, "limit_decades", 2.0, 4.0),
        (vanishing, "mild_decades", 1.0, 2.5),
        (vanishing, "time_limit_decades", 2.0, 8.0),
        (exploding, "max_update_ratio", 0.1, 10.0),
        (exploding, "limit_decades", 1.0, 4.0),
        (diverging, "excess", 0.1, 10.0),
        (diverging, "min_update_ratio", 0.001, 0.4),
    ],
)
@given(frames=runs())
def test_raising_a_threshold_never_adds_a_finding(make, name, low, high, frames) -> None:
    few = {f.step for f in said_by(make(**{name: high}), frames)}
    assert few <= {f.step for f in said_by(make(**{name: low}), frames)}


@given(frames=runs())
def test_lowering_the_least_update_never_adds_a_finding(frames) -> None:
    few = {f.step for f in said_by(not_learning(min_update_ratio=1e-8), frames)}
    assert few <= {f.step for f in said_by(not_learning(min_update_ratio=1e-4), frames)}


@given(frames=runs(), warmup=st.integers(0, 100))
def test_vanishing_is_silent_during_warm_up(frames, warmup) -> None:
    detector = vanishing(warmup_steps=warmup, time_warmup_steps=warmup)
    assert said_by(detector, frames[:warmup]) == []


@given(frames=runs(), warmup=st.integers(0, 100))
def test_growth_is_silent_during_warm_up(frames, warmup) -> None:
    detector = exploding(max_update_ratio=NEVER, limit_decades=NEVER, warmup_steps=warmup)
    assert said_by(detector, frames[:warmup]) == []


@given(frames=runs(), scale=st.sampled_from([2.0**-20, 0.25, 1024.0, 2.0**40]))
def test_rescaling_all_gradients_moves_no_finding_over_depth(frames, scale) -> None:
    scaled = [
        replace(
            frame,
            grad_norm=scale * frame.grad_norm,
            weight_grad_norm=scale * frame.weight_grad_norm,
            global_grad_norm=scale * frame.global_grad_norm,
        )
        for frame in frames
    ]
    assert found(vanishing(), scaled) == found(vanishing(), frames)


@given(frames=runs(), scale=st.sampled_from([2.0**-20, 0.25, 1024.0, 2.0**40]))
def test_rescaling_gradients_and_weights_together_moves_no_explosion(frames, scale) -> None:
    scaled = [
        replace(
            frame,
            weight_grad_norm=scale * frame.weight_grad_norm,
            weight_param_norm=scale * frame.weight_param_norm,
            weight_update_norm=scale * frame.weight_update_norm,
        )
        for frame in frames
    ]
    assert found(exploding(), scaled) == found(exploding(), frames)


@every_detector
@given(frames=runs(["healthy"]))
def test_healthy_stretches_are_silent(make, frames) -> None:
    assert (
        said_by(make(**({} if make is not not_learning else {"stall_steps": 10**9})), frames) == []
    )
