"""A loss that runs away."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors import Diverging
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream

EVEN = np.ones(8)


def diverging(**changes):
    return Diverging(**{"excess": 0.5, "min_update_ratio": 0.02, **changes})


def climbing(step, **changes):
    fields = {"gradients": EVEN, "update_ratio": 0.1, "loss": 1.0 if step < 20 else 4.0}
    return make_frame(step, **{**fields, **changes})


def rules(frames, **changes):
    return {f.rule for f in said_by(diverging(**changes), frames)}


def test_patience_is_what_was_asked_for() -> None:
    assert Diverging(patience_steps=5).patience_steps_by_kind == {"diverging": 5}


def test_a_loss_that_climbs_under_large_updates_runs_away() -> None:
    first, *_ = said_by(diverging(), stream(41, climbing))
    assert (first.kind, first.rule) == ("diverging", "runs away")
    assert first.severity is Severity.ERROR
    assert first.value > first.limit == 1.5
    assert 20 < first.step < 30  # when half of ten losses are high
    assert "above the 1 where it started" in first.message


def test_weights_that_have_outgrown_their_start_are_to_blame_too() -> None:
    frames = stream(60, lambda s: climbing(s, update_ratio=1e-3, weights=1.0 + 0.05 * s))
    assert rules(frames) == {"runs away"}
    assert rules(frames, growth=10.0) == set()


def test_large_steps_of_nearly_all_layers_that_bring_nothing_swing() -> None:
    rng = np.random.default_rng(0)
    frames = stream(100, lambda s: climbing(s, loss=1.0 + 0.05 * rng.normal()))
    assert rules(frames) == {"swings"}
    (first, *_) = said_by(diverging(), frames)
    assert (first.value, first.limit) == (pytest.approx(0.1), 0.02)


def test_large_steps_of_few_layers_or_for_a_while_do_not_swing() -> None:
    few = np.append([0.1, 0.1], np.full(6, 1e-3))
    assert rules(stream(100, lambda s: climbing(s, loss=1.0, update_ratio=few))) == set()
    pauses = stream(100, lambda s: climbing(s, loss=1.0, update_ratio=1e-3 if s % 15 == 0 else 0.1))
    assert rules(pauses) == set()


def test_large_steps_that_bring_the_loss_down_do_not_swing() -> None:
    assert rules(stream(200, lambda s: climbing(s, loss=2.0 * 0.98**s))) == set()


def test_what_only_decay_moves_does_not_swing() -> None:
    frames = stream(100, lambda s: climbing(s, loss=1.0, update_ratio=0.1, weights=0.9**s * EVEN))
    assert rules(frames) == set()


def unbounded(age, *, step=None, **changes):
    fields = {"loss": -(1.1**age), "gradients": (1.1**age) * EVEN, "update_ratio": 1e-3}
    return climbing(age if step is None else step, **{**fields, **changes})


def test_a_loss_below_zero_that_doubles_and_doubles_again_has_no_bound() -> None:
    first, *_ = said_by(diverging(), stream(100, unbounded))
    assert first.rule == "without bound"
    assert first.value < first.limit < 0.0
    assert "sign of the loss" in first.advice


def test_a_loss_that_falls_as_fast_as_ever_far_beyond_its_start_has_no_bound() -> None:
    """As a clamped likelihood of the wrong sign does, whose gradients stay as they are."""
    frames = stream(800, lambda s: unbounded(s, gradients=EVEN, loss=-1.0 - 0.5 * s))
    assert rules(frames) == {"without bound"}


def test_a_likelihood_that_falls_far_but_ever_more_slowly_has_a_bound() -> None:
    frames = stream(600, lambda s: unbounded(s, gradients=EVEN, loss=0.1 - 10.0 * np.log1p(s)))
    assert rules(frames) == set()


def test_weights_that_thaw_are_no_growth() -> None:
    """A loss that rises with a harder task, while more and more layers are let go."""

    def frame_at(step):
        thawed = np.where(np.arange(len(EVEN)) < step // 40 + 1, 1.0, np.nan)
        return climbing(step, gradients=thawed, weights=thawed, update_ratio=1e-3)

    assert rules(stream(150, frame_at)) == set()


def test_a_loss_that_has_settled_far_below_zero_has_a_bound() -> None:
    frames = stream(200, lambda s: unbounded(min(s, 80), step=s))
    assert max(f.step for f in said_by(diverging(), frames)) < 110


@pytest.mark.parametrize(
    "frame_at",
    [
        lambda s: unbounded(s, gradients=EVEN, loss=-1.0 - 0.1 * s),
        lambda s: unbounded(s, loss=-10.0 + 5.0 * 0.95**s),
        lambda s: unbounded(s, loss=5.0 - 0.5 * min(s, 20)),
    ],
    ids=["nothing grows", "a likelihood that settles", "a loss that falls below zero and stops"],
)
def test_a_loss_below_zero_is_no_fault_by_itself(frame_at) -> None:
    assert rules(stream(150, frame_at)) == set()


def another_task(step):
    loss = 0.995**step if step < 300 else 3.0 * 0.995 ** (step - 300)
    return climbing(step, update_ratio=1e-3, loss=loss)


def outlier_batches(step):
    return climbing(step, loss=1e6 if step % 20 == 19 else 2.0 * 0.99**step)


def adversary(step):
    return climbing(step, update_ratio=2e-3, loss=0.7 + 0.005 * step, weights=1.0 + 1e-3 * step)


def restart(step):
    """The loss falls fast at first; a warm restart raises it to where it began."""
    few = np.append([0.1, 0.1], np.full(6, 1e-3))
    return climbing(
        step, update_ratio=few, loss=0.95 * 0.9**step if step < 20 else 0.3 if step < 220 else 0.9
    )


def comes_back(step):
    """It is still above the start when it turns, but well below where it was."""
    return climbing(step, loss=1.0 if step < 20 else 4.0 if step < 40 else 2.0)


@pytest.mark.parametrize(
    "frame_at",
    [another_task, outlier_batches, adversary, restart],
    ids=lambda frame_at: frame_at.__name__,
)
@pytest.mark.parametrize("make", [diverging, Diverging], ids=["quick", "default"])
def test_a_loss_that_rises_for_another_reason_does_not_diverge(make, frame_at) -> None:
    assert said_by(make(), stream(500, frame_at)) == []


def test_a_loss_that_comes_back_does_not_run_away() -> None:
    steps = [f.step for f in said_by(diverging(), stream(58, comes_back)) if f.rule == "runs away"]
    assert steps
    assert max(steps) <= 45  # half of ten losses are lower


@pytest.mark.parametrize(
    "changes",
    [{"update_ratio": 1e-3}, {"update_ratio": math.nan}, {"bad": [0]}, {"loss": None}],
    ids=["small updates", "update unseen", "not finite", "no loss"],
)
def test_what_only_looks_like_it_is_left_alone(changes) -> None:
    assert rules(stream(100, lambda s: climbing(s, **changes))) == set()


def test_noise_of_the_loss_is_no_divergence() -> None:
    rng = np.random.default_rng(0)
    few = np.append([0.1], np.full(7, 1e-3))
    frames = stream(400, lambda s: climbing(s, update_ratio=few, loss=0.1 + abs(rng.normal())))
    assert rules(frames) == set()
