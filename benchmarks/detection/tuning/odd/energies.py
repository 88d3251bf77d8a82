"""Energies: a difference of two that are alike stays about zero, whatever is learnt.

In: images of digits. Out: a Boltzmann machine by contrastive divergence, and a net of energies
whose samples are drawn downhill.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import explained
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]


class Boltzmann(nn.Module):
    """A restricted Boltzmann machine over 64 dark or light pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(64, 64))
        self.seen_bias, self.hidden_bias = (nn.Parameter(torch.zeros(64)) for _ in range(2))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the free energy of each image."""
        hidden = nn.functional.softplus(pixels @ self.weight + self.hidden_bias)
        return -(pixels @ self.seen_bias) - hidden.sum(dim=1)

    def guessed(self, pixels: Tensor, *, drawn: bool = False) -> Tensor:
        """Return the chance of each pixel to be light, seen through the hidden units."""
        hidden = torch.sigmoid(pixels @ self.weight + self.hidden_bias)
        hidden = hidden.bernoulli() if drawn else hidden
        return torch.sigmoid(hidden @ self.weight.T + self.seen_bias)


def one_step(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the free energy of images less that of what the machine makes of them in a step."""
    with torch.no_grad():
        made = model.guessed(pixels, drawn=True).bernoulli()  # type: ignore[operator]
    difference: Tensor = model(pixels).mean() - model(made).mean()
    return difference


def dark_or_light() -> Task:
    """Lower the energy of digits in black and white."""
    inputs, _, held, _ = data.digits()
    rows, held_rows = ((images.flatten(1) > 0.0).float() for images in (inputs, held))

    def draw(_step: int) -> Batch:
        chosen = rows[torch.randint(len(rows), (64,))]
        return chosen, chosen

    def score(model: nn.Module) -> float:
        return explained(model.guessed(held_rows), held_rows)  # type: ignore[operator]

    return Task(draw=draw, loss=lambda model, batch: one_step(model, batch[0]), score=score)


def ring(count: int) -> Tensor:
    """Return points on a ring."""
    angle, radius = 6.2832 * torch.rand(count), 1.0 + 0.1 * torch.randn(count)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def downhill(model: nn.Module, points: Tensor, steps: int = 15) -> Tensor:
    """Return points that have gone down the energy with some noise."""
    for _ in range(steps):
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(model(points).sum(), points)
        points = points - 0.05 * slope.clamp(-2.0, 2.0) + 0.05 * torch.randn_like(points)
    return points.detach()


def contrast(model: nn.Module, points: Tensor) -> Tensor:
    """Return the energy of points less that of drawn ones, and a price for either's size."""
    drawn = downhill(model, 3.0 * torch.rand_like(points) - 1.5)
    real, made = model(points), model(drawn)
    price = 0.1 * (real.square().mean() + made.square().mean())
    total: Tensor = real.mean() - made.mean() + price
    return total


def off_ring(model: nn.Module) -> float:
    """Return how often a point on the ring is lower than one anywhere about it."""
    anywhere = 3.0 * torch.rand(2000, 2) - 1.5
    return float((model(ring(2000)) < model(anywhere)).float().mean())


def rings() -> Task:
    """Lower the energy of points on a ring."""

    def draw(_step: int) -> Batch:
        points = ring(64)
        return points, points

    return Task(draw=draw, loss=lambda model, batch: contrast(model, batch[0]), score=off_ring)


CASES: tuple[Case, ...] = (
    Case(
        name="boltzmann-one-step",
        family="boltzmann-machine",
        build=partial(
            trained, dark_or_light, Boltzmann, partial(torch.optim.SGD, lr=0.05, momentum=0.5)
        ),
        steps=400,
        level=0.25,
        why="contrastive divergence: the loss is a difference about zero and measures nothing",
    ),
    Case(
        name="energy-of-a-ring",
        family="energy-model",
        build=partial(
            trained,
            rings,
            partial(perceptron, 2, nn.SiLU, inputs=2, outputs=1),
            partial(torch.optim.Adam, lr=1e-2),
        ),
        steps=250,
        level=0.7,
        why="drawn points follow the energy that is learnt, so the loss stays about zero",
    ),
)
