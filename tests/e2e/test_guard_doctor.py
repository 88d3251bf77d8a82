"""What cannot work is refused when training starts, and what does nothing is said."""

from __future__ import annotations

import logging

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from lightning_gradguard import GradientGuard, detectors, remedies
from lightning_gradguard.remedies import LearningRate, ReduceLearningRate
from tests.e2e.guard_cases import (
    Adversaries,
    From,
    assert_same,
    classifier,
    guard,
    normed,
    train,
)

SGD, AdamW = torch.optim.SGD, torch.optim.AdamW


@pytest.mark.parametrize("kind", [SGD, AdamW, torch.optim.Adagrad])
def test_the_trainers_clipping_of_a_fused_optimizer_under_a_scaler_is_refused(kind):
    make = classifier(normed, kind, fused=True)
    message = (
        rf"gradient_clip_val=0\.5\) cannot clip .*{kind.__name__} .*GradientGuard\(clip=0\.5\)"
    )
    with pytest.raises(ValueError, match=message):
        train(make, guard(on_nonfinite="skip"), scaled=True, gradient_clip_val=0.5)


@pytest.mark.parametrize(
    ("fused", "scaled", "clip"), [(True, False, 0.5), (False, True, 0.5), (True, True, None)]
)
def test_any_two_of_the_three_are_fine(fused, scaled, clip):
    make = classifier(normed, AdamW, fused=fused)
    run = train(make, guard(clip=0.1), scaled=scaled, gradient_clip_val=clip)
    assert torch.isfinite(run.weights).all()


class DeepSpeedLike(SingleDeviceStrategy):
    """Stands for the real one, which needs a GPU."""


class FSDPLike(SingleDeviceStrategy):
    """Stands for the real one, which needs a GPU."""


@pytest.mark.parametrize("strategy", [DeepSpeedLike, FSDPLike])
def test_strategies_that_split_gradients_are_refused(strategy):
    with pytest.raises(ValueError, match=rf"whole gradients .*{strategy.__name__}.*Use DDP"):
        train(classifier(), guard(clip=1.0), strategy=strategy(torch.device("cpu")))


def test_parameters_that_are_split_are_refused():
    def make():
        module = classifier()()
        module.network[0].weight.placements = ()  # as a DTensor has
        return module

    with pytest.raises(ValueError, match="whole gradients on each rank"):
        train(make, guard(clip=1.0))


class Hookless:
    """Looks like an optimizer, but is none of torch's."""

    def __init__(self, parameters, lr):
        self.inner = SGD(parameters, lr=lr)
        self.param_groups, self.state, self.defaults = self.inner.param_groups, {}, {}

    def step(self, closure=None):
        return self.inner.step(closure)

    def zero_grad(self):
        self.inner.zero_grad()

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


def test_an_optimizer_without_step_hooks_is_refused():
    with pytest.raises(ValueError, match=r"step hooks, got Hookless.*torch\.optim\.Optimizer"):
        train(classifier(normed, Hookless), guard(clip=1.0))


class NeverMade(SGD):
    """Wraps another optimizer, as Lookahead and LARC do, and never calls its base's `__init__`."""

    def __init__(self, parameters, lr):
        self.inner = SGD(parameters, lr=lr)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
        self.defaults = self.inner.defaults

    def step(self, closure=None):
        return self.inner.step(closure)

    def zero_grad(self):
        self.inner.zero_grad()


def test_a_wrapper_that_never_called_the_init_of_its_base_is_refused():
    train(classifier(normed, NeverMade))
    with pytest.raises(ValueError, match=r"got NeverMade.*and call its __init__"):
        train(classifier(normed, NeverMade), guard(clip=1.0))


class RateOfItsOwn(SGD):
    """Has no learning rate to lower, as Adafactor with relative steps."""

    def __init__(self, parameters, lr, *, leave_out=False):
        super().__init__(parameters, lr=lr)
        for group in self.param_groups:
            group["lr"] = None
            if leave_out:
                del group["lr"]

    def step(self, closure=None):
        loss = closure()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-0.01)
        return loss


