"""A learning rate factor: the steps are smaller, and no schedule ever sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch

from lightning_gradguard.remedies import LearningRate, ReduceLearningRate
from lightning_gradguard.remedies.testing import trouble
from tests.e2e.guard_cases import (
    Adversaries,
    At,
    From,
    assert_same,
    batches,
    classifier,
    done,
    guard,
    normed,
    train,
    with_step,
)
from tests.e2e.guard_schedules import SCHEDULES, scheduled
from tests.e2e.guard_schedules import by_hand as scaled_by_hand
from tests.e2e.models import mlp
from tests.e2e.modes import MODES

SGD, AdamW = torch.optim.SGD, torch.optim.AdamW
START, FACTOR = 3, 0.3
FACTORS = (FACTOR, FACTOR)  # of the parameter groups


class Rates(pl.Callback):
    """What a schedule, and anybody else, sees between the steps."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        configs = trainer.lr_scheduler_configs
        last = [config.scheduler.get_last_lr() for config in configs]
        self.seen.append(([float(group["lr"]) for group in groups], last))


def by_hand(make, factors=FACTORS, start=START):
    return scaled_by_hand(make, factors, start)


def slower(*decisions):
    return guard(remedies=[From([START], *(decisions or [LearningRate(FACTOR, "asked")]))])


def grouped(kind, **options):
    """Two parameter groups with rates of their own."""

    def make(parameters, lr, **more):
        first, *rest = parameters
        rate = torch.tensor(0.2) if isinstance(lr, torch.Tensor) else 0.2
        return kind([{"params": [first], "lr": rate}, {"params": rest}], lr=lr, **more)

    return classifier(normed, make, **{"lr": 0.1, **options})


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_no_schedule_sees_the_factor_and_every_step_has_it(name, kind):
    make = scheduled(SCHEDULES[name], grouped(kind))
    seen, expected = Rates(), Rates()
    guarded = slower()
    run = train(make, guarded, seen, max_epochs=2)
    assert_same(run, train(by_hand(make), expected, max_epochs=2))
    assert seen.seen == expected.seen
    if name != "ReduceLROnPlateau":  # it follows the loss, which the factor changes
        untouched = Rates()
        train(make, untouched, max_epochs=2)
        assert seen.seen == untouched.seen
    assert done(guarded, "reduce_lr") == [START]


TENSOR_RATES = [(SGD, {}), (SGD, {"fused": True}), (AdamW, {}), (AdamW, {"fused": True})]


@pytest.mark.parametrize(("kind", "options"), [*TENSOR_RATES, (SGD, {"foreach": True})], ids=str)
def test_a_rate_that_is_a_tensor_stays_the_same_tensor(kind, options):
    make = grouped(kind, lr=torch.tensor(0.1), **options)
    tensors = []

    class Same(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            tensors.extend(group["lr"] for group in trainer.optimizers[0].param_groups)

    run = train(make, slower(), Same())
    assert_same(run, train(by_hand(make)))
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in tensors[:2]}
    assert [float(tensor) for tensor in tensors[:2]] == pytest.approx([0.2, 0.1])


@pytest.mark.parametrize(
    "name",
    [
        "fp32",
        "bf16-mixed",
        "scaler",
        "scaler, fused Adam",
        "clipping by norm",
        "clipping by value",
        "tied",
        "compiled",
        "fused SGD",
        "fp32, batch norm and dropout",
    ],
)
def test_every_mode_has_smaller_steps(name):
    mode = MODES[name]
    options = {"scaled": mode.uses_scaler, "data": batches(64, *mode.shape[1:]), **mode.options}
    run = train(mode.model, slower(), **options)
    assert_same(run, train(by_hand(mode.model), **options))


def test_a_line_search_reads_its_rate_before_it_looks_so_the_factor_holds_from_the_next_step_on():
    mode = MODES["line search"]
    run = train(mode.model, guarded := slower(), data=batches(64, 6))
    assert_same(run, train(by_hand(mode.model, start=START + 1), data=batches(64, 6)))
    assert done(guarded, "reduce_lr") == [START]


