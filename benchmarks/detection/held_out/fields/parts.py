"""Parts that the trainings of this folder share: a task, and what fits a model to it.

In: data, a loss, a score, what makes a model and an optimizer. Out: a build, as `Case` asks for.
A failing run and its cure are the same call with one argument changed. This file holds no case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Training
from benchmarks.detection.data import Split

__all__ = [
    "Apply",
    "Batch",
    "Build",
    "Task",
    "accuracy",
    "cross_entropy",
    "explained",
    "fit",
    "perceptron",
    "squared_error",
]

Model = TypeVar("Model", bound=nn.Module)
Batch = tuple[Tensor, Tensor]
Build = Callable[[], Training]
OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Model]):
    """What is to be learned.

    Attributes:
        split: Makes the data.
        loss: From model, inputs and targets, a scalar.
        score: From model, held-out inputs and targets, a number, larger is better.
        size: Examples per batch, drawn with replacement; `None` for all at once.
    """

    split: Callable[[], Split]
    loss: Callable[[Model, Tensor, Tensor], Tensor]
    score: Callable[[Model, Tensor, Tensor], float]
    size: int | None = 32


def fit(
    task: Task[Model],
    make: Callable[[], Model],
    optimizer: OptimizerMaker,
    *,
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
    change: Callable[[int, Batch], Batch] | None = None,
    before: Callable[[Training, int], None] | None = None,
    **settings: Any,  # noqa: ANN401 - whatever `Training` holds
) -> Build:
    """Return the build of a training that fits a model to a task.

    Args:
        task: What is to be learned.
        make: Makes the model.
        optimizer: Makes the optimizer, from the parameters.
        schedule: Makes the schedule of the rate.
        change: Changes each batch, knowing the step it is for.
        before: Called first in each step.
        settings: Other attributes of the training.
    """

    def build() -> Training:
        inputs, targets, *held_out = task.split()
        model = make()
        chosen_optimizer = optimizer(model.parameters())

        def batch(step: int) -> Batch:
            rows = slice(None) if task.size is None else torch.randint(len(inputs), (task.size,))
            drawn = inputs[rows], targets[rows]
            return drawn if change is None else change(step, drawn)

        training = Training(
            model=model,
            optimizers=[chosen_optimizer],
            batch=batch,
            loss=lambda batch, _index: task.loss(model, *batch),
            score=lambda: task.score(model, *held_out),
            schedulers=[] if schedule is None else [schedule(chosen_optimizer)],
            **settings,
        )
        if before is not None:
            training.before_step = lambda step: before(training, step)
        return training

    return build


def cross_entropy(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy."""
    return nn.functional.cross_entropy(model(inputs), targets)


def squared_error(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error."""
    return nn.functional.mse_loss(model(inputs), targets)


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of right classes."""
    return float((model(inputs).argmax(dim=-1) == targets).float().mean())


def explained(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of the targets' variance that the model explains."""
    return 1.0 - float(squared_error(model, inputs, targets) / targets.var())


class Apply(nn.Module):
    """A function as a layer.

    Args:
        function: From a tensor, a tensor.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(inputs)


def perceptron(*widths: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers of these widths with activations between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), act()]
    return nn.Sequential(*layers[:-1])
