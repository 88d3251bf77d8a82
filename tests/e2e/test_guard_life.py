"""What is left of a guard: after an error, Ctrl-C, a second fit, a checkpoint."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import OnExceptionCheckpoint

from lightning_gradguard.remedies import LearningRate, LimitUpdates
from tests.e2e.guard_cases import (
    NONE_WARNING,
    Adversaries,
    At,
    From,
    assert_same,
    batch_number,
    batches,
    classifier,
    done,
    guard,
    normed,
    train,
    with_factor,
    with_loss_factor,
    with_step,
)
from tests.e2e.guard_schedules import by_hand
from tests.e2e.models import Classifier, hooks_left, mlp, random_data, trainer
from tests.e2e.test_transparency import assert_identical

SLOW = LearningRate(0.5, "asked")


def acting(**options):
    """Return a guard that clips, slows down, keeps states and may leave steps out."""
    return guard(
        clip=0.05,
        on_nonfinite="skip",
        on_diverging="rollback",
        remedies=[From([0], SLOW)],
        **options,
    )


def step_hooks(optimizer):
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def breaking(make, number, error):
    """Raise in the middle of a step."""

    def change(module, step, batch, batch_idx):
        loss = step(batch, batch_idx)
        if batch_number(module) == number:
            raise error
        return loss

    return with_step(make, change)


ERRORS = [RuntimeError("out of memory"), KeyboardInterrupt()]
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {}),
    "adamw, fused": (torch.optim.AdamW, {"fused": True}),
    "line search": (torch.optim.LBFGS, {"max_iter": 3}),
    "tensor rate": (torch.optim.SGD, {"lr": torch.tensor(0.01)}),
}


PAIRS = [(name, scaled) for name in OPTIMIZERS for scaled in (False, True)]
PAIRS.remove(("line search", True))  # Lightning refuses it


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize(("name", "scaled"), PAIRS)
def test_an_interrupted_run_leaves_no_hooks_and_the_rates_of_the_user(error, name, scaled):
    kind, options = OPTIMIZERS[name]
    kept = []

    class Keeps(pl.Callback):
        def on_exception(self, trainer, module, exception):
            kept.append((trainer, module))

    make = breaking(classifier(normed, kind, **options), 5, error)
    guarded = acting()
    with pytest.raises((type(error), SystemExit)):
        train(make, guarded, Keeps(), scaled=scaled)
    fit, module = kept[0]
    assert step_hooks(fit.optimizers[0]) == 0
    assert hooks_left(module) == 0
    (group,) = fit.optimizers[0].param_groups
    assert float(group["lr"]) == pytest.approx(0.01)
    assert not hasattr(fit.optimizers[0], "found_inf")
    assert guarded.actions


@pytest.mark.filterwarnings("ignore:.*ckpt_path=")
@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "tensor rate"])
def test_what_is_saved_after_an_error_is_what_the_user_has(error, name, tmp_path):
    kind, options = OPTIMIZERS[name]
    make = classifier(normed, kind, **options)
    broken = breaking(make, 5, error)

    def saved(name, make, *callbacks):
        save = OnExceptionCheckpoint(tmp_path, filename=name)
        with pytest.raises((type(error), SystemExit)):
            train(make, *callbacks, save, enable_checkpointing=True)
        return torch.load(tmp_path / f"{name}.ckpt", weights_only=True)

    slow = guard(on_nonfinite="skip", remedies=[From([0], SLOW)])
    # A line search reads its rate before it asks anybody.
    start = 1 if name == "line search" else 0
    ours = saved("ours", broken, slow)
    theirs = saved("theirs", by_hand(broken, (0.5,), start=start))
    assert_identical(ours["state_dict"], theirs["state_dict"])
    assert_identical(ours["optimizer_states"][0]["state"], theirs["optimizer_states"][0]["state"])
    assert ours["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01


def test_a_step_that_somebody_interrupted_and_caught_leaves_nothing_behind():
    """Out of memory in a closure, caught by the user, who goes on with the next batch."""

    class Catches(Adversaries):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)[0]

            def closure():
                optimizer.zero_grad()
                loss = self.critic(self.maker(batch[0])).square().mean()
                self.manual_backward(loss)
                if batch_idx == 3:
                    raise MemoryError
                return loss

            try:
                optimizer.step(closure)
            except MemoryError:
                optimizer.zero_grad()
            self.rates.append(optimizer.param_groups[0]["lr"])

        rates: list[float] = []  # noqa: RUF012

    class Slower(Catches):
        def configure_optimizers(self):
            optimizers = super().configure_optimizers()
            optimizers[0].param_groups[0]["lr"] = 0.05
            return optimizers

    Catches.rates.clear()
    guarded = guard(on_nonfinite="skip", remedies=[From([0], SLOW)])
    run = train(Catches, guarded)
    assert set(Catches.rates) == {0.1}
    assert torch.equal(run.weights, train(Slower).weights)


def test_a_second_fit_is_a_fresh_one():
    make = with_loss_factor(classifier(normed, torch.optim.AdamW), {30}, 1e4)
    once, twice = acting(), acting()
    train(classifier(), twice, max_epochs=2)
    options = {"data": batches(320, 6)}
    assert_same(train(make, twice, **options), train(make, once, **options))
    assert twice.actions == once.actions


def test_a_fit_that_goes_on_counts_on():
    pl.seed_everything(1, verbose=False)
    guarded = guard(remedies=[At({3, 11}, SLOW)])
    fit, module = trainer(guarded, max_epochs=1), Classifier(mlp())
    fit.fit(module, random_data(64, 6))
    fit.fit_loop.max_epochs = 2
    fit.fit(module, random_data(64, 6))
    assert done(guarded, "reduce_lr") == [3, 11]
    assert step_hooks(fit.optimizers[0]) == 0


def test_disabled_by_the_environment_it_does_nothing(monkeypatch):
    monkeypatch.setenv("GRADGUARD_DISABLE", "1")
    make = classifier(normed, torch.optim.AdamW)
    guarded = acting()
    assert_same(train(make, guarded), train(make))
    assert guarded.actions == ()


@pytest.mark.parametrize(
    "options",
    [{"fast_dev_run": 4}, {"overfit_batches": 3}, {"barebones": True}, {"detect_anomaly": True}],
    ids=str,
)
def test_other_ways_to_train_are_guarded_alike(options):
    make = classifier(normed, torch.optim.AdamW)
    guarded = guard(remedies=[From([0], LearningRate(0.5, "asked"))])
    assert_same(train(make, guarded, **options), train(by_hand(make, (0.5,), start=0), **options))


# Checkpoints.


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.filterwarnings(NONE_WARNING)
@pytest.mark.parametrize(
    "options",
    [
        {"clip": "autoclip"},
        {"clip": "zclip"},
        {"clip": "robust"},
        {"clip": {"network.0": "robust", "*": "autoclip"}},
        {"on_nonfinite": "skip", "on_exploding": "skip"},
        {"policy": "auto"},
        {"remedies": [LimitUpdates(1e-3)]},
    ],
    ids=["autoclip", "zclip", "robust", "by layer", "skip", "auto", "held back"],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_run_resumed_in_the_middle_of_an_epoch_is_the_one_that_went_through(
    options, scaled, tmp_path
):
    rows = list(batches(256, 6))

    def same_rows(_module, step, _batch, batch_idx):
        return step(rows[batch_idx], batch_idx)

    make = with_step(classifier(normed, torch.optim.AdamW), same_rows)
    make = with_factor(with_loss_factor(make, {27, 40, 45}, 30.0), {38}, float("nan"))

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 36:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

    settings = {"max_epochs": 2, "data": batches(256, 6), "scaled": scaled}
    whole = train(make, once := guard(**options), Save(), **settings)
    resumed = train(make, again := guard(**options), ckpt_path=tmp_path / "last.ckpt", **settings)
    assert_identical(resumed.left, whole.left)
    assert again.actions == once.actions
    torch.load(tmp_path / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("part", ["audit", "budget", "wards"])
def test_of_a_state_that_cannot_be_read_whole_nothing_is_taken(part, tmp_path):
    path, seen = tmp_path / "broken.ckpt", []
    train(classifier(), guard(clip="robust")).trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=False)
    (saved,) = [state for key, state in checkpoint["callbacks"].items() if "Guard" in key]
    saved["guard"][part] = {"0": {"steps": 3}}
    torch.save(checkpoint, path)
    fresh = guard(clip="robust")

    class AtStart(pl.Callback):
        def on_train_start(self, *_):
            seen.append(fresh.state_dict()["guard"])

    with pytest.warns(UserWarning, match="all of it starts afresh"):
        train(classifier(), fresh, AtStart(), ckpt_path=path, max_epochs=2)
    assert seen[0]["wards"]["0"]["steps"] == 0
    assert seen[0]["audit"]["steps"] == 0
