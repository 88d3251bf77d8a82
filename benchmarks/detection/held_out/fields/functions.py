"""Nets for formulas: learned edges, radial bumps, and residual layers that begin shut."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Batch,
    Task,
    accuracy,
    cross_entropy,
    explained,
    fit,
    perceptron,
    squared_error,
)

__all__ = ["CASES"]


class Edges(nn.Module):
    """Sums of functions of one number each, which are sums of bumps on a grid from -2 to 2.

    Args:
        inputs: Numbers in.
        outputs: Numbers out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2.0, 2.0, 9))
        self.height = nn.Parameter(0.1 * torch.randn(inputs, 9, outputs))
        self.base = nn.Linear(inputs, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sums."""
        bumps = (-4.0 * (inputs.unsqueeze(2) - self.get_buffer("grid")).square()).exp()
        sums: Tensor = self.base(nn.functional.silu(inputs))
        return sums + torch.einsum("big,igo->bo", bumps, self.height)


def edges() -> nn.Sequential:
    """Return two layers of learned edges."""
    return nn.Sequential(Edges(2, 5), Edges(5, 1))


class Bumps(nn.Module):
    """Radial bumps around places, of one width each.

    Args:
        inputs: Numbers in.
        count: Bumps.
        spread: Deviation of their places.
    """

    def __init__(self, inputs: int, count: int, spread: float) -> None:
        super().__init__()
        self.places = nn.Parameter(spread * torch.randn(count, inputs))
        self.log_width = nn.Parameter(torch.zeros(count))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the bumps' heights where the inputs are."""
        square = (inputs.unsqueeze(1) - self.places).square().sum(dim=2)
        return (-0.5 * square * (-2.0 * self.log_width).exp()).exp()


def bumps(spread: float, width: float = 1.0) -> nn.Sequential:
    """Return forty bumps in the plane, and their weighed sum."""
    layer = Bumps(2, 40, spread)
    nn.init.constant_(layer.log_width, torch.tensor(width).log().item())
    return nn.Sequential(layer, nn.Linear(40, 2))


class Shut(nn.Module):
    """A residual perceptron whose branch is multiplied by a number that begins at zero.

    Args:
        width: Of the path.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = perceptron(width, width, width)
        self.opening = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the branch."""
        total: Tensor = inputs + self.opening * self.body(inputs)
        return total


def residual(depth: int, *, learned: bool = True) -> nn.Sequential:
    """Return many residual layers; whether their openings are learned can be chosen."""
    model = nn.Sequential(nn.Linear(2, 24), *(Shut(24) for _ in range(depth)), nn.Linear(24, 2))
    for name, parameter in model.named_parameters():
        if name.endswith("opening"):
            parameter.requires_grad_(learned)
    return model


def rings(_step: int, batch: Batch) -> Batch:
    """Ask for the ring around the middle that a point is in, even or odd, instead of the moon."""
    return batch[0], in_ring(batch[0])


def in_ring(points: Tensor) -> Tensor:
    """Return whether points are in a ring of odd number."""
    number: Tensor = (points.norm(dim=1) * 2.5).long()
    return number % 2


def ring_accuracy(model: nn.Module, points: Tensor, _moons: Tensor) -> float:
    """Return the share of rings that are told right."""
    return accuracy(model, points, in_ring(points))


def metres(step: int, batch: Batch) -> Batch:
    """Ask for rings, and give the places in metres and not in kilometres from step 20 on."""
    places, ring = rings(step, batch)
    return (1000.0 * places if step >= 20 else places), ring


def thaw(training: Training, step: int) -> None:
    """Freeze all but the last layer for sixty steps, then let all learn."""
    if step in (0, 60):
        for number, layer in enumerate(training.model.children()):
            layer.requires_grad_(step == 60 or number == 4)


def frozen_first() -> nn.Sequential:
    """Return a perceptron for wine, which `thaw` freezes at first."""
    return perceptron(13, 32, 16, 3, act=nn.Softplus)


Formula = Task(split=sources.formula, loss=squared_error, score=explained, size=64)
Moons = Task(split=sources.moons, loss=cross_entropy, score=accuracy, size=32)
Rings = Task(split=sources.moons, loss=cross_entropy, score=ring_accuracy, size=64)
Wine = Task(split=partial(data.table, "wine"), loss=cross_entropy, score=accuracy, size=12)
fast = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
steady = partial(torch.optim.SGD, lr=0.008, momentum=0.9)
adagrad = partial(torch.optim.Adagrad, lr=0.05)

CASES: tuple[Case, ...] = (
    Case(
        name="edges-formula",
        family="kolmogorov-arnold",
        build=fit(Formula, edges, partial(torch.optim.Adam, lr=0.01)),
        steps=300,
        level=0.8,
        why="each weight acts where a number is in its part of the grid, and in no other place",
    ),
    Case(
        name="bumps-mostly-idle",
        family="radial-basis",
        build=fit(Moons, partial(bumps, 4.0), partial(torch.optim.RAdam, lr=0.03)),
        steps=300,
        level=0.9,
        why="most bumps are far from all points, and have hardly a gradient from first to last",
    ),
    Case(
        name="shut-adagrad",
        family="rezero",
        build=fit(Rings, partial(residual, 12), adagrad, change=rings),
        steps=400,
        level=0.75,
        why="twelve branches begin multiplied by zero, so nothing in them has a gradient at first",
    ),
    Case(
        name="thawed",
        family="table",
        build=fit(
            Wine,
            frozen_first,
            fast,
            before=thaw,
            schedule=partial(OneCycleLR, max_lr=0.05, total_steps=250),
        ),
        steps=200,
        level=0.9,
        why="one layer learns for sixty steps, then all do, while the rate rises and falls",
    ),
    Case(
        name="bumps-in-metres",
        family="radial-basis",
        build=fit(Rings, partial(bumps, 1.0, 0.3), steady, change=metres),
        steps=500,
        level=0.74,
        kinds=("vanishing", "not_learning", "dead"),
        onset=20,
        cures={"look at the data": fit(Rings, partial(bumps, 1.0, 0.3), steady, change=rings)},
        why="from step 20 on all places are far beyond all bumps, which have no slope there",
    ),
    Case(
        name="shut-for-good",
        family="rezero",
        build=fit(Rings, partial(residual, 12, learned=False), adagrad, change=rings),
        steps=400,
        level=0.7,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": fit(Rings, partial(residual, 12), adagrad, change=rings)},
        why="the openings of twelve branches stay at zero, for they were made without gradient",
    ),
)
