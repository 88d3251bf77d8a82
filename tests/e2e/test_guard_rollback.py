"""Going back: everything is as it was, and training goes on as if nothing had come in between."""

from __future__ import annotations

import copy

import pytest
import pytorch_lightning as pl
import torch

from lightning_gradguard.remedies import GoBack, Rollback
from tests.e2e.guard_cases import (
    Adversaries,
    At,
    Run,
    assert_same,
    batches,
    classifier,
    done,
    guard,
    normed,
    train,
)
from tests.e2e.guard_schedules import SCHEDULES, scheduled
from tests.e2e.modes import MODES
from tests.e2e.test_transparency import assert_identical

SGD, AdamW = torch.optim.SGD, torch.optim.AdamW
BACK = GoBack(5, "asked")


def keeping(every_n_steps=2, **options):
    """Return a remedy that keeps states, and never wants to go back itself."""
    return Rollback("dead", every_n_steps=every_n_steps, **options)


def returning(step=9, wish=BACK, **options):
    """Return a guard that goes back at a step: from after it to the newest state of step 4."""
    return guard(remedies=[At({step}, wish), keeping(**options)])


RETURNED = {5, 6, 7, 8, 9}  # and the batches that were for nothing


class Snapshots(pl.Callback):
    """Keep what is there after each batch."""

    def __init__(self):
        self.taken = []

    def on_train_batch_end(self, trainer, module, *_):
        self.taken.append(copy.deepcopy(Run(trainer, module).left))


def as_if_nothing_came(make, lost=frozenset({4, *RETURNED}), size=16, **options):
    """Train on the batches that count."""
    return train(make, data=batches(8 * size, 6, lacking=lost), **options)


OPTIMIZERS = {
    "sgd": (SGD, {"momentum": 0.9}),
    "adamw": (AdamW, {}),
    "adamw, fused": (AdamW, {"fused": True}),
    "adam, tensor rate": (torch.optim.Adam, {"lr": torch.tensor(0.01)}),
    "line search": (torch.optim.LBFGS, {"max_iter": 3}),
    "asgd": (torch.optim.ASGD, {}),
}


PAIRS = [(name, scaled) for name in OPTIMIZERS for scaled in (False, True)]
PAIRS.remove(("line search", True))  # Lightning refuses it


@pytest.mark.parametrize(("name", "scaled"), PAIRS)
def test_training_goes_on_as_if_the_batches_since_had_never_come(name, scaled):
    make = classifier(normed, OPTIMIZERS[name][0], **OPTIMIZERS[name][1])
    guarded = returning()
    run = train(make, guarded, data=batches(128, 6), scaled=scaled)
    assert_same(run, as_if_nothing_came(make, scaled=scaled))
    assert done(guarded, "rollback") == [9]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_back_too(name):
    make = scheduled(SCHEDULES[name], classifier(normed, AdamW))
    taken = Snapshots()
    train(make, returning(), taken, data=batches(128, 6))
    assert_identical(taken.taken[9], taken.taken[3])


@pytest.mark.parametrize("scaled", [False, True])
def test_under_accumulation_it_goes_back_by_whole_windows(scaled):
    make = classifier(normed, AdamW)
    options = {"accumulate_grad_batches": 2, "scaled": scaled}
    guarded = returning()
    run = train(make, guarded, data=batches(256, 6), **options)
    lost = frozenset(range(8, 20))
    assert_same(run, as_if_nothing_came(make, lost, 32, **options))


@pytest.mark.parametrize("use_pl_optimizer", [True, False])
def test_adversaries_go_back_together(use_pl_optimizer):
    def make():
        return Adversaries(use_pl_optimizer=use_pl_optimizer)

    run = train(make, returning(), data=batches(128, 6))
    assert_same(run, as_if_nothing_came(make))


@pytest.mark.parametrize(
    "name", ["tied", "compiled", "bf16-mixed", "bf16-true", "clipping by norm"]
)
def test_other_modes_go_back_as_well(name):
    mode = MODES[name]
    run = train(mode.model, returning(), data=batches(128, 6), **mode.options)
    assert_same(run, as_if_nothing_came(mode.model, **mode.options))


