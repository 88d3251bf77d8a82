"""Fits of functions and of an equation, on all points in each step."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.layers import Apply, scale_weights_
from benchmarks.detection.tuning.once_held_out.parts import (
    explained,
    fit,
    scheduled,
    squared_error,
)

__all__ = ["CASES"]


def oscillator(gain: float = 1.0) -> nn.Sequential:
    """Return a tanh net of one number, weights times a gain."""
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    scale_weights_(net, gain)
    return net


def harmonics() -> nn.Sequential:
    """Return a linear model of the sines and cosines of eight frequencies."""
    frequencies = torch.arange(1.0, 9.0)
    waves = Apply(lambda x: torch.cat([(x * frequencies).sin(), (x * frequencies).cos()], dim=1))
    return nn.Sequential(waves, nn.Linear(16, 1))


def equation(model: nn.Module, times: Tensor, _sine: Tensor) -> Tensor:
    """Return how badly u'' = -u with u(0) = 0 and u'(0) = 1 is met."""
    times = times.clone().requires_grad_()
    value = model(times)
    slope = torch.autograd.grad(value.sum(), times, create_graph=True)[0]
    curve = torch.autograd.grad(slope.sum(), times, create_graph=True)[0]
    start = value[0].square() + (slope[0] - 1.0).square()
    total: Tensor = (curve + value).square().mean() + 2.0 * start.sum()
    return total


SGD, Adam = torch.optim.SGD, torch.optim.Adam
solve = partial(fit, criterion=equation, score=explained, batch_size=None)
regress = partial(fit, criterion=squared_error, score=explained, batch_size=None)
cosine = scheduled(partial(CosineAnnealingLR, T_max=400))

CASES: tuple[Case, ...] = (
    Case(
        name="oscillator-equation",
        family="physics",
        build=solve(oscillator, partial(Adam, lr=2e-2), sources.sine, cosine),
        steps=400,
        level=0.8,
        why="second derivatives in the loss, always the same batch, rate to zero",
    ),
    Case(
        name="harmonics-runaway",
        family="physics",
        build=regress(harmonics, partial(SGD, lr=1.05), sources.sine),
        steps=250,
        level=0.5,
        kinds=("diverging", "exploding"),
        cures={"lower learning rate": regress(harmonics, partial(SGD, lr=0.3), sources.sine)},
        why="a rate just above what the steepest direction bears: a tenth worse with every step",
    ),
    Case(
        name="oscillator-flat-units",
        family="physics",
        build=solve(partial(oscillator, 60.0), partial(Adam, lr=2e-2), sources.sine),
        steps=250,
        level=0.3,
        kinds=("saturated", "not_learning", "exploding", "diverging"),
        cures={"initialisation": solve(oscillator, partial(Adam, lr=2e-2), sources.sine)},
        needs_activations=True,
        why="weights sixty times too large hold nearly every tanh at its flat end",
    ),
)
