"""All schedules of torch, and learning rates that are scaled by hand."""

from __future__ import annotations

import itertools

from torch.optim import lr_scheduler as schedules
from torch.optim.swa_utils import SWALR

from tests.e2e.guard_cases import with_step

SCHEDULES = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: schedules.StepLR(o, 3),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [2, 4, 9]),
    "ConstantLR": lambda o: schedules.ConstantLR(o, 0.5, 5),
    "LinearLR": lambda o: schedules.LinearLR(o, 0.1, total_iters=8),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 12),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 5),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.2, 3),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.2, 20),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=1, threshold=0.5),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, total_iters=5), schedules.ExponentialLR(o, 0.9)], [5]
    ),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o, 0.5, 4), schedules.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: SWALR(o, 0.02, anneal_epochs=6),
}


def scheduled(make_schedule, make):
    """Add a schedule that moves after every step."""

    def make_scheduled():
        module = make()
        optimizer = module.configure_optimizers()
        schedule = {"scheduler": make_schedule(optimizer), "interval": "step", "monitor": "loss"}
        module.configure_optimizers = lambda: ([optimizer], [schedule])
        return module

    def step_and_log(module, step, *batch):
        loss = step(*batch)
        module.log("loss", loss)
        return loss

    return with_step(make_scheduled, step_and_log)


def by_hand(make, factors, start):
    """Scale the rates around each step of the module itself."""

    def make_slower():
        module = make()
        step_as_before, steps = module.optimizer_step, itertools.count()

        def optimizer_step(epoch, batch_idx, optimizer, closure):
            rates = [group["lr"] for group in optimizer.param_groups]
            if next(steps) >= start:
                for group, rate, factor in zip(
                    optimizer.param_groups, rates, factors, strict=False
                ):
                    group["lr"] = rate * factor
            step_as_before(epoch, batch_idx, optimizer, closure)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

        module.optimizer_step = optimizer_step
        return module

    return make_slower