@pytest.mark.parametrize(("wish", "step"), [(1, 0), (3, 3), (8, 6), (9, 9), (11, 9)])
def test_of_several_states_the_newest_that_is_old_enough_is_taken(wish, step):
    make, rows = classifier(normed, AdamW), batches(96, 6)
    taken = Snapshots()
    guarded = returning(10, GoBack(wish, "asked"), every_n_steps=3, generations=9)
    train(make, guarded, taken, data=rows)
    # After no step there is no optimizer state.
    until = train(make, data=rows, max_steps=step)
    assert_identical(taken.taken[10], until.left)


def test_it_may_go_back_twice_to_the_same_state():
    wishes = [At({7}, GoBack(4, "once")), At({10}, GoBack(4, "twice"))]
    taken = Snapshots()
    guarded = guard(remedies=[*wishes, keeping(4, generations=9)])
    train(classifier(normed, AdamW), guarded, taken, data=batches(128, 6))
    assert_identical(taken.taken[7], taken.taken[3])
    assert_identical(taken.taken[10], taken.taken[3])
    assert [action.why for action in guarded.actions] == ["once", "twice"]


@pytest.mark.parametrize("options", [{"max_bytes": 100}, {"generations": 1}], ids=str)
def test_without_a_state_that_is_old_enough_nothing_happens_and_it_is_said(options):
    make = classifier(normed, AdamW)
    guarded = returning(**options)
    run = train(make, guarded, data=batches(128, 6))
    assert_same(run, train(make, data=batches(128, 6)))
    (action,) = guarded.actions
    assert (action.what, action.step) == ("give_up", 9)
    assert action.why == "no state from before step 5"


def test_the_memory_budget_keeps_as_many_states_as_fit():
    make = classifier(normed, SGD)
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in make().state_dict().values())
    for wish, found in [(6, True), (4, True), (2, False)]:
        guarded = returning(8, GoBack(wish, "asked"), max_bytes=3 * numbers, generations=9)
        train(make, guarded, data=batches(96, 6))
        assert bool(done(guarded, "rollback")) == found


class Poisons(pl.Callback):
    """Write NaN into the weights, before given batches."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx in self.numbers:
            with torch.no_grad():
                module.network[0].weight[0, 0] = torch.nan


def test_weights_that_broke_are_those_of_the_last_good_state_and_the_rate_is_cut():
    taken, make = Snapshots(), classifier(normed, AdamW)
    remedy = Rollback("nonfinite", every_n_steps=5, margin_steps=2)
    guarded = guard(remedies=[remedy])
    run = train(make, Poisons(20), guarded, taken, data=batches(8 * 40, 6))
    (back,) = done(guarded, "rollback")
    assert back <= 25
    # NaN came with step 20, the state must be 2 steps older than that, and every fifth is kept.
    assert_identical(taken.taken[back], taken.taken[14])
    assert torch.isfinite(run.weights).all()
    assert done(guarded, "reduce_lr") == [back]
    assert run.trainer.optimizers[0].param_groups[0]["lr"] == 0.01


def test_on_nonfinite_rollback_saves_a_run_from_its_start():
    make = classifier(normed, AdamW)
    guarded = guard(on_nonfinite="rollback")
    run = train(make, Poisons(6), guarded, data=batches(8 * 30, 6))
    assert len(done(guarded, "rollback")) == 1
    assert torch.isfinite(run.weights).all()
    assert not torch.isfinite(train(make, Poisons(6), data=batches(8 * 30, 6)).weights).all()


def test_it_goes_back_no_oftener_than_it_may():
    remedy = Rollback("nonfinite", every_n_steps=5, margin_steps=2, max_rollbacks=2)
    guarded = guard(remedies=[remedy])
    run = train(classifier(normed, AdamW), Poisons(20, 60, 100), guarded, data=batches(8 * 130, 6))
    assert len(done(guarded, "rollback")) == 2
    assert not torch.isfinite(run.weights).all()
