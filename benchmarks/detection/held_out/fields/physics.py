"""Laws of nature in the loss: heat, a pendulum, and a hanging chain."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from benchmarks.detection.case import Case, Training
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import Task, explained, fit, perceptron

__all__ = ["CASES"]


def slope(value: Tensor, over: Tensor) -> Tensor:
    """Return how a sum of values changes with what they were made from."""
    (found,) = torch.autograd.grad(value.sum(), over, create_graph=True)
    return found


class Energy(nn.Module):
    """A state moves so that its energy, which a net gives, stays the same."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = perceptron(2, 32, 32, 1, act=nn.Tanh)

    def forward(self, state: Tensor) -> Tensor:
        """Return how fast angle and speed change."""
        with torch.enable_grad():
            state = state.detach().requires_grad_()
            by_angle, by_speed = slope(self.energy(state), state).unbind(1)
        return torch.stack([by_speed, -by_angle], dim=1)


def movement(model: nn.Module, state: Tensor, change: Tensor) -> Tensor:
    """Return the mean squared error of the changes."""
    error: Tensor = (model(state) - change).square().mean()
    return error


def degrees() -> Split:
    """Return the states of the pendulum with angle and speed in degrees; changes are as before."""
    inputs, targets, held_inputs, held_targets = sources.pendulum()
    turn = 180.0 / math.pi
    return turn * inputs, targets, turn * held_inputs, held_targets


def rod() -> Split:
    """Return moments and places of a rod ``(n, 2)`` that cools, and its temperature there."""
    inputs = torch.rand(1500, 2, generator=torch.Generator().manual_seed(1))
    return inputs[:1200], cooled(inputs[:1200]), inputs[1200:], cooled(inputs[1200:])


def cooled(inputs: Tensor) -> Tensor:
    """Return the temperature of a rod that begins as a sine and is held at zero at its ends."""
    moment, place = inputs[:, :1], inputs[:, 1:]
    return (-moment).exp() * (math.pi * place).sin()


class Rod(nn.Module):
    """A temperature as a function of moment and place.

    Args:
        weight: Of beginning and ends in the loss.
    """

    def __init__(self, weight: float = 20.0) -> None:
        super().__init__()
        self.net, self.weight = perceptron(2, 24, 24, 1, act=nn.Tanh), weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Return temperatures."""
        found: Tensor = self.net(inputs)
        return found


def heat(model: Rod, inputs: Tensor, _targets: Tensor) -> Tensor:
    """Return how much the law of heat is broken, and how much beginning and ends are wrong."""
    inputs = inputs.clone().requires_grad_()
    first = slope(model(inputs), inputs)
    second = slope(first[:, 1], inputs)[:, 1]
    law = (first[:, 0] - second / math.pi**2).square().mean()
    edge = inputs.detach().clone()
    edge[::2, 0], edge[1::2, 1] = 0.0, edge[1::2, 1].round()
    held = (model(edge) - cooled(edge)).square().mean()
    total: Tensor = law + model.weight * held
    return total


def harden(training: Training, step: int, *, factor: float) -> None:
    """Multiply the price of a wrong edge in each step."""
    if isinstance(training.model, Rod):
        training.model.weight = 10.0 * factor**step


class Chain(nn.Module):
    """Heights of a chain's links between two nails.

    Args:
        links: How many.
    """

    def __init__(self, links: int) -> None:
        super().__init__()
        self.heights = nn.Parameter(0.02 * torch.randn(links))

    def forward(self, _inputs: Tensor) -> Tensor:
        """Return the energy: of stretched springs, and of weight."""
        ends = torch.zeros(1)
        stretch = torch.cat([ends, self.heights, ends]).diff()
        return 0.5 * stretch.square().sum() + 0.01 * self.heights.sum()


def energy(model: nn.Module, inputs: Tensor, _targets: Tensor) -> Tensor:
    """Return the energy itself, which is below zero once the chain hangs."""
    found: Tensor = model(inputs)
    return found


def hanging(model: nn.Module, _inputs: Tensor, _targets: Tensor) -> float:
    """Return the share of the heights' squares that are as they should be."""
    heights = model.get_parameter("heights")
    place = torch.arange(1.0, len(heights) + 1.0)
    right = -0.005 * place * (len(heights) + 1.0 - place)
    return 1.0 - float((heights - right).square().sum() / right.square().sum())


Pendulum = Task(split=sources.pendulum, loss=movement, score=explained, size=64)
Degrees = Task(split=degrees, loss=movement, score=explained, size=64)
Heat = Task(split=rod, loss=heat, score=explained, size=64)
Hang: Task[nn.Module] = Task(split=sources.pendulum, loss=energy, score=hanging, size=1)
adam = partial(torch.optim.Adam, lr=5e-3)
sgd = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
chain = partial(Chain, 20)

CASES: tuple[Case, ...] = (
    Case(
        name="pendulum-energy",
        family="hamiltonian",
        build=fit(Pendulum, Energy, adam, schedule=partial(StepLR, step_size=100, gamma=0.5)),
        steps=400,
        level=0.7,
        why="what is fitted is the slope of the net, so its last bias never has a gradient",
    ),
    Case(
        name="pendulum-in-degrees",
        family="hamiltonian",
        build=fit(Degrees, Energy, adam),
        steps=250,
        level=0.75,
        kinds=("saturated", "not_learning", "vanishing"),
        needs_activations=True,
        cures={"look at the data": fit(Pendulum, Energy, adam)},
        why="angles in degrees hold nearly every tanh at its flat end, without slope",
    ),
    Case(
        name="rod-cools",
        family="physics-informed",
        build=fit(Heat, Rod, adam),
        steps=350,
        level=0.8,
        why="derivatives up to the second in the loss, and two parts of it that pull apart",
    ),
    Case(
        name="chain-hangs",
        family="energy",
        build=fit(Hang, chain, partial(torch.optim.SGD, lr=0.3, momentum=0.9)),
        steps=250,
        level=0.9,
        why="the loss is an energy without any noise: it falls below zero, and then it rests",
    ),
    Case(
        name="chain-whips",
        family="energy",
        build=fit(Hang, chain, partial(torch.optim.SGD, lr=0.52)),
        steps=300,
        level=0.3,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"lower learning rate": fit(Hang, chain, partial(torch.optim.SGD, lr=0.45))},
        why="the rate is just beyond what the stiffest bend of the chain bears",
    ),
    Case(
        name="rod-penalty-hardens",
        family="physics-informed",
        build=fit(Heat, Rod, sgd, before=partial(harden, factor=1.03)),
        steps=350,
        level=0.5,
        kinds=("exploding", "diverging", "nonfinite"),
        onset=50,
        cures={"look at the loss": fit(Heat, Rod, sgd, before=partial(harden, factor=1.0))},
        why="the price of wrong edges rises by 3% per step without end, and slopes with it",
    ),
)
