"""Clouds of points: pooled by attention, by extremes, and by mean and spread."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Batch,
    Task,
    accuracy,
    cross_entropy,
    fit,
    perceptron,
)

__all__ = ["CASES"]


class Seeds(nn.Module):
    """A few learned questions are asked to all points.

    Args:
        width: Of points and questions.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = perceptron(2, width, width, act=nn.GELU)
        self.questions = nn.Parameter(torch.zeros(4, width))
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.leave = perceptron(4 * width, width, 4, act=nn.GELU)

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits of four shapes."""
        entered = self.enter(points)
        questions = self.questions.expand(len(points), -1, -1)
        answers, _ = self.attend(questions, entered, entered, need_weights=False)
        logits: Tensor = self.leave(answers.flatten(1))
        return logits


class Extremes(nn.Module):
    """The largest value of each unit over all points, then a perceptron.

    Args:
        width: Of the inner layers.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.each = nn.Sequential(perceptron(2, width, width), nn.ReLU())
        self.leave, self.price = perceptron(width, width, 4), 0.0

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits of four shapes."""
        logits: Tensor = self.leave(self.each(points).amax(dim=1))
        return logits


class Spread(nn.Module):
    """Mean and deviation of each unit over all points.

    Args:
        guard: Added to the variance before the root is taken.
    """

    def __init__(self, guard: float) -> None:
        super().__init__()
        self.each, self.leave = perceptron(2, 32, 24, act=nn.Mish), nn.Linear(48, 4)
        self.guard = guard

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits of four shapes."""
        units = self.each(points)
        deviation = (units.var(dim=1) + self.guard).sqrt()
        logits: Tensor = self.leave(torch.cat([units.mean(dim=1), deviation], dim=1))
        return logits


def harder(step: int, batch: Batch) -> Batch:
    """Hide up to half of the points behind the first one, more and more of them."""
    points, kind = batch
    points = points.clone()
    hidden = min(step // 15, 12)
    points[:, 24 - hidden :] = points[:, :1]
    return points, kind


def one_point(step: int, batch: Batch, *, when: int = 95) -> Batch:
    """Let one cloud be the same point 24 times, as a scanner gives that sees nothing."""
    points, kind = batch
    if step == when:
        points = points.clone()
        points[0] = 0.0
    return points, kind


def press(training: Training, step: int, *, price: float) -> None:
    """Put a price on what units say, from step 70 on."""
    if step == 70 and isinstance(training.model, Extremes):
        training.model.price = price


def sparse(model: Extremes, points: Tensor, kind: Tensor) -> Tensor:
    """Return the cross entropy, and the price of what units say of each point."""
    said = model.each(points)
    total = nn.functional.cross_entropy(model.leave(said.amax(dim=1)), kind)
    priced: Tensor = total + model.price * said.mean()
    return priced


def far_away(_step: int, batch: Batch) -> Batch:
    """Give places as they are on a map of the country, in metres."""
    return 100.0 * batch[0] + torch.tensor([4000.0, -5000.0]), batch[1]


def map_accuracy(model: nn.Module, points: Tensor, kind: Tensor) -> float:
    """Return the share of right shapes of clouds on the map."""
    return accuracy(model, *far_away(0, (points, kind)))


Clouds = Task(split=sources.clouds, loss=cross_entropy, score=accuracy, size=32)
Sparse = Task(split=sources.clouds, loss=sparse, score=accuracy, size=32)
OnMap = Task(split=sources.clouds, loss=cross_entropy, score=map_accuracy, size=32)
nadam = partial(torch.optim.NAdam, lr=3e-3)
sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

CASES: tuple[Case, ...] = (
    Case(
        name="seeds-attend",
        family="set-attention",
        build=fit(
            Clouds,
            Seeds,
            partial(torch.optim.AdamW, lr=4e-3, amsgrad=True),
            schedule=partial(LinearLR, start_factor=0.01, total_iters=80),
        ),
        steps=300,
        level=0.7,
        why="all questions begin as zero and alike, and the rate rises for eighty steps",
    ),
    Case(
        name="extremes-harder",
        family="point-net",
        build=fit(Clouds, Extremes, nadam, change=harder),
        steps=300,
        level=0.7,
        why="more and more points are hidden, so the loss rises again while the net gets better",
    ),
    Case(
        name="spread-of-one-point",
        family="point-statistics",
        build=fit(Clouds, partial(Spread, 0.0), nadam, change=one_point),
        steps=200,
        level=0.5,
        kinds=("nonfinite",),
        onset=95,
        cures={"backward pass": fit(Clouds, partial(Spread, 1e-5), nadam, change=one_point)},
        why="one cloud is a single point, and the root of its variance has no slope",
    ),
    Case(
        name="extremes-priced-out",
        family="point-net",
        build=fit(Sparse, Extremes, sgd, before=partial(press, price=1000.0)),
        steps=220,
        level=0.6,
        kinds=("dead", "not_learning", "vanishing", "exploding", "diverging"),
        onset=70,
        cures={"look at the loss": fit(Sparse, Extremes, sgd, before=partial(press, price=1e-4))},
        why="a price on activity is ten million times too high, and soon no unit says anything",
    ),
    Case(
        name="extremes-on-the-map",
        family="point-net",
        build=fit(OnMap, Extremes, sgd, change=far_away),
        steps=250,
        level=0.5,
        kinds=("exploding", "diverging", "nonfinite", "dead"),
        cures={"look at the data": fit(Clouds, Extremes, sgd)},
        why="places are given in metres from a far corner of the map, thousands instead of ones",
    ),
)
