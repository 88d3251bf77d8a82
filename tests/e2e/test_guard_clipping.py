"""Clipping: weights are those of a training that clips by hand, in every mode."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gradguard import remedies
from tests.e2e.guard_cases import (
    Adversaries,
    OnlyScales,
    assert_same,
    batches,
    classifier,
    done,
    guard,
    matrices,
    normed,
    train,
    with_loss_factor,
)
from tests.e2e.guard_clips import ByHand, assert_close, moved, two_groups
from tests.e2e.models import Keep, mlp
from tests.e2e.modes import MODES, Words

clip_grad_norm_ = nn.utils.clip_grad_norm_


# Half a precision rounds differently; torch cannot clip gradients of one number seen many times.
NOT_COMPARED = (
    "fp32, batch norm and dropout",
    "bf16-true",
    "16-true",
    "three dtypes",
    "raw optimizer",
    "expanded gradients",
)
UNCLIPPED = [n for n, mode in MODES.items() if mode.clips is False and n not in NOT_COMPARED]


@pytest.mark.parametrize("name", UNCLIPPED)
def test_clipping_by_norm_trains_as_torchs_own(name):
    mode = MODES[name]
    options = {"scaled": mode.uses_scaler, "data": batches(*mode.shape), **mode.options}

    def clip(_optimizer, parameters):
        if not name.startswith("sparse"):
            clip_grad_norm_(parameters, 0.02)
            return
        norm = math.hypot(*(p.grad.to_dense().norm() for p in parameters))
        for parameter in parameters:
            parameter.grad = parameter.grad * min(1.0, 0.02 / norm)

    guarded = guard(clip=0.02)
    run = moved(mode.model, guarded, **options)
    assert_close(run, train(mode.model, ByHand(clip), **options))
    assert done(guarded, "clip")


LARGE = {
    "norm": 1e3,
    "layer": remedies.ClipNorm(1e3, per="layer"),
    "unit": remedies.ClipNorm(1e3, per="unit"),
    "value": remedies.ClipValue(1e3),
    "agc": remedies.AGC(1e6),
}


@pytest.mark.parametrize("clip", LARGE.values(), ids=LARGE)
def test_a_sparse_gradient_that_needs_no_clipping_is_left_as_it_is(clip):
    """To add up rows that come several times rounds otherwise than the optimizer does."""
    make = classifier(lambda: Words(20, 5), torch.optim.SGD, lr=0.1, momentum=0.9)
    run, plain = (train(make, *g, data=batches(96, 6)) for g in ([guard(clip=clip)], []))
    assert torch.equal(run.weights, plain.weights)


def test_gradients_that_are_one_number_seen_many_times_are_clipped():
    make = MODES["expanded gradients"].model
    run = moved(make, guard(clip=0.02))

    def clip(_optimizer, parameters):
        for parameter in parameters:
            parameter.grad = parameter.grad.clone()
        clip_grad_norm_(parameters, 0.02)

    assert_close(run, train(make, ByHand(clip)))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_clipping_by_value_trains_exactly_as_torchs_own(fused, scaled):
    make = classifier(normed, torch.optim.SGD, fused=fused, lr=0.5)

    def clip(_optimizer, parameters):
        nn.utils.clip_grad_value_(parameters, 2.0**-7)

    guarded = guard(clip=remedies.ClipValue(2.0**-7))
    run = moved(make, guarded, scaled=scaled)
    assert_same(run, train(make, ByHand(clip), scaled=scaled))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("clip", ["norm", 0.05, "autoclip", "zclip", "agc", "robust", "value"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_changes_nothing_about_clipping(clip, fused):
    make = classifier(mlp, torch.optim.SGD, fused=fused)
    make = with_loss_factor(make, {4, 40, 41}, 10.0)
    plain = train(make, guard(clip=clip), max_epochs=6)
    scaled = train(make, guard(clip=clip), max_epochs=6, plugins=[OnlyScales()])
    assert_close(scaled, plain, rtol=1e-5)


@pytest.mark.parametrize(("ours", "theirs"), [(0.05, 0.02), (0.02, 0.05)])
def test_of_the_guards_clipping_and_the_trainers_the_stricter_decides(ours, theirs):
    kept = Keep()
    guarded = guard(clip=ours, sinks=[kept])
    run = train(two_groups(), guarded, gradient_clip_val=theirs)
    assert_close(run, train(two_groups(), gradient_clip_val=0.02))
    for frame in kept.frames:
        norm = frame.global_grad_norm
        mine = min(1.0, ours / norm)
        assert frame.guard_clip_coefficient == pytest.approx(mine, rel=1e-6)
        # Of everybody's clipping together, by what is measured at the update.
        assert frame.clip_coefficient == pytest.approx(0.02 / norm, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_the_trainers_clipping_comes_after_the_guards(algorithm):
    def clip(_optimizer, parameters):
        clip_grad_norm_(parameters, 0.05)

    options = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    run = train(two_groups(), guard(clip=0.05), **options)
    assert_close(run, train(two_groups(), ByHand(clip), **options))


@pytest.mark.parametrize("use_pl_optimizer", [True, False])
def test_adversaries_are_clipped_each_by_its_own_norm(use_pl_optimizer):
    class Hooked(Adversaries):
        """Clip by hook, where the guard does: whatever the training loop calls."""

        def configure_optimizers(self):
            optimizers = super().configure_optimizers()
            for optimizer in optimizers:
                optimizer.register_step_pre_hook(self.clip)
            return optimizers

        def clip(self, optimizer, *_):
            clip_grad_norm_(optimizer.param_groups[0]["params"], 0.05)

    run = train(lambda: Adversaries(use_pl_optimizer=use_pl_optimizer), guard(clip=0.05))
    assert_close(run, train(lambda: Hooked(use_pl_optimizer=use_pl_optimizer)))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("factor", [1e20, 1e-25])
@pytest.mark.parametrize("per", ["model", "layer", "unit"])
def test_norms_whose_squares_no_float_can_hold_are_clipped_right(factor, per):
    """SGD with a rate that undoes the factor, so that only the clipped direction counts."""
    make = with_loss_factor(
        classifier(matrices, torch.optim.SGD, lr=1e-2 / factor), range(9), factor
    )
    guarded = guard(clip=remedies.ClipNorm(0.05 * factor, per=per))
    plain = classifier(matrices, torch.optim.SGD)
    other = train(plain, guard(clip=remedies.ClipNorm(0.05, per=per)))
    run = train(make, guarded)
    assert_close(run, other, rtol=1e-3)
    assert done(guarded, "clip") == list(range(8))


def test_nan_is_not_spread_by_clipping():
    """What is not finite is left to others: only the broken layer breaks."""
    make = classifier(matrices)

    class Breaks(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == 3:
                module.network[0].weight.grad[0, 0] = torch.nan

    for clip in ("norm", "robust", "autoclip", "zclip"):
        run = train(make, Breaks(), guard(clip=clip), max_steps=4)
        assert run.module.network[0].weight.isnan().sum() == 1
        assert run.module.network[2].weight.isfinite().all()