@pytest.mark.parametrize("scaled", [False, True])
def test_under_accumulation_the_factor_holds_for_whole_windows(scaled):
    options = {"accumulate_grad_batches": 3, "scaled": scaled}
    make = grouped(SGD)
    guarded = guard(remedies=[From([1], LearningRate(FACTOR, "asked"))])
    assert_same(train(make, guarded, **options), train(by_hand(make, start=1), **options))


def test_each_group_may_have_its_own_factor_and_of_several_the_smallest_holds():
    wishes = [LearningRate(0.5, "all"), LearningRate(0.7, "first", [0]), LearningRate(0.1, "", [1])]
    make = grouped(SGD)
    run = train(make, slower(*wishes))
    assert_same(run, train(by_hand(make, factors=(0.5, 0.1))))


@pytest.mark.parametrize("use_pl_optimizer", [True, False])
def test_each_of_several_optimizers_has_its_own_factor(use_pl_optimizer):
    class Slower(Adversaries):
        """The second optimizer has a smaller rate from the third of its steps on."""

        def training_step(self, batch, batch_idx):
            group = self.optimizers(use_pl_optimizer=False)[1].param_groups[0]
            group["lr"] = 0.01 * (FACTOR if batch_idx >= START else 1.0)
            super().training_step(batch, batch_idx)
            group["lr"] = 0.01

    class Second(From):
        def decide(self, moment):
            return super().decide(moment) if moment.optimizer_index == 1 else ()

    guarded = guard(remedies=[Second([START], LearningRate(FACTOR, "asked"))])
    run = train(lambda: Adversaries(use_pl_optimizer=use_pl_optimizer), guarded)
    assert_same(run, train(lambda: Slower(use_pl_optimizer=use_pl_optimizer)))


class Trouble(ReduceLearningRate):
    """Cut and heal as for a fault that comes and goes at given steps."""

    def __init__(self, steps, **options):
        super().__init__("exploding", **options)
        self.steps = steps

    def decide(self, moment):
        now = [trouble("exploding", step=moment.step)] if moment.step in self.steps else []
        return super().decide(replace(moment, episodes=now))


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.parametrize("stop_at", [5, 7, 8, 12, 19])
@pytest.mark.parametrize("schedule", ["OneCycleLR", "ExponentialLR"])
def test_a_resumed_run_goes_on_with_the_factor_and_heals_like_one_that_went_through(
    stop_at, schedule, tmp_path
):
    rows = list(batches(64, 6))

    def same_rows(_module, step, _batch, batch_idx):
        return step(rows[batch_idx], batch_idx)

    make = with_step(scheduled(SCHEDULES[schedule], grouped(AdamW)), same_rows)

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == stop_at:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

    def guarded():
        return guard(remedies=[Trouble([4, 6], cooldown_steps=2, recovery_steps=4)])

    options = {"max_epochs": -1, "max_steps": 20, "data": batches(64, 6)}
    whole = train(make, once := guarded(), **options)
    train(make, guarded(), Save(), **{**options, "max_steps": stop_at})
    resumed = train(make, again := guarded(), ckpt_path=tmp_path / "last.ckpt", **options)
    assert_same(resumed, whole)
    assert again.actions == once.actions
    assert done(once, "reduce_lr") == [4, 6]
    assert len(done(once, "restore_lr")) == 1
    factors = {round(action.numbers["lr_factor"], 6) for action in once.actions}
    assert factors == {0.5, 0.25, 1.0}


def test_a_factor_for_a_few_steps_is_gone_afterwards():
    make = classifier(mlp, SGD)
    guarded = guard(remedies=[At({2, 3}, LearningRate(FACTOR, "asked"))])
    run = train(make, guarded, max_steps=4)
    other = train(by_hand(make, start=2), max_steps=4)
    assert_same(run, other)
    assert run.trainer.optimizers[0].param_groups[0]["lr"] == 0.01