@pytest.mark.parametrize("leave_out", [True, False])
def test_an_optimizer_without_a_rate_is_named_and_trains_on_at_its_own(leave_out, caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    make = classifier(normed, RateOfItsOwn, leave_out=leave_out)
    remedies = [From([2], LearningRate(0.5, "asked")), ReduceLearningRate()]
    guarded = guard(remedies=remedies)
    assert_same(train(make, guarded), train(make))
    (message,) = warnings_of(caplog)
    assert "cannot lower the learning rate of RateOfItsOwn" in message
    assert guarded.actions == ()
    assert guarded.last_frame.lr_factor == 1.0


# Optimizers that the trainer does not know.


class Unknown(Adversaries):
    """Steps the maker's optimizer by hand, and tells the trainer of the critic's only, or none."""

    def __init__(self, returned=()):
        super().__init__()
        self.own, self.returned = super().configure_optimizers(), returned

    def optimizers(self, **_):
        return self.own

    def configure_optimizers(self):
        return [self.own[i] for i in self.returned] or None


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
@pytest.mark.parametrize(
    ("returned", "named"), [((), "maker.0.weight and 7 more"), ((1,), "maker.0.weight and 2 more")]
)
def test_an_optimizer_that_the_trainer_does_not_know_is_told_of_once(returned, named, caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    train(lambda: Unknown(returned), guard(policy="auto"))
    (message,) = warnings_of(caplog)
    assert named in message
    assert "return it from `configure_optimizers`" in message


class Averaged(Adversaries):
    """Has weights that follow others, and some that nobody trains."""

    def __init__(self):
        super().__init__()
        self.average, self.unused = nn.Linear(6, 8, bias=False), nn.Linear(6, 8)

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.manual_backward(self.unused(batch[0]).sum())
        with torch.no_grad():
            self.average.weight.lerp_(self.critic[0].weight, 0.1)


def test_weights_that_follow_others_or_only_get_gradients_are_not_told_of(caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    train(Averaged, guard(clip=1.0))
    assert warnings_of(caplog) == []


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
@pytest.mark.parametrize("batches", [1, 2])
def test_a_training_without_an_optimizer_is_left_alone(batches, caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")

    def nothing(_parameters, **_):
        return None

    guarded = guard(policy="auto")
    train(classifier(normed, nothing), guarded, accumulate_grad_batches=batches)
    assert guarded.actions == ()
    assert warnings_of(caplog) == []


# Arguments.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "must have something to do, got nothing.*policy='auto'"),
        ({"clip": "nrom"}, "`clip` must be one of 'norm', 'value', .*'robust'.*got 'nrom'"),
        ({"clip": -1.0}, "`max_norm` must be a number above 0, got -1.0"),
        ({"clip": {}}, "`clip` must name at least one glob"),
        ({"on_nonfinite": "reduce_lr"}, "`on_nonfinite` must be one of 'skip', .*got 'reduce_lr'"),
        ({"on_diverging": "skip"}, "`on_diverging` must be one of 'reduce_lr', .*got 'skip'"),
        ({"on_loss_spike": "stop"}, "`on_loss_spike` must be one of 'skip', got 'stop'"),
        ({"policy": "manual"}, "`policy` must be .*'auto'.*got 'manual'"),
        ({"clip": 1.0, "max_consecutive_skips": 0}, "consecutive"),
        ({"clip": 1.0, "max_skipped_fraction": 1.5}, "fraction"),
        ({"clip": 1.0, "max_skipped_fraction": None}, "fraction` must be a share.*got None"),
        ({"clip": 1.0, "max_consecutive_skips": True}, "whole number.*got True"),
        ({"on_nonfinite": {"a": "nothing"}}, "`on_nonfinite` must be one of"),
        (
            {"on_diverging": "rollback", "ignore": "diverging"},
            "Rollback must have something to act on, but nothing here reports 'diverging'",
        ),
        ({"policy": "auto", "detectors": []}, "Look at `detectors` and `ignore`"),
        (
            {
                "detectors": [detectors.NonFinite()],
                "remedies": [remedies.OnceSlowed(remedies.StopTraining("saturated"))],
            },
            "StopTraining must .* nothing here reports 'saturated'",
        ),
    ],
)
def test_wrong_arguments_are_named_with_what_there_is_to_choose(options, message):
    with pytest.raises(ValueError, match=message):
        GradientGuard(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"clip": True},
        {"clip": b"norm"},
        {"clip": [1.0]},
        {"remedies": [b"norm"]},
        {"policy": "auto", "dry_run": "no"},
        {"policy": "auto", "include": 3},
    ],
    ids=str,
)
def test_arguments_of_a_wrong_kind_are_refused(options):
    with pytest.raises(TypeError):
        GradientGuard(**options)


