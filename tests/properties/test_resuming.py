"""Detectors that were saved and loaded go on as if nothing had been."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.detectors.defaults import SENSITIVITIES
from lightning_gradguard.inspector import Inspector
from tests.quick import FIRED, QUIET, every_detector, stretches
from tests.regimes import runs
from tests.strategies import make_frame, said_by, through_json


@every_detector
@pytest.mark.parametrize("regimes", [*FIRED.values(), *QUIET], ids=" ".join)
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


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
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
def test_an_update_without_limit_does_not_enter_the_state_either(make) -> None:
    detector = make()
    ratio = [float("inf"), 1e-3, 1e-3, 1e-3]
    said_by(detector, [make_frame(step, update_ratio=ratio) for step in range(30)])
    json.dumps(detector.state_dict(), allow_nan=False)
