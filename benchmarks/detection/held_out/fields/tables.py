"""Perceptrons on tables, with losses other than cross entropy and squared error."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.fields.parts import (
    Task,
    accuracy,
    cross_entropy,
    fit,
    perceptron,
)

__all__ = ["CASES"]

Levels = torch.tensor([0.1, 0.5, 0.9])


def hinge(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of what is missing to a margin of one."""
    missing: Tensor = (1.0 - model(inputs).squeeze(1) * (2.0 * targets - 1.0)).relu().mean()
    return missing


def side_accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of outputs on the right side of zero."""
    return float(((model(inputs).squeeze(1) > 0) == (targets == 1)).float().mean())


def pinball(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean quantile loss of three quantiles."""
    return _pinball(model(inputs), targets)


def _pinball(quantiles: Tensor, targets: Tensor) -> Tensor:
    short = targets - quantiles
    return torch.maximum(Levels * short, (Levels - 1.0) * short).mean()


def pinball_gain(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of the quantile loss that is saved against the same guess for all."""
    same = targets.quantile(Levels)
    return 1.0 - float(pinball(model, inputs, targets) / _pinball(same, targets))


def graded() -> Split:
    """Return the diabetes table with four grades as targets."""
    inputs, targets, held_inputs, held_targets = data.table("diabetes")
    edges = torch.tensor([-0.7, 0.0, 0.7])
    return (
        inputs,
        torch.bucketize(targets, edges).squeeze(1),
        held_inputs,
        torch.bucketize(held_targets, edges).squeeze(1),
    )


class Ordered(nn.Module):
    """One number per row, and thresholds between grades."""

    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron(10, 12, 1, act=nn.Tanh)
        self.first, self.gaps = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the log odds of being above each of three thresholds."""
        thresholds = torch.cat([self.first, self.first + self.gaps.exp().cumsum(0)])
        above: Tensor = self.body(inputs) - thresholds
        return above


def grade_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of being above each threshold."""
    above = (targets[:, None] > torch.arange(3)).float()
    return nn.functional.binary_cross_entropy_with_logits(model(inputs), above)


def grade_score(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return one less the mean distance in grades, relative to that of the middle grades."""
    missed = ((model(inputs) > 0).sum(dim=1) - targets).abs().float().mean()
    return 1.0 - float(missed / (targets - 1.5).abs().mean())


def log_columns(shift: float) -> Split:
    """Return the wine table with two columns as logarithms after a shift of the smallest to it."""
    inputs, targets, held_inputs, held_targets = data.table("wine")
    low = torch.cat([inputs, held_inputs])[:, :2].amin(dim=0)

    def logged(rows: Tensor) -> Tensor:
        return torch.cat([(rows[:, :2] - low + shift).log(), rows[:, 2:]], dim=1)

    return logged(inputs), targets, logged(held_inputs), held_targets


Cells = Task(split=partial(data.table, "breast_cancer"), loss=hinge, score=side_accuracy, size=16)
Sugar = Task(split=partial(data.table, "diabetes"), loss=pinball, score=pinball_gain, size=64)
Grades: Task[nn.Module] = Task(split=graded, loss=grade_loss, score=grade_score, size=None)
Logged = Task(split=partial(log_columns, 0.0), loss=cross_entropy, score=accuracy, size=None)
ShiftedLogged = Task(split=partial(log_columns, 1.0), loss=cross_entropy, score=accuracy, size=None)
adagrad = partial(torch.optim.Adagrad, lr=0.03)
wine_net = partial(perceptron, 13, 24, 24, 3, act=nn.Tanh)

CASES: tuple[Case, ...] = (
    Case(
        name="hinge-mostly-silent",
        family="table",
        build=fit(
            Cells,
            partial(perceptron, 30, 24, 1, act=nn.LeakyReLU),
            partial(torch.optim.SGD, lr=0.05, momentum=0.8, nesterov=True),
        ),
        steps=300,
        level=0.9,
        why="rows beyond the margin give no gradient, and soon most batches have none at all",
    ),
    Case(
        name="three-quantiles",
        family="table",
        build=fit(
            Sugar, partial(perceptron, 10, 24, 3, act=nn.ELU), partial(torch.optim.Adamax, lr=5e-3)
        ),
        steps=250,
        level=0.12,
        why="slopes of a quantile loss never get smaller, however near the target is",
    ),
    Case(
        name="grades-rprop",
        family="table",
        build=fit(Grades, Ordered, partial(torch.optim.Rprop, lr=0.01)),
        steps=60,
        level=0.2,
        why="steps follow the signs of a full batch only, and three numbers are thresholds",
    ),
    Case(
        name="log-of-smallest",
        family="table",
        build=fit(
            Logged,
            wine_net,
            adagrad,
        ),
        steps=200,
        level=0.8,
        kinds=("nonfinite",),
        cures={"look at the data": fit(ShiftedLogged, wine_net, adagrad)},
        why="two columns are logarithms, and the smallest number of each was moved to zero before",
    ),
)
