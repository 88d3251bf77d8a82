"""Dead units: silent in sample after sample, and staying so."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.detectors import Dead
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream, through_json

UNITS = 40
LAYERS = ("body.0", "body.1", "body.2", "head")


def dead(**changes):
    fields = {"limit_share": 0.8, "mild_share": 0.8, "patience_samples": 4, "min_units": 16}
    return Dead(**{**fields, **changes})


def mask(share, units=UNITS):
    return np.arange(units) < round(share * units)


def frame_of(step, shares=(0.0, 0.9, 0.0, 0.0), *, every=1, layers=LAYERS, **fields):
    """Make a frame in which a share of each layer's units is silent."""
    masks = {n: mask(s) if np.isscalar(s) else s for n, s in zip(layers, shares, strict=True)}
    sampled = {"silent_units": masks} if step % every == 0 else {}
    numbers = {"gradients": np.ones(len(layers)), "loss": 2.0 * 0.95**step, **sampled}
    return make_frame(step, layers=layers, **{**numbers, **fields})


def said(detector, steps=20, **fields):
    return said_by(detector, stream(steps, lambda s: frame_of(s, **fields)))


def test_a_layer_most_of_whose_units_stay_silent_is_named() -> None:
    first, *_ = said(dead())
    assert (first.kind, first.step, first.layers) == ("dead", 3, ("body.1",))
    assert (first.value, first.limit) == (0.9, 0.8)
    assert "36 of 40 units (0, 1, 2, 3, 4, …) of body.1 have had no gradient" in first.message
    assert "in 4 samples in a row" in first.message


def test_units_that_died_in_mid_run_are_told_from_a_layer_born_dead() -> None:
    gradients = [0.0, 0.0, 1.0, 1.0]
    first, *_ = said(dead(), shares=(1.0, 1.0, 0.0, 0.0), gradients=gradients, layers=tuple("abcd"))
    assert "since the first step" in first.message
    assert "initialisation" in first.advice
    frames = stream(40, lambda s: frame_of(s, (0.0, 0.9 if s >= 20 else 0.1, 0.0, 0.0)))
    first, *_ = said_by(dead(), frames)
    assert first.step == 23
    assert "since the first step" not in first.message
    assert "lower learning rate" in first.advice


def test_between_samples_the_finding_goes_on() -> None:
    steps = [f.step for f in said(dead(), steps=25, every=5)]
    assert steps == list(range(15, 25))


def test_units_that_wake_up_end_it() -> None:
    frames = stream(20, lambda s: frame_of(s, (0.0, 0.9 if s < 10 else 0.2, 0.0, 0.0)))
    assert max(f.step for f in said_by(dead(), frames)) == 9


@pytest.mark.parametrize("activity", [0.1, 0.2, 0.3])
def test_units_that_fire_rarely_are_not_dead(activity) -> None:
    rng = np.random.default_rng(0)

    def frame_at(step):
        silent = rng.random(400) > activity
        return frame_of(step, (0.0, silent, 0.0, 0.0))

    assert said_by(dead(limit_share=0.6, mild_share=0.6), stream(300, frame_at)) == []


def test_units_that_never_fire_are_found_among_those_that_fire_rarely() -> None:
    rng = np.random.default_rng(0)

    def frame_at(step):
        silent = (rng.random(400) > 0.5) | (np.arange(400) < 340)
        return frame_of(step, (0.0, silent, 0.0, 0.0))

    assert said_by(dead(patience_samples=10), stream(60, frame_at))


def test_the_worst_layer_is_the_one_nearest_to_the_loss_that_is_wholly_dead() -> None:
    """What lies before it gets nothing, and is not to blame."""
    gradients = np.array([0.0, 0.0, 1.0, 1.0])
    first, *_ = said(dead(), shares=(1.0, 1.0, 0.9, 0.0), gradients=gradients, layers=tuple("abcd"))
    assert first.layers == ("b", "c")
    assert (first.value, first.severity) == (1.0, Severity.ERROR)
    assert "all 40 units of b" in first.message


def test_the_severity_grows_with_the_share() -> None:
    shares = {0.8: Severity.WARNING, 0.95: Severity.ERROR}
    for share, severity in shares.items():
        assert {f.severity for f in said(dead(), shares=(0.0, share, 0.0, 0.0))} == {severity}


@pytest.mark.parametrize(
    "fields",
    [
        {"shares": (0.0, 0.7, 0.0, 0.0)},
        {"shares": (0.0, 0.0, 0.0, 0.9)},
        {"shares": (0.0, mask(0.9, 10), 0.0, 0.0)},
        {"shares": (0.0, 1.0, 0.0, 0.0)},
        {"gradients": np.zeros(4)},
        {"bad": [0]},
        {"stepped": False},
    ],
    ids=[
        "less than the limit",
        "an output layer",
        "a handful of units",
        "cut off from its inputs, its bias learns",
        "a hinge loss that is fulfilled",
        "not finite",
        "no step",
    ],
)
def test_what_only_looks_like_it_is_left_alone(fields) -> None:
    assert said(dead(), **fields) == []


