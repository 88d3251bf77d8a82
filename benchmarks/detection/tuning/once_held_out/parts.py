"""Parts that the trainings of this half share: fitting a model to data, and twists of a training.

In: what makes a model, an optimizer and data. Out: a build, as `Case` asks for. A twist changes
one thing of a training that is otherwise ready, so that a failing run and its cure differ in that
only. This file holds no case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Training
from benchmarks.detection.data import Split

__all__ = [
    "Batch",
    "Build",
    "accuracy",
    "at",
    "batches",
    "changed",
    "cross_entropy",
    "each_step",
    "explained",
    "fit",
    "loss_times",
    "scheduled",
    "squared_error",
]

Batch = tuple[Tensor, Tensor]
Build = Callable[[], Training]
Twist = Callable[[Training], None]
OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Criterion = Callable[[nn.Module, Tensor, Tensor], Tensor]
Score = Callable[[nn.Module, Tensor, Tensor], float]


def cross_entropy(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy; classes are the last dimension of the output."""
    return nn.functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


def squared_error(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error."""
    return nn.functional.mse_loss(model(inputs), targets)


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of right classes."""
    return float((model(inputs).argmax(dim=-1) == targets).float().mean())


def explained(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of the targets' variance that the model explains."""
    return 1.0 - float(squared_error(model, inputs, targets) / targets.var())


def fit(
    make: Callable[[], nn.Module],
    optimizer: OptimizerMaker,
    split: Callable[[], Split],
    *twists: Twist,
    criterion: Criterion = cross_entropy,
    score: Score = accuracy,
    batch_size: int | None = 32,
) -> Build:
    """Return the build of a training that fits a model to data.

    Args:
        make: Makes the model.
        optimizer: Makes the optimizer, from the parameters.
        split: Makes the data.
        twists: Change the training in turn once it is ready.
        criterion: From model, inputs and targets, the loss.
        score: From model, held-out inputs and targets, the score.
        batch_size: Examples per batch, drawn with replacement; `None` for all at once.
    """

    def build() -> Training:
        inputs, targets, *held_out = split()
        model = make()

        def batch(_step: int) -> Batch:
            if batch_size is None:
                return inputs, targets
            chosen = torch.randint(len(inputs), (batch_size,))
            return inputs[chosen], targets[chosen]

        training = Training(
            model=model,
            optimizers=[optimizer(model.parameters())],
            batch=batch,
            loss=lambda batch, _index: criterion(model, *batch),
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


def scheduled(make: Callable[[torch.optim.Optimizer], Any]) -> Twist:
    """Give each optimizer a schedule."""

    def twist(training: Training) -> None:
        training.schedulers = [make(optimizer) for optimizer in training.optimizers]

    return twist


def each_step(act: Callable[[Training, int], None]) -> Twist:
    """Do something at the beginning of each step."""

    def twist(training: Training) -> None:
        training.before_step = lambda step: act(training, step)

    return twist


def at(when: int, act: Callable[[Training], None]) -> Twist:
    """Do something at the beginning of one step."""
    return each_step(lambda training, step: act(training) if step == when else None)


def batches(change: Callable[[int, Batch], Batch]) -> Twist:
    """Change each batch, knowing the step it is for."""

    def twist(training: Training) -> None:
        original = training.batch
        training.batch = lambda step: change(step, original(step))

    return twist


def loss_times(factor: float) -> Twist:
    """Multiply the loss."""

    def twist(training: Training) -> None:
        original = training.loss
        training.loss = lambda batch, index: factor * original(batch, index)

    return twist
