"""Lightning's own callbacks beside a guard that goes back: averages, and groups added late."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    EMAWeightAveraging,
    StochasticWeightAveraging,
)
from torch import nn

from lightning_gradguard.remedies import GoBack, Rollback
from tests.e2e.guard_cases import (
    NONE_WARNING,
    At,
    assert_same,
    batch_number,
    batches,
    classifier,
    done,
    guard,
    normed,
    train,
    with_factor,
    without,
)

AdamW = torch.optim.AdamW
ROWS = (128, 6)  # 16 batches
BROKEN = 9


def broken_weights():
    """Return a module whose weights somebody breaks before a step."""

    def make():
        module = classifier(normed, AdamW)()
        step = module.training_step

        def training_step(*batch):
            if batch_number(module) == BROKEN:
                with torch.no_grad():
                    next(module.parameters()).fill_(torch.nan)
            return step(*batch)

        module.training_step = training_step
        return module

    return make


def returning(step=BROKEN, before=5):
    """Return a guard that goes back after a step."""
    back = At({step}, GoBack(before, "asked"))
    return guard(remedies=[back, Rollback("dead", every_n_steps=2, generations=12)])


def test_an_average_of_the_weights_goes_back_with_them() -> None:
    average, expected = (EMAWeightAveraging(decay=0.5) for _ in range(2))
    run = train(broken_weights(), returning(), average, data=batches(*ROWS))
    lost = {4, 5, 6, 7, 8, BROKEN}
    data = batches(*ROWS, lacking=lost)
    assert_same(run, train(classifier(normed, AdamW), expected, data=data))
    assert all(weights.isfinite().all() for weights in run.module.parameters())


def test_it_goes_back_while_weights_are_averaged_over_epochs() -> None:
    swa = StochasticWeightAveraging(1e-2, swa_epoch_start=1, annealing_epochs=1)
    guarded = returning(step=10, before=7)  # back to an epoch before the average began
    data = batches(64, 6)
    run = train(classifier(normed, AdamW), guarded, swa, data=data, max_epochs=3)
    assert done(guarded, "rollback") == [10]
    assert all(weights.isfinite().all() for weights in run.module.parameters())


class Starts(pl.Callback):
    """Remember the weights at the start of each epoch, which is when they are averaged."""

    def __init__(self):
        self.weights = []

    def on_train_epoch_start(self, trainer, module):
        self.weights.append([weights.detach().clone() for weights in module.parameters()])


def plain():
    """Return a network without norm layers, for which SWA would add an epoch."""
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("step", "before", "counted"),
    [(10, 7, (2, 3)), (18, 15, (1, 3)), (18, 7, (3,))],
    ids=["before its start", "by one weight", "before its start, later"],
)
def test_what_an_average_had_taken_in_since_is_not_in_it(step, before, counted) -> None:
    """Epochs have eight steps, and the average begins with the second."""
    swa = StochasticWeightAveraging(1e-2, swa_epoch_start=2, annealing_epochs=1)
    guarded, starts = returning(step=step, before=before), Starts()
    data = batches(64, 6)
    run = train(classifier(plain, AdamW), guarded, swa, starts, data=data, max_epochs=4)
    assert done(guarded, "rollback") == [step]
    for i, weights in enumerate(run.module.parameters()):
        expected = torch.stack([starts.weights[epoch][i] for epoch in counted]).mean(0)
        torch.testing.assert_close(weights.detach(), expected)


class Late(EMAWeightAveraging):
    """Begin to average with a step."""

    def __init__(self, start):
        super().__init__(decay=0.5, update_starting_at_step=start)


@pytest.mark.parametrize(
    "make_average",
    [lambda: StochasticWeightAveraging(1e-2, swa_epoch_start=2), lambda: Late(20)],
    ids=["over epochs", "over steps"],
)
def test_an_average_that_begins_after_the_state_is_never_left_untrained(make_average) -> None:
    """Two epochs of 12 steps; from the last one back to before anything was averaged."""
    make, data = classifier(plain, AdamW), batches(96, 6)
    guarded = returning(step=23, before=10)
    run = train(make, guarded, make_average(), data=data, max_epochs=2)
    assert done(guarded, "rollback") == [23]
    expected = train(make, data=data, max_steps=10).weights
    torch.testing.assert_close(run.weights, expected, rtol=0.0, atol=0.0)


class Thaw(BaseFinetuning):
    """Train the first layer from the second epoch on."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.network[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network[0], optimizer, lr=0.01)


