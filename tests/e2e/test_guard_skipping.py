"""A step that is left out never happened: weights, momenta, buffers and gradient scaler agree."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from lightning_gradguard.errors import TrainingStoppedError
from tests.e2e.guard_cases import (
    NONE_WARNING,
    ROWS,
    Adversaries,
    assert_same,
    batch_number,
    batches,
    classifier,
    done,
    guard,
    matrices,
    normed,
    train,
    with_factor,
    with_loss_factor,
    without,
)
from tests.e2e.modes import MODES

pytestmark = pytest.mark.filterwarnings(NONE_WARNING)

BAD = (2, 5)

FIRST_ORDER = {
    "ASGD": {},
    "Adadelta": {},
    "Adafactor": {},
    "Adagrad": {"weight_decay": 0.1},
    "Adam": {"weight_decay": 0.1, "amsgrad": True},
    "AdamW": {},
    "Adamax": {},
    "Muon": {},
    "NAdam": {"decoupled_weight_decay": True, "weight_decay": 0.1},
    "RAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Rprop": {},
    "SGD": {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
}
FUSED = ("SGD", "Adam", "AdamW", "Adagrad")
OPTIMIZERS = {
    **{name: (name, options) for name, options in FIRST_ORDER.items()},
    **{f"{name}, fused": (name, {**FIRST_ORDER[name], "fused": True}) for name in FUSED},
    **{f"{name}, foreach": (name, {**FIRST_ORDER[name], "foreach": True}) for name in FUSED},
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scaled", [False, True], ids=["fp32", "scaler"])
def test_a_batch_of_nan_leaves_what_no_batch_leaves_with_every_optimizer(name, scaled):
    kind, options = OPTIMIZERS[name]
    network = matrices if kind == "Muon" else normed
    make = classifier(network, getattr(torch.optim, kind), **options)
    guarded = guard(on_nonfinite="skip")
    run = train(with_factor(make, BAD), guarded, scaled=scaled)
    assert_same(run, train(without(make, BAD), scaled=scaled))
    # Steps that a scaler refuses are none, so that the second bad batch is step 4.
    refused = scaled and not options.get("fused")
    assert done(guarded, "skip") == ([2, 4] if refused else [2, 5])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_bad_batch_of_several_that_add_up_drops_them_all(name):
    kind, options = OPTIMIZERS[name]
    network = matrices if kind == "Muon" else normed
    make = classifier(network, getattr(torch.optim, kind), **options)
    data = batches(72, 6)  # windows of 4, 4 and 1
    guarded = guard(on_nonfinite="skip")
    settings = {"accumulate_grad_batches": 4, "max_epochs": 2}
    run = train(with_factor(make, {5, 8}), guarded, data=data, **settings)
    assert_same(run, train(without(make, {4, 5, 6, 7, 8}), data=data, **settings))
    assert done(guarded, "skip") == [1, 2]


# Their course depends on how many batches have come, or on random numbers that each takes.
COUNTING = (
    "fp32, batch norm and dropout",
    "clipping that begins late",
    "empty, unused and rarely used",
    "parameters that come later",
)
EVERY_MODE = [name for name in MODES if name not in COUNTING and "broken" not in name]


@pytest.mark.parametrize("name", EVERY_MODE)
def test_a_batch_of_nan_is_as_if_the_data_lacked_it_in_every_mode(name):
    mode = MODES[name]
    shape = (2 * mode.shape[0], *mode.shape[1:])
    spoil = with_loss_factor if name.startswith("sparse") else with_factor
    lacking = {4, 5, 6, 7} if "accumulation" in name else {5}
    options = {"scaled": mode.uses_scaler, **mode.options}
    guarded = guard(on_nonfinite="skip")
    bad = spoil(mode.model, {5}, float("nan"))
    run = train(bad, guarded, data=batches(*shape), **options)
    assert_same(run, train(mode.model, data=batches(*shape, lacking=lacking), **options))
    assert len(done(guarded, "skip")) == len(run.trainer.optimizers) - (name == "raw optimizer")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("use_pl_optimizer", "scaled"), [(True, False), (False, False), (True, True)]
)
def test_adversaries_sit_a_bad_batch_out(use_pl_optimizer, scaled):
    def make():
        return Adversaries(use_pl_optimizer=use_pl_optimizer)

    def make_absent():
        module = make()
        module.absent = BAD
        return module

    guarded = guard(on_nonfinite="skip")
    run = train(with_factor(make, BAD), guarded, scaled=scaled)
    assert_same(run, train(make_absent, scaled=scaled))
    assert done(guarded, "skip") == ([2, 2, 4, 4] if scaled else [2, 2, 5, 5])


class TwoLosses(Adversaries):
    """Both halves learn alone; in the fourth batch the loss of the second one is NaN."""

    def __init__(self, *, apart: bool) -> None:
        super().__init__()
        self.apart = apart

    def training_step(self, batch, batch_idx):
        bad = torch.nan if batch_number(self) == 3 else 1.0
        losses = self.maker(batch[0]).square().mean(), bad * self.critic(batch[0]).square().mean()
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        for loss, optimizer in zip(losses, optimizers, strict=True):
            self.manual_backward(loss)
            if self.apart:
                optimizer.step()
        if not self.apart:
            for optimizer in optimizers:
                optimizer.step()


@pytest.mark.parametrize("apart", [True, False])
def test_losses_are_judged_apart_where_each_optimizer_steps_after_its_own(apart):
    guarded = guard(on_nonfinite="skip")
    train(lambda: TwoLosses(apart=apart), guarded)
    skipped = [a.optimizer_index for a in guarded.actions if (a.what, a.step) == ("skip", 3)]
    assert skipped == ([1] if apart else [0, 1])
    assert len(done(guarded, "skip")) == len(skipped)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("fused", [False, True])
def test_a_huge_gradient_is_left_out_in_its_own_step(fused):
    make = classifier(matrices, torch.optim.AdamW, fused=fused)
    data = batches(320, 6)
    guarded = guard(on_exploding="skip")
    run = train(with_loss_factor(make, {30}, 1e6), guarded, data=data)
    assert_same(run, train(without(make, {30}), data=data))
    assert done(guarded, "skip") == [30]


def test_gradients_that_stay_large_cost_ten_steps_and_not_the_run():
    make = with_loss_factor(classifier(matrices, torch.optim.AdamW), range(30, 60), 30.0)
    data, first_ten = batches(480, 6), range(30, 40)
    guarded = guard(on_exploding="skip")
    assert_same(train(make, guarded, data=data), train(without(make, first_ten), data=data))
    assert done(guarded, "skip") == [*first_ten]


def test_a_spike_of_the_loss_is_left_out():
    make = classifier(normed, torch.optim.AdamW)
    data = batches(8 * 80, 6)
    guarded = guard(on_loss_spike="skip")
    run = train(with_loss_factor(make, {70}, 50.0), guarded, data=data)
    assert_same(run, train(without(make, {70}), data=data))
    assert done(guarded, "skip") == [70]


class Averages(nn.Module):
    """Buffers of all kinds: set anew, written in place, and counted in a plain tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("anew", torch.zeros(8))
        self.register_buffer("in_place", torch.zeros(8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("fleeting", torch.zeros(()), persistent=False)
        self.register_buffer("missing", None)

    def forward(self, inputs):
        hidden = torch.tanh(self.first(inputs))
        mean = hidden.detach().mean(0)
        self.anew = 0.9 * self.anew + 0.1 * mean
        self.in_place.mul_(0.9).add_(0.1 * mean)
        self.calls += 1
        self.fleeting += mean.sum()
        return self.last(hidden - self.anew + 0.1 * self.fleeting)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [{0}, {2}, {6, 7}], ids=str)
def test_buffers_of_every_kind_are_put_back(fused, bad):
    make = classifier(Averages, torch.optim.SGD, fused=fused)
    guarded = guard(on_nonfinite="skip")
    run = train(with_factor(make, bad), guarded)
    other = train(without(make, bad))
    assert_same(run, other)
    assert torch.equal(run.module.network.fleeting, other.module.network.fleeting)


class Rare(Averages):
    """A buffer that is written to for the first time when everybody thinks that it never is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rare", torch.zeros(3))

    def forward(self, inputs):
        if self.calls == 6:
            self.rare += 1.0
        return super().forward(inputs)


def test_a_buffer_that_could_not_be_put_back_is_named(caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    guarded = guard(on_nonfinite="skip")
    run = train(with_factor(classifier(Rare), {6}), guarded)
    assert run.module.network.rare.tolist() == [2.0, 2.0, 2.0]  # twice at six calls
    assert "network.rare" in caplog.text
    assert "network.rare" in str(guarded.summary())
    assert "network.anew" not in str(guarded.summary())


class Decays(torch.optim.SGD):
    """An optimizer that decays weights whether they have a gradient or not."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(0.9)
        super().step()
        return loss


def test_a_strangers_optimizer_that_moves_weights_without_gradients_is_undone():
    make = classifier(normed, Decays)
    data, lacking = batches(*ROWS), batches(*ROWS, lacking={5})
    run = train(with_factor(make, {5}), guard(on_nonfinite="skip"), data=data)
    assert_same(run, train(make, data=lacking))


class Looks(torch.optim.SGD):
    """An optimizer that reads all gradients, and expects them, as sharpness-aware ones do."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        norms = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        assert len(torch.stack(norms)) == 5
        super().step()
        return loss


def test_a_strangers_optimizer_finds_gradients_in_a_step_that_is_left_out():
    make = classifier(normed, Looks)
    data, lacking = batches(*ROWS), batches(*ROWS, lacking={5})
    run = train(with_factor(make, {5}), guard(on_nonfinite="skip"), data=data)
    assert_same(run, train(make, data=lacking))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_skipping_for_ever_ends_in_an_error_that_says_so(scaled, fused):
    make = with_factor(classifier(fused=fused), range(3, 99))
    guarded = guard(on_nonfinite="skip", max_consecutive_skips=2)
    message = "3 steps in a row had to be left out.*`max_consecutive_skips` allows 2. The weights"
    with pytest.raises(TrainingStoppedError, match=message):
        train(make, guarded, scaled=scaled, max_epochs=4)


def test_skipping_too_large_a_share_ends_in_an_error_that_says_so():
    make = with_factor(classifier(), range(0, 999, 3))
    guarded = guard(on_nonfinite="skip", max_skipped_fraction=0.3)
    message = r"34 of 100 steps.*`max_skipped_fraction` allows 0.3"
    with pytest.raises(TrainingStoppedError, match=message):
        train(make, guarded, max_epochs=40)


def test_skips_within_the_budget_end_nothing():
    make = with_factor(classifier(), {1, 2, 4, 5})
    guarded = guard(on_nonfinite="skip", max_consecutive_skips=2)
    train(make, guarded)
    assert done(guarded, "skip") == [1, 2, 4, 5]
