"""Clipping by hand, and how two trainings are compared that round differently."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from tests.e2e.guard_cases import classifier, train
from tests.e2e.models import mlp


class ByHand(pl.Callback):
    """Clip as a person would, where gradients are complete; by the true scale if there is one."""

    def __init__(self, clip):
        self.clip = clip

    def on_before_optimizer_step(self, trainer, module, optimizer):
        known = getattr(trainer.precision_plugin, "scaler", None)
        is_scaled = known is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        scale = known.get_scale() if is_scaled else 1.0
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for p in parameters if p.grad is not None]
        for parameter in parameters:
            parameter.grad = parameter.grad / scale
        self.clip(optimizer, parameters)
        for parameter in parameters:
            parameter.grad = parameter.grad * scale


def assert_close(one, other, rtol=1e-4):
    """Assert that two trainings left about the same; torch adds 1e-6 to the norm."""
    assert torch.isfinite(one.weights).all()
    torch.testing.assert_close(one.weights, other.weights, rtol=rtol, atol=1e-6)


def moved(make, *callbacks, **options):
    """Assert that it makes a difference whether these callbacks are there."""
    run, plain = train(make, *callbacks, **options), train(make, **options)
    assert not torch.allclose(run.weights, plain.weights, rtol=1e-4, atol=1e-6)
    return run


def two_groups(network=mlp):
    def groups(parameters, **options):
        parameters = list(parameters)
        return torch.optim.SGD(
            [{"params": parameters[:2], "lr": 0.5}, {"params": parameters[2:]}], **options
        )

    return classifier(network, groups, lr=0.1)