def trainable(network=normed):
    """Return a module that hands the optimizer only what is not frozen."""

    def make():
        module = classifier(network, AdamW)()
        module.configure_optimizers = lambda: AdamW(
            [p for p in module.parameters() if p.requires_grad], lr=0.01
        )
        return module

    return make


def test_it_never_goes_back_to_before_a_group_was_added() -> None:
    guarded = returning(step=12, before=6)
    run = train(trainable(), guarded, Thaw(), data=batches(64, 6), max_epochs=2)
    plain = train(trainable(), Thaw(), data=batches(64, 6), max_epochs=2)
    assert_same(run, plain)
    assert [(a.what, a.step) for a in guarded.actions] == [("give_up", 12)]


def test_it_goes_back_to_after_a_group_was_added() -> None:
    guarded = returning(step=12, before=10)
    run = train(trainable(), guarded, Thaw(), data=batches(64, 6), max_epochs=2)
    assert [(a.what, a.step) for a in guarded.actions] == [("rollback", 12)]
    assert len(run.trainer.optimizers[0].param_groups) == 2


class Exchanges(pl.Callback):
    """Put another layer in, with a state of its own, in the middle of training."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 5:
            torch.manual_seed(0)
            pl_module.network[0] = nn.Linear(6, 8, bias=False)
            (optimizer,) = trainer.optimizers
            optimizer.param_groups[0]["params"][:] = pl_module.parameters()
            optimizer.state.clear()


def test_it_never_goes_back_to_before_a_layer_was_exchanged() -> None:
    make, guarded = classifier(normed, AdamW), returning(step=7, before=5)
    run = train(make, guarded, Exchanges())
    assert_same(run, train(make, Exchanges()))
    assert [(a.what, a.step) for a in guarded.actions] == [("give_up", 7)]


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned")
def test_a_module_without_optimizers_is_guarded_to_the_end(caplog) -> None:
    def make():
        module = classifier(normed)()
        module.configure_optimizers = lambda: None
        return module

    train(make, guard(policy="auto"))
    assert not [record for record in caplog.records if record.levelname == "CRITICAL"]


@pytest.mark.filterwarnings(NONE_WARNING)
def test_a_mask_that_validation_has_cached_does_no_harm() -> None:
    class Masked(nn.Module):
        """Keep a mask from the first call on, as attention does."""

        def __init__(self):
            super().__init__()
            self.inner = normed()
            self.register_buffer("mask", None, persistent=False)

        def forward(self, inputs):
            if self.mask is None:
                self.mask = torch.ones(inputs.shape[1])
            return self.inner(inputs * self.mask.clone())

    def make():
        module = classifier(Masked, AdamW)()
        with torch.inference_mode():
            module.network(torch.ones(2, 6))
        return module

    assert make().network.mask.is_inference()
    guarded = guard(on_nonfinite="skip")
    run = train(with_factor(make, {3}), guarded)
    assert done(guarded, "skip") == [3]
    assert_same(run, train(without(make, {3})))


@pytest.mark.filterwarnings(NONE_WARNING)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_part_is_put_back_like_any_other() -> None:
    make = classifier(lambda: torch.jit.script(normed()), AdamW)
    guarded = guard(on_nonfinite="skip")
    run = train(with_factor(make, {3}), guarded)
    assert done(guarded, "skip") == [3]
    # The compiler of scripts fuses from the third call on, so that the last bits differ.
    expected = train(without(make, {3}))
    torch.testing.assert_close(run.module.state_dict(), expected.module.state_dict())
