"""Training that goes nowhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors import Flat, NotLearning
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream

LAYERS = 8


def not_learning(*, stall_steps=300):
    return NotLearning(flat=Flat(stall_steps=stall_steps))


def stuck(step, **changes):
    fields = {"gradients": np.ones(LAYERS), "update_ratio": 1e-8, "loss": 2.0}
    return make_frame(step, **{**fields, **changes})


def rules(steps=100, *, detector=None, **changes):
    """Return which rules spoke about a loss that does not move."""
    frames = stream(steps, lambda s: stuck(s, **changes))
    return {f.rule for f in said_by(detector or not_learning(), frames)}


def test_patience_is_what_was_asked_for() -> None:
    assert NotLearning(patience_steps=4).patience_steps_by_kind == {"not_learning": 4}


def test_weights_and_loss_that_stand_still_do_not_learn() -> None:
    first, *_ = said_by(not_learning(), stream(100, stuck))
    assert (first.kind, first.rule, first.severity) == ("not_learning", "still", Severity.ERROR)
    assert [first.value, first.limit] == pytest.approx([1e-8, 2e-7])


def test_weights_that_crawl_are_only_a_warning_and_take_longer() -> None:
    found = said_by(not_learning(), stream(100, lambda s: stuck(s, update_ratio=5e-6)))
    assert {(f.rule, f.severity) for f in found} == {("crawling", Severity.WARNING)}
    assert found[0].step >= 50
    assert "loss is 2 after" in found[0].message


@pytest.mark.parametrize(("fall", "found"), [(5e-4, {"crawling"}), (0.0, set())])
def test_small_updates_matter_while_the_loss_falls_too_slowly(fall, found) -> None:
    """Where it does not fall at all, a trained model may merely be trained on."""
    rng = np.random.default_rng(0)
    frames = stream(
        150, lambda s: stuck(s, update_ratio=1e-4, loss=2.0 - fall * s + 0.01 * rng.normal())
    )
    assert {f.rule for f in said_by(not_learning(), frames)} == found


def test_gradients_whose_squares_overflow_ask_for_a_smaller_loss() -> None:
    found = said_by(not_learning(), stream(30, lambda s: stuck(s, gradients=np.full(8, 1e25))))
    assert "scale the loss down" in found[0].advice


def test_one_fast_step_in_a_while_is_no_crawling() -> None:
    frames = stream(
        200, lambda s: stuck(s, update_ratio=1e-3 if s % 15 == 0 else 5e-6, loss=2.0 - s * 1e-4)
    )
    assert said_by(not_learning(stall_steps=10**9), frames) == []


def test_layers_that_never_got_a_gradient_are_cut_off() -> None:
    gradients = np.array([math.nan, math.nan, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    frames = stream(60, lambda s: stuck(s, gradients=gradients, update_ratio=1e-3))
    first, *_ = said_by(not_learning(), frames)
    assert (first.rule, first.severity) == ("cut off", Severity.ERROR)
    assert first.layers == ("l0", "l1", "l2", "l3")
    assert (first.value, first.limit) == (0.5, 0.5)
    assert "detach()" in first.advice


@pytest.mark.parametrize(
    "changes",
    [
        {"gradients": [math.nan] * 2 + [1.0] * 6},
        {"gradients": [math.nan] * 2, "update_ratio": [math.nan, 1e-3]},
        {
            "gradients": [math.nan] * 5 + [1.0] * 3,
            "roles": (*["norm"] * 5, *["weights"] * 3),
        },
        {"bias_only": range(5), "roles": (*["vectors"] * 5, *["weights"] * 3)},
    ],
    ids=["less than a third", "a tiny model", "norm layers", "single biases"],
)
def test_layers_without_a_gradient_that_matter_little_are_not_cut_off(changes) -> None:
    assert "cut off" not in rules(**{"update_ratio": 1e-3, **changes})


def test_layers_that_got_a_gradient_once_are_not_cut_off() -> None:
    def frame_at(step):
        reached = np.full(LAYERS, math.nan)
        reached[step % LAYERS] = 1.0  # one expert at a time
        return stuck(step, gradients=reached, update_ratio=1e-3)

    assert said_by(not_learning(), stream(100, frame_at)) == []


def test_a_loss_that_falls_well_is_learning_though_layers_are_cut_off() -> None:
    """As when only a head is fine-tuned on frozen features."""
    gradients = np.array([math.nan] * 6 + [1.0] * 2)
    frames = stream(
        300, lambda s: stuck(s, gradients=gradients, update_ratio=1e-3, loss=2.0 * 0.97**s)
    )
    assert said_by(not_learning(), frames) == []


def test_a_loss_that_never_moved_for_long_is_a_notice() -> None:
    found = said_by(not_learning(), stream(400, lambda s: stuck(s, update_ratio=1e-3)))
    assert (found[0].rule, found[0].step, found[0].value) == ("flat", 299, 0.0)
    assert found[0].severity is Severity.INFO  # alone it proves nothing


def test_a_fall_within_the_noise_is_no_progress() -> None:
    rng = np.random.default_rng(0)
    frames = stream(
        400, lambda s: stuck(s, update_ratio=1e-3, loss=2.0 - 1e-4 * s + 0.5 * rng.normal())
    )
    assert {f.rule for f in said_by(not_learning(), frames)} == {"flat"}


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rates": (0.0, 0.0)},
        {"stepped": False},
        {"bad": [0]},
        {"loss": None},
        {"update_ratio": math.nan, "loss": None},
        {"update_ratio": [1e-8] * 7 + [1e-3]},
    ],
    ids=["rests on purpose", "no step", "not finite", "no loss", "nothing seen", "one layer moves"],
)
def test_standing_still_with_a_reason_is_no_fault(changes) -> None:
    assert rules(**changes) == set()


def test_a_rate_that_rises_is_a_warm_up() -> None:
    def warm_up(step):
        rate = 1e-7 * min(step, 200)
        return stuck(step, learning_rates=(rate,), update_ratio=0.1 * rate)

    said = said_by(not_learning(stall_steps=10**9), stream(300, warm_up))
    assert said
    assert min(f.step for f in said) >= 200


def test_a_rate_that_only_falls_is_none() -> None:
    frames = stream(100, lambda s: stuck(s, learning_rates=(1e-9 * 0.99**s,)))
    assert "still" in {f.rule for f in said_by(not_learning(), frames)}


@pytest.mark.parametrize("rates", [(), (math.nan,)])
def test_without_a_known_rate_standing_still_is_judged_too(rates) -> None:
    assert "still" in rules(learning_rates=rates)


def test_a_loss_that_falls_is_learning_whatever_the_update() -> None:
    frames = stream(1000, lambda s: stuck(s, loss=2.0 * 0.99**s))
    assert [f.step for f in said_by(not_learning(), frames) if f.step >= 15] == []


def test_a_plateau_after_progress_is_no_fault() -> None:
    frames = stream(
        600,
        lambda s: make_frame(
            s,
            [10 ** (-s / 50)] * 4,
            update_ratio=1e-3 * 10 ** (-s / 50),
            loss=0.3 + 2 * math.exp(-s / 20),
        ),
    )
    assert said_by(NotLearning(), frames) == []


def test_a_plateau_before_learning_is_no_alarm() -> None:
    frames = stream(
        1000,
        lambda s: stuck(s, update_ratio=1e-3, loss=2.3 if s < 600 else 2.3 * 0.995 ** (s - 600)),
    )
    assert said_by(NotLearning(), frames) == []
