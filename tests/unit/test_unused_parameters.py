"""Layers that an optimizer has but no loss reaches."""

from __future__ import annotations

import math

from lightning_gradguard.detectors import UnusedParameters
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream


def said(gradients_at, steps=20, **fields):
    frames = stream(steps, lambda s: make_frame(s, gradients_at(s), **fields))
    return said_by(UnusedParameters(warmup_steps=10), frames)


def test_layers_that_never_had_a_gradient_are_a_notice() -> None:
    first, *_ = said(lambda _: [1.0, math.nan, 1.0, math.nan])
    assert (first.kind, first.severity, first.step) == ("unused_parameters", Severity.INFO, 10)
    assert first.layers == ("l1", "l3")
    assert (first.value, first.limit) == (2, 0)
    assert "no gradient in 11 steps" in first.message


def test_a_gradient_of_zero_is_one() -> None:
    assert said(lambda _: [1.0, 0.0, 1.0, 0.0]) == []


def test_a_layer_that_was_reached_once_is_used() -> None:
    assert said(lambda s: [1.0, 1.0 if s == 5 else math.nan, 1.0]) == []


def test_it_ends_when_the_layer_is_reached() -> None:
    assert said(lambda s: [1.0, math.nan if s < 15 else 1.0])[-1].step == 14


def test_other_layers_begin_anew() -> None:
    detector = UnusedParameters(warmup_steps=10)
    said_by(detector, stream(10, lambda s: make_frame(s, [1.0, math.nan])))
    other = stream(20, lambda s: make_frame(10 + s, [1.0, math.nan], layers=("a", "b")))
    found = said_by(detector, other)
    assert (found[0].step, found[0].layers) == (20, ("b",))