def test_a_smaller_share_counts_while_the_loss_never_moves_or_is_worse() -> None:
    def run(loss_at, *, since=0):
        detector = dead(mild_share=0.5)
        shares = (0.0, 0.6, 0.0, 0.0)

        def frame_at(step):
            now = shares if step >= since else (0.0,) * 4
            return frame_of(step, now, loss=loss_at(step))

        return said_by(detector, stream(120, frame_at))

    assert run(lambda s: 2.0 * 0.95**s) == []
    assert run(lambda _: 2.0)[0].limit == 0.5
    gets_worse = [2.0 * 0.95**s if s < 80 else 3.0 for s in range(120)]
    assert run(gets_worse.__getitem__, since=40)[0].step >= 80
    assert run(gets_worse.__getitem__) == []  # they were silent all along, and are not to blame


EXPERTS = ("gate", "experts.0.up", "experts.0.down", "experts.1.up", "experts.1.down", "head")


def test_an_expert_that_is_idle_while_its_siblings_work_is_no_dead_block() -> None:
    gradients = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    shares = (0.0, 0.0, 0.0, 1.0, 1.0, 0.0)
    assert said(dead(), shares=shares, gradients=gradients, layers=EXPERTS) == []


def test_a_dead_block_whose_consumer_sees_nothing_but_its_bias_is_dead() -> None:
    layers = ("blocks.0.fc", "blocks.1.fc", "blocks.2.fc", "head")
    gradients = np.array([0.0, 0.0, 1.0, 1.0])
    shares = (1.0, 1.0, 1.0, 0.0)  # what comes next gets only zeros: its weights are silent, too
    first, *_ = said(dead(), shares=shares, gradients=gradients, layers=layers)
    assert "blocks.1.fc" in first.layers


def test_an_expert_that_is_used_and_whose_first_layer_is_dead_is_not_idle() -> None:
    gradients = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    shares = (0.0, 0.0, 0.0, 1.0, 1.0, 0.0)  # the second layer sees nothing but its bias
    first, *_ = said(dead(), shares=shares, gradients=gradients, layers=EXPERTS)
    assert first.layers == ("experts.1.up",)


def test_an_expert_most_of_whose_units_are_dead_while_it_works_is_dead() -> None:
    shares = (0.0, 0.0, 0.0, 0.9, 0.0, 0.0)
    first, *_ = said(dead(), shares=shares, gradients=np.ones(6), layers=EXPERTS)
    assert first.layers == ("experts.1.up",)


def test_a_layer_that_is_resized_starts_anew() -> None:
    detector = dead()
    frames = stream(12, lambda s: frame_of(s, (0.0, mask(1.0, 40 + s), 0.0, 0.0)))
    assert said_by(detector, frames) == []


def test_it_saves_only_what_is_silent() -> None:
    detector = dead()
    said(detector, shares=(0.0, 0.05, 0.0, 0.0))
    saved = detector.state_dict()["silence"]
    assert saved["body.1"] == {"units": UNITS, "silent": [0, 1], "samples": [20, 20]}
    assert all(layer == "body.1" or kept["silent"] == [] for layer, kept in saved.items())
    assert through_json(detector, dead()).state_dict() == detector.state_dict()


def test_of_a_handful_of_units_all_must_be_dead() -> None:
    handful = (0.0, mask(1.0, 8), 0.0, 0.0)
    first, *_ = said(dead(), shares=handful, gradients=[0.0, 0.0, 1.0, 1.0], layers=tuple("abcd"))
    assert (first.layers, first.value) == (("b",), 1.0)


def test_a_unit_that_fires_once_begins_anew() -> None:
    def frame_at(step):
        silent = mask(0.9)
        silent[0] = step % 4 != 3
        return frame_of(step, (0.0, silent, 0.0, 0.0))

    detector = dead(limit_share=0.9)
    assert said_by(detector, stream(40, frame_at)) == []
    assert through_json(detector, dead()).state_dict() == detector.state_dict()


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("limit_share", 0.0, r"`limit_share` must be in \(0, 1\], got 0.0"),
        ("limit_share", 1.5, r"`limit_share` must be in \(0, 1\], got 1.5"),
        ("mild_share", -1.0, r"`mild_share` must be in \(0, 1\], got -1.0"),
        ("patience_samples", 1, "`patience_samples` must be at least 2, got 1"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(argument, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        Dead(**{argument: value})
