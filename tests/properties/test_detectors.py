"""Laws that every detector keeps, on runs that change their ways."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard import schema
from lightning_gradguard.detectors import (
    ClipDominated,
    Dead,
    Diverging,
    Exploding,
    Fading,
    Forgetting,
    Growth,
    Inward,
    NonFinite,
    NotLearning,
    Oversized,
    SchedulerDrift,
    Shallow,
    Spike,
    UnusedParameters,
    Vanishing,
    default_detectors,
)
from lightning_gradguard.findings import Severity
from lightning_gradguard.inspector import Inspector
from tests.strategies import REGIMES, frame_of, make_frame, runs, said_by, through_json

NEVER = float("inf")


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


def diverging():
    return Diverging(excess=0.5, min_update_ratio=0.02)


def not_learning():
    return NotLearning(min_update_ratio=1e-7, min_speed=1e-4, stall_steps=80)


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


def stretches(*regimes):
    noise = make_frame(gradients=[1.1, 0.9, 1.0, 1.2, 0.8, 1.0]).grad_norm
    each = [regime for regime in regimes for _ in range(100)]
    return [frame_of(regime, step, noise) for step, regime in enumerate(each)]


def found(detector, frames):
    return [(f.kind, f.rule, f.step, f.layers) for f in said_by(detector, frames)]


def test_every_default_detector_has_to_keep_the_laws() -> None:
    assert [type(make()) for make in ALL] == [type(detector) for detector in default_detectors()]


@pytest.mark.parametrize(("kind", "rule"), FIRED, ids=lambda name: name)
def test_regimes_are_what_they_are_called(kind, rule) -> None:
    """The laws below would say little about streams in which nothing is ever found."""
    frames = stretches(*FIRED[kind, rule])
    assert (kind, rule) in {(f.kind, f.rule) for make in ALL for f in said_by(make(), frames)}


@every_detector
@pytest.mark.parametrize("regimes", FIRED.values(), ids=" ".join)
def test_stopping_after_every_step_changes_nothing(make, regimes) -> None:
    """Whatever is left out of the state is missed at one of the steps."""
    frames = stretches(*regimes)
    whole, parts = make(), make()
    for frame in frames:
        parts = through_json(parts, make())
        assert repr(parts.update(frame)) == repr(whole.update(frame))
        assert repr(parts.state_dict()) == repr(whole.state_dict())


@every_detector
@given(frames=runs(), stop=st.integers(0, 160))
def test_stopping_anywhere_changes_nothing(make, frames, stop) -> None:
    whole, first = make(), make()
    said = said_by(first, frames[:stop])
    second = through_json(first, make())
    said += said_by(second, frames[stop:])
    assert repr(said) == repr(said_by(whole, frames))
    assert repr(second.state_dict()) == repr(whole.state_dict())


@pytest.mark.parametrize("sensitivity", ["low", "normal", "high"])
@given(frames=runs(), stop=st.integers(0, 160))
def test_stopping_the_default_detectors_anywhere_changes_nothing(sensitivity, frames, stop) -> None:
    whole, first = Inspector(sensitivity=sensitivity), Inspector(sensitivity=sensitivity)
    for frame in frames:
        whole.update(frame)
    for frame in frames[:stop]:
        first.update(frame)
    second = through_json(first, Inspector(sensitivity=sensitivity))
    for frame in frames[stop:]:
        second.update(frame)
    assert repr(second.findings) == repr(whole.findings)
    mine, others = (part.state_dict()["detectors"] for part in (second, whole))
    assert repr(mine) == repr(others)


@every_detector
@given(frames=runs())
def test_nan_and_infinity_never_enter_the_state(make, frames) -> None:
    detector = make()
    said_by(detector, [make_frame(gradients=[1.0] * 6), *frames])
    json.dumps(detector.state_dict(), allow_nan=False)


@every_detector
@given(frames=runs())
def test_renaming_layers_renames_findings(make, frames) -> None:
    def renamed(name):
        return f"model.{name}"

    others = [
        replace(
            frame,
            layers=tuple(map(renamed, frame.layers)),
            time_profiles={renamed(name): p for name, p in frame.time_profiles.items()},
            silent_units={renamed(name): mask for name, mask in frame.silent_units.items()},
        )
        for frame in frames
    ]
    expected = [(*what, tuple(map(renamed, layers))) for *what, layers in found(make(), frames)]
    assert found(make(), others) == expected


@every_detector
@given(frames=runs())
def test_it_does_not_matter_at_which_step_watching_began(make, frames) -> None:
    later = [replace(frame, step=frame.step + 10_000) for frame in frames]
    expected = [(k, r, step + 10_000, layers) for k, r, step, layers in found(make(), frames)]
    assert found(make(), later) == expected


@every_detector
@given(frames=runs())
def test_a_finding_is_about_its_frame_and_of_a_known_kind(make, frames) -> None:
    detector = make()
    for frame in (replace(frame, epoch=frame.step // 7) for frame in frames):
        for finding in detector.update(frame):
            assert (finding.step, finding.epoch) == (frame.step, frame.epoch)
            assert set(finding.layers) <= set(frame.layers)
            assert finding.message
            assert finding.advice
            assert not finding.message.endswith(".")
            assert finding.kind in schema.KINDS + schema.NOTICES
            assert finding.is_alarm or finding.kind not in schema.KINDS or finding.rule == "flat"
            assert finding.severity is Severity.INFO or finding.kind not in schema.NOTICES


TOO_SMALL = {
    ("not_learning", "still"),
    ("not_learning", "crawling"),
    ("not_learning", "flat"),
    ("diverging", "without bound"),
}
"""Where it is bad to be below the limit."""


@every_detector
@given(frames=runs())
def test_value_of_a_finding_is_beyond_its_limit(make, frames) -> None:
    for finding in said_by(make(), frames):
        if finding.kind == "amp_overflow":
            continue  # a single one is worth a notice
        if (finding.kind, finding.rule) in TOO_SMALL:
            assert finding.value <= finding.limit
        else:
            assert finding.value >= finding.limit


@pytest.mark.parametrize(
    ("make", "few", "many"),
    [
        (Shallow, {"limit_decades": 4.0}, {"limit_decades": 2.0}),
        (Shallow, {"mild_decades": 2.5}, {"mild_decades": 1.0}),
        (Shallow, {"max_update_ratio": 1e-6}, {"max_update_ratio": 1e-4}),
        (Fading, {"limit_decades": 4.0}, {"limit_decades": 1.0}),
        (Forgetting, {"limit_decades": 8.0}, {"limit_decades": 2.0}),
        (Oversized, {"max_update_ratio": 10.0}, {"max_update_ratio": 0.1}),
        (Inward, {"limit_decades": 4.0}, {"limit_decades": 1.0}),
        (Inward, {"min_update_ratio": 0.4}, {"min_update_ratio": 0.01}),
        (Growth, {"limit_decades": 4.0}, {"limit_decades": 1.0}),
        (Growth, {"min_update_ratio": 0.4}, {"min_update_ratio": 0.01}),
        (Dead, {"limit_share": 1.0, "mild_share": 1.0}, {"limit_share": 0.7}),
        (Diverging, {"excess": 10.0}, {"excess": 0.1}),
        (Diverging, {"min_update_ratio": 0.4}, {"min_update_ratio": 0.001}),
        (NotLearning, {"min_update_ratio": 1e-10}, {"min_update_ratio": 1e-7}),
        (NotLearning, {"min_speed": 1e-8}, {"min_speed": 1e-4}),
        (NotLearning, {"stall_steps": 120}, {"stall_steps": 60}),
        (Spike, {"z_threshold": 20.0}, {"z_threshold": 2.0}),
        (Spike, {"times": 1e3}, {"times": 2.0}),
        (ClipDominated, {"limit_share": 0.9}, {"limit_share": 0.2}),
        (SchedulerDrift, {"limit_steps": 40}, {"limit_steps": 3}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
@given(frames=runs())
def test_raising_a_threshold_never_adds_a_finding(make, few, many, frames) -> None:
    assert steps_of(make(**few), frames) <= steps_of(make(**many), frames)


def steps_of(part, frames):
    """Return at which steps a detector, or a rule that is part of one, has something to say."""
    said = [(frame.step, part.update(frame)) for frame in frames]
    return {step for step, finding in said if finding is not None and finding != ()}


@pytest.mark.parametrize(
    "make",
    [Shallow, Fading, Forgetting, Growth, Spike, UnusedParameters],
    ids=lambda make: make.__name__,
)
@given(frames=runs(), warmup=st.integers(0, 100))
def test_nothing_is_said_during_warm_up(make, frames, warmup) -> None:
    assert steps_of(make(warmup_steps=warmup), frames[:warmup]) == set()


@every_detector
@given(frames=runs(), scale=st.sampled_from([2.0**-20, 0.25, 1024.0, 2.0**40]))
def test_rescaling_the_loss_and_with_it_all_gradients_moves_no_finding(make, frames, scale) -> None:
    scaled = [
        replace(
            frame,
            loss=None if frame.loss is None else scale * frame.loss,
            grad_norm=scale * frame.grad_norm,
            weight_grad_norm=scale * frame.weight_grad_norm,
            global_grad_norm=scale * frame.global_grad_norm,
            global_grad_norm_at_update=(
                None
                if frame.global_grad_norm_at_update is None
                else scale * frame.global_grad_norm_at_update
            ),
            time_profiles={name: scale * p for name, p in frame.time_profiles.items()},
        )
        for frame in frames
    ]
    assert found(make(), scaled) == found(make(), frames)


@every_detector
@given(frames=runs(), scale=st.sampled_from([2.0**-20, 1024.0]))
def test_rescaling_weights_gradients_and_updates_together_moves_no_finding(
    make, frames, scale
) -> None:
    names = [f"{weight}{part}_norm" for weight in ("", "weight_") for part in ("grad", "param")]
    names += ["update_norm", "weight_update_norm"]
    scaled = [
        replace(frame, **{name: scale * getattr(frame, name) for name in names}) for frame in frames
    ]
    assert found(make(), scaled) == found(make(), frames)


@every_detector
@given(frames=runs(["healthy"]))
def test_healthy_stretches_are_silent(make, frames) -> None:
    assert said_by(make(), frames) == []


def test_every_regime_is_drawn() -> None:
    drawn = {regime for regimes in FIRED.values() for regime in regimes}
    assert drawn | {"exploding", "unseen"} == set(REGIMES)
