"""Parts that the trainings of sequences share: a fit to data, twists of it, losses and scores.

In: what makes a model, an optimizer and data. Out: a build, as `Case` asks for. A twist changes
one thing of a training that is ready otherwise, so that a failing run and its cure differ in that
only. This file holds no case.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.detection.case import Training
from benchmarks.detection.data import Split

__all__ = [
    "Batch",
    "Build",
    "Twist",
    "accuracy",
    "changed",
    "cross_entropy",
    "each_step",
    "explained",
    "fit",
    "on_batches",
    "scale_",
    "scheduled",
    "squared_error",
    "using",
    "warm_up",
]

Batch = tuple[Tensor, Tensor]
Build = Callable[[], Training]
Twist = Callable[[Training], None]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Score = Callable[[nn.Module, Tensor, Tensor], float]


def cross_entropy(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy; classes come last, and targets of -1 do not count."""
    logits = model(inputs).flatten(0, -2)
    return nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=-1)


def squared_error(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error."""
    return nn.functional.mse_loss(model(inputs), targets)


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of right classes among targets that count."""
    counts = targets >= 0
    return float((model(inputs).argmax(dim=-1) == targets)[counts].float().mean())


def explained(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of the targets' variance that the model explains."""
    return 1.0 - float(squared_error(model, inputs, targets) / targets.var())


def using(kind: Callable[..., Optimizer], **options: Any) -> Callable[[nn.Module], Optimizer]:  # noqa: ANN401 - the optimizer's own
    """Return what makes an optimizer over all parameters of a model."""
    return lambda model: kind(model.parameters(), **options)


def fit(
    make: Callable[[], nn.Module],
    optimizer: Callable[[nn.Module], Optimizer],
    source: Callable[[], Split],
    *twists: Twist,
    loss: Loss = cross_entropy,
    score: Score = accuracy,
    batch_size: int | None = 32,
) -> Build:
    """Return the build of a training that fits a model to data.

    Args:
        make: Makes the model.
        optimizer: Makes the optimizer, from the model.
        source: Makes the data.
        twists: Change the training in turn once it is ready.
        loss: From model, inputs and targets, a scalar.
        score: From model, held-out inputs and targets, the score.
        batch_size: Examples per batch, drawn with replacement; `None` for all at once.
    """

    def build() -> Training:
        inputs, targets, *held_out = source()
        model = make()

        def draw(_step: int) -> Batch:
            if batch_size is None:
                return inputs, targets
            rows = torch.randint(len(inputs), (batch_size,))
            return inputs[rows], targets[rows]

        training = Training(
            model=model,
            optimizers=[optimizer(model)],
            batch=draw,
            loss=lambda batch, _index: loss(model, *batch),
            score=lambda: score(model, *held_out),
        )
        for twist in twists:
            twist(training)
        return training

    return build


def changed(**attributes: Any) -> Twist:  # noqa: ANN401 - whatever `Training` holds
    """Set attributes of the training."""

    def twist(training: Training) -> None:
        for name, value in attributes.items():
            setattr(training, name, value)

    return twist


def scheduled(make: Callable[..., Any], **options: Any) -> Twist:  # noqa: ANN401 - the schedule's own
    """Give each optimizer a schedule."""

    def twist(training: Training) -> None:
        training.schedulers = [make(optimizer, **options) for optimizer in training.optimizers]

    return twist


def warm_up(steps: int) -> Twist:
    """Let the rate grow evenly to its full size, and keep it there."""
    slope: Callable[[int], float] = lambda step: min(1.0, (step + 1) / steps)  # noqa: E731
    return scheduled(torch.optim.lr_scheduler.LambdaLR, lr_lambda=slope)


def each_step(act: Callable[[Training, int], None]) -> Twist:
    """Do something at the beginning of each step."""

    def twist(training: Training) -> None:
        training.before_step = partial(act, training)

    return twist


def on_batches(change: Callable[[int, Tensor, Tensor], Batch]) -> Twist:
    """Change each batch, knowing the step it is for."""

    def twist(training: Training) -> None:
        original = training.batch
        training.batch = lambda step: change(step, *original(step))

    return twist


@torch.no_grad()
def scale_(model: nn.Module, factor: float) -> nn.Module:
    """Multiply all weights of two dimensions or more in place."""
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.mul_(factor)
    return model
