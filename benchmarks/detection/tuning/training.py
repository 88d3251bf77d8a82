"""How a labelled training is put together from a task, a model and an optimizer.

In: makers of the three, and perhaps a schedule and a fault. Out: a `Training`. Nothing random
happens before a maker is called, so that the seed decides everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from benchmarks.detection.case import Training

__all__ = [
    "Batch",
    "Fault",
    "ModelMaker",
    "OptimizerMaker",
    "Task",
    "adam",
    "momentum",
    "sgd",
    "stepping",
    "trained",
    "warmed_up",
]

Batch = tuple[Tensor, Tensor]
"""Inputs and targets."""

Fault = Callable[[Training, int], None]
"""Told of each step before it begins; puts something wrong into the training."""

ModelMaker = Callable[[], nn.Module]
OptimizerMaker = Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to learn.

    Attributes:
        draw: Makes the batch of a step.
        loss: From a model and a batch, a scalar.
        score: Of a model, on held-out data; 1 is perfect.
    """

    draw: Callable[[int], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    score: Callable[[nn.Module], float]


def trained(
    task: Callable[[], Task],
    make: ModelMaker,
    optimizer: OptimizerMaker,
    *,
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
    fault: Fault | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    short_every: int | None = None,
    autocast: torch.dtype | None = None,
) -> Training:
    """Return the training of one model by one optimizer."""
    made, model = task(), make()
    stepper = optimizer(model.parameters())
    training = Training(
        model=model,
        optimizers=[stepper],
        batch=made.draw,
        loss=lambda batch, _index: made.loss(model, batch),
        score=lambda: made.score(model),
        schedulers=[] if schedule is None else [schedule(stepper)],
        clip_norm=clip_norm,
        accumulate=accumulate,
        short_every=short_every,
        autocast=autocast,
    )
    if fault is not None:
        training.before_step = partial(fault, training)
    return training


def warmed_up(warmup_steps: int, steps: int) -> Callable[[torch.optim.Optimizer], Any]:
    """Return a schedule that rises for some steps and falls to zero along a cosine."""

    def schedule(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        rise = lr_scheduler.LinearLR(optimizer, 0.05, total_iters=warmup_steps)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup_steps)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup_steps])

    return schedule


def stepping(learning_rate: float, beta: float = 0.0) -> OptimizerMaker:
    """Return plain descent at a rate, with some momentum."""
    return partial(torch.optim.SGD, lr=learning_rate, momentum=beta)


sgd = partial(torch.optim.SGD, lr=0.1)
momentum = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
adam = partial(torch.optim.Adam, lr=2e-3)
