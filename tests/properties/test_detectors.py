"""Laws that every detector keeps, on runs that change their ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard import schema
from lightning_gradguard.detectors import (
    ClipDominated,
    CutOff,
    Dead,
    Diverging,
    Fading,
    Flat,
    Forgetting,
    Growth,
    Inward,
    NotLearning,
    Oversized,
    Saturated,
    SchedulerDrift,
    Shallow,
    Slow,
    Spike,
    Unfired,
    UnusedParameters,
    Withering,
    default_detectors,
)
from lightning_gradguard.findings import Severity
from tests.quick import ALL, FIRED, QUIET, every_detector, stretches
from tests.regimes import REGIMES, runs
from tests.strategies import said_by


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
            activations=tuple(replace(a, layer=renamed(a.layer)) for a in frame.activations),
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


def with_slow(**options):
    return NotLearning(slow=Slow(**options))


def with_withering(**options):
    return NotLearning(withering=Withering(**options))


def with_cut_off(**options):
    return NotLearning(cut_off=CutOff(**options))


def with_flat(**options):
    return NotLearning(flat=Flat(**options))


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
        (Saturated, {"limit_share": 1.0, "patience_samples": 6}, {"limit_share": 0.3}),
        (Unfired, {"limit_share": 1.0, "patience_samples": 6}, {"limit_share": 0.3}),
        (Diverging, {"excess": 10.0}, {"excess": 0.1}),
        (Diverging, {"min_update_ratio": 0.4}, {"min_update_ratio": 0.001}),
        (with_slow, {"min_update_ratio": 1e-10}, {"min_update_ratio": 1e-7}),
        (with_slow, {"min_speed": 1e-8}, {"min_speed": 1e-4}),
        (with_slow, {"sure_speed": 1e-8}, {"sure_speed": 1e-4}),
        (with_withering, {"times": 1e3}, {"times": 2.0}),
        (with_cut_off, {"limit_share": 0.9}, {"limit_share": 0.3}),
        (with_flat, {"stall_steps": 120}, {"stall_steps": 60}),
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
    drawn = {regime for regimes in (*FIRED.values(), *QUIET) for regime in regimes}
    assert drawn == set(REGIMES)
