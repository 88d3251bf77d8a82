"""Learning to learn: weights from which a few steps lead to each of many tasks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.fields.parts import (
    Task,
    fit,
    perceptron,
)

__all__ = ["CASES"]


def wave_tasks() -> Split:
    """Return tasks of twenty arguments each ``(n, 20, 1)``, and a wave of its own for each task."""
    generator = torch.Generator().manual_seed(2)
    arguments = torch.rand(400, 20, 1, generator=generator) * 6.0 - 3.0
    height = 0.5 + torch.rand(400, 1, 1, generator=generator) * 2.0
    shift = torch.rand(400, 1, 1, generator=generator) * 3.0
    values = height * (arguments + shift).sin()
    return arguments[:320], values[:320], arguments[320:], values[320:]


def adapted_error(
    model: nn.Module, arguments: Tensor, values: Tensor, *, rate: float, rounds: int
) -> Tensor:
    """Return the error on half of each task after steps along the slope on the other half."""

    def after(x: Tensor, y: Tensor) -> Tensor:
        weights: dict[str, Tensor] = dict(model.named_parameters())
        for _ in range(rounds):
            error = (functional_call(model, weights, (x[:10],)) - y[:10]).square().mean()
            slopes = torch.autograd.grad(error, list(weights.values()), create_graph=True)
            weights = {
                name: weight - rate * slope
                for (name, weight), slope in zip(weights.items(), slopes, strict=True)
            }
        missed: Tensor = (functional_call(model, weights, (x[10:],)) - y[10:]).square().mean()
        return missed

    return torch.stack([after(x, y) for x, y in zip(arguments, values, strict=True)]).mean()


def adapted_score(model: nn.Module, arguments: Tensor, values: Tensor) -> float:
    """Return the share of new tasks' variance that is explained after one step in each."""
    with torch.enable_grad():
        error = adapted_error(model, arguments, values, rate=0.05, rounds=3)
    return 1.0 - float(error.detach() / values.var())


Adapt = Task(
    split=wave_tasks,
    loss=partial(adapted_error, rate=0.05, rounds=3),
    score=adapted_score,
    size=4,
)
Overshoot = Task(
    split=wave_tasks,
    loss=partial(adapted_error, rate=0.3, rounds=3),
    score=adapted_score,
    size=4,
)
sgd = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
wave_net = partial(perceptron, 1, 32, 32, 1, act=nn.Tanh)
adam = partial(torch.optim.Adam, lr=3e-3)

CASES: tuple[Case, ...] = (
    Case(
        name="learning-to-learn",
        family="meta-learning",
        build=fit(Adapt, wave_net, adam),
        steps=120,
        level=0.3,
        why="gradients pass through three steps of learning, and every batch has other tasks",
    ),
    Case(
        name="learning-overshoots",
        family="meta-learning",
        build=fit(Overshoot, wave_net, sgd),
        steps=100,
        level=0.1,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={"lower learning rate": fit(Adapt, wave_net, sgd)},
        why="the inner steps are six times too long, and gradients pass through all three of them",
    ),
)
