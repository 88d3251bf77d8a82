"""A dry run changes nothing, in any mode, and records what would have been done."""

from __future__ import annotations

import pytest
import torch

from lightning_gradguard.remedies import GoBack, LearningRate, Rollback, Skip, Stop
from tests.e2e.guard_cases import (
    Adversaries,
    From,
    OnlyScales,
    assert_same,
    classifier,
    done,
    guard,
    normed,
    train,
    with_factor,
    with_loss_factor,
)
from tests.e2e.guard_schedules import SCHEDULES, scheduled
from tests.e2e.models import random_data
from tests.e2e.modes import MODES
from tests.e2e.test_transparency import assert_identical, everything_left, scaler

FROM = 2


class Everything(From):
    """Ask for everything from the third step on."""

    def __init__(self):
        wishes = [
            Skip(torch.tensor(data=True), "asked"),
            LearningRate(0.1, "asked"),
            GoBack(0, "asked"),
            Stop("asked", as_error=True),
        ]
        super().__init__([FROM], *wishes)


def everything(**options):
    remedies = [Everything(), Rollback("nonfinite", every_n_steps=1, patience_steps=1)]
    return guard(clip=1e-3, remedies=remedies, dry_run=True, **options)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", [name for name in MODES if name != "compiled"])
def test_a_dry_run_trains_as_if_alone_in_every_mode(name):
    mode = MODES[name]

    def run(callbacks):
        options = {**mode.options, **({"plugins": [scaler()]} if mode.uses_scaler else {})}
        return everything_left(mode.model, random_data(*mode.shape), callbacks, **options)

    guarded = everything()
    assert_identical(run([guarded]), run([]))
    assert {action.what for action in guarded.actions} >= {
        "clip",
        "skip",
        "reduce_lr",
        "rollback",
        "raise",
    }
    assert all(action.dry_run for action in guarded.actions)


CLIPPERS = [
    "norm",
    "value",
    "autoclip",
    "zclip",
    "agc",
    "robust",
    0.01,
    {"network.0": "agc", "*": 0.1},
]


@pytest.mark.parametrize("clip", CLIPPERS, ids=str)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_no_clipper_touches_anything(clip, scaled, fused):
    make = classifier(normed, torch.optim.SGD, fused=fused)
    make = with_loss_factor(make, {3, 9, 30}, 100.0)
    guarded = guard(clip=clip, dry_run=True)

    def run(*callbacks):
        plugins = {"plugins": [OnlyScales()]} if scaled else {}
        return train(make, *callbacks, max_epochs=5, **plugins)

    assert_same(run(guarded), run())
    assert done(guarded, "clip")


def test_it_predicts_what_the_first_real_action_would_be():
    make = with_loss_factor(classifier(normed, torch.optim.SGD), {30}, 100.0)
    for clip in ("norm", "value", "autoclip", "zclip", "robust", 0.3):
        dry, real = guard(clip=clip, dry_run=True), guard(clip=clip)
        train(make, dry, max_epochs=5)
        train(make, real, max_epochs=5)
        assert dry.actions[0].step == real.actions[0].step
        assert dry.actions[0].numbers == pytest.approx(real.actions[0].numbers)


@pytest.mark.parametrize("use_pl_optimizer", [True, False])
def test_adversaries_are_left_alone(use_pl_optimizer):
    def make():
        return Adversaries(use_pl_optimizer=use_pl_optimizer)

    guarded = everything()
    assert_same(train(make, guarded), train(make))
    assert {action.optimizer_index for action in guarded.actions} == {0, 1}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_left_alone(name):
    make = scheduled(SCHEDULES[name], classifier(normed, torch.optim.AdamW))
    assert_same(train(make, everything()), train(make))


def test_skipping_for_ever_ends_nothing():
    make = with_factor(classifier(), range(2, 99))
    guarded = guard(on_nonfinite="skip", dry_run=True, max_consecutive_skips=1)
    assert_same(train(make, guarded), train(make))
    assert done(guarded, "skip") == [2, 3, 4, 5, 6, 7]


def test_the_summary_says_what_would_have_been_done():
    guarded = everything()
    train(classifier(), guarded)
    text = str(guarded.summary())
    for sentence in (
        "would have clipped 8 of 8 steps (100 %)",
        "would have left out 6 steps, the first of them 2, 3, 4, 5 and 6",
        "would have cut the learning rate at step 2",
        "would have gone back at 6 steps",
        "would have ended the training at step 2",
    ):
        assert sentence in text
    assert guarded.last_frame.lr_factor == 1.0 or guarded.last_frame.lr_factor is None


def test_a_line_search_counts_each_step_once() -> None:
    """What a dry run would leave out is what the real one leaves out."""
    found = {}
    for dry_run in (True, False):
        guarded = guard(on_nonfinite="skip", dry_run=dry_run)
        make = with_factor(classifier(normed, torch.optim.LBFGS, max_iter=4), {3})
        # Dry, all steps from then on are NaN, so that only one is trained.
        train(make, guarded, limit_train_batches=4)
        found[dry_run] = done(guarded, "skip")
    assert found == {True: [3], False: [3]}