# Clipping that cannot bite.


class ClipsFirst(SGD):
    """Clip at the top of the step, where under Lightning the gradients are still the old ones."""

    def step(self, closure=None):
        nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 0.01)
        return super().step(closure)


class ClipsRight(SGD):
    """Clip after backward."""

    def step(self, closure=None):
        loss = closure()
        nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 0.01)
        super().step()
        return loss


class ClipsFirstOfAdam(AdamW):
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.clamp_(-0.01, 0.01)
        return super().step(closure)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", [ClipsFirst, ClipsFirstOfAdam])
@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str
)
def test_an_optimizer_that_clips_before_backward_is_named_once(kind, options, caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    train(classifier(normed, kind), guard(on_nonfinite="skip"), **options)
    (message,) = warnings_of(caplog)
    assert f"{kind.__name__} changes gradients at the start of its step" in message
    assert "GradientGuard(clip=...)" in message


def keeping_zeros(make):
    """Write zeros into gradients in place of throwing them away."""

    def make_other():
        module = make()
        module.optimizer_zero_grad = lambda _epoch, _batch_idx, optimizer: optimizer.zero_grad(
            set_to_none=False
        )
        return module

    return make_other


@pytest.mark.parametrize("kind", [ClipsRight, SGD, AdamW, torch.optim.LBFGS])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.01}, {"precision": "bf16-mixed"}],
    ids=str,
)
def test_an_optimizer_that_is_right_is_not_warned_of(kind, options, zeros, caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    make = classifier(normed, kind)
    make = keeping_zeros(make) if zeros else make
    train(make, guard(clip=0.05, on_nonfinite="skip"), **options)
    assert warnings_of(caplog) == []


class CleansGradients(pl.Callback):
    """Changes what backward has just made, as many do to get rid of NaN."""

    def on_after_backward(self, trainer, module):
        for parameter in module.parameters():
            parameter.grad.nan_to_num_()


@pytest.mark.parametrize("batches", [1, 2])
def test_a_callback_that_changes_gradients_after_us_is_not_taken_for_the_optimizer(batches, caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    guarded = guard(on_nonfinite="skip")
    train(classifier(), guarded, CleansGradients(), accumulate_grad_batches=batches)
    assert warnings_of(caplog) == []


def test_under_a_scaler_gradients_are_complete_at_the_start_of_the_step(caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    train(classifier(normed, ClipsFirst), guard(on_nonfinite="skip"), scaled=True)
    assert warnings_of(caplog) == []


def test_that_both_clip_is_said_and_not_refused(caplog):
    caplog.set_level(logging.INFO, logger="lightning_gradguard")
    train(classifier(), guard(clip=0.05), gradient_clip_val=0.5)
    assert "the stricter of the two decides" in caplog.text


def test_hooks_of_others_go_on_when_the_doctor_has_seen_enough():
    calls = []

    class Hooks(pl.Callback):
        def on_train_start(self, trainer, module):
            for hook in (
                trainer.optimizers[0].register_step_pre_hook,
                trainer.optimizers[0].register_step_post_hook,
            ):
                hook(lambda *_: calls.append(1))

    train(classifier(), guard(clip=0.05), Hooks())
    assert len(calls) == 16
