"""Densities: a log-likelihood has no floor at zero, and the loss may well be negative.

In: points made by arithmetic. Out: cases in which a mixture or a flow is fitted, and the same with
the sign of the loss mistaken.
"""

from __future__ import annotations

import math
from functools import partial

import sklearn.datasets
import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]


class Mixture(nn.Module):
    """A net that answers with five normal distributions in place of a number."""

    def __init__(self) -> None:
        super().__init__()
        self.net = perceptron(2, nn.Tanh, inputs=1, outputs=15)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the log-likelihood of each target, in nats."""
        weights, means, log_deviations = self.net(inputs).chunk(3, dim=1)
        errors = (targets - means) * (-log_deviations).exp()
        each = -0.5 * errors.square() - log_deviations - 0.5 * math.log(2.0 * math.pi)
        joint: Tensor = weights.log_softmax(dim=1) + each
        return joint.logsumexp(dim=1)


class Coupling(nn.Module):
    """Shift and stretch one coordinate of a point, told by the other.

    Args:
        place: The coordinate that is changed, 0 or 1.
    """

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place
        self.net = perceptron(2, nn.Tanh, units=32, inputs=1, outputs=2)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points and the logarithm of how much they were stretched."""
        kept, changed = points[:, 1 - self.place], points[:, self.place]
        shift, stretch = self.net(kept.unsqueeze(1)).unbind(dim=1)
        stretch = 2.0 * torch.tanh(stretch)
        pair = [kept, changed * stretch.exp() + shift]
        return torch.stack(pair if self.place else pair[::-1], dim=1), stretch


class Flow(nn.Module):
    """Six couplings that turn points into standard normal ones."""

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(index % 2) for index in range(6))

    def forward(self, points: Tensor, _targets: Tensor) -> Tensor:
        """Return the log-likelihood of each point, in nats."""
        log_stretch = points.new_zeros(len(points))
        for coupling in self.couplings:
            points, stretch = coupling(points)
            log_stretch = log_stretch + stretch
        return log_stretch - 0.5 * points.square().sum(dim=1) - math.log(2.0 * math.pi)


def inverse_wave(count: int) -> Batch:
    """Return a wave seen from the side: most inputs have three answers, each one sharp."""
    answers = torch.rand(count, 1)
    wave = answers + 0.3 * torch.sin(2.0 * math.pi * answers)
    return 4.0 * wave - 2.0, answers + 0.01 * torch.randn(count, 1)


def moons(count: int) -> Batch:
    """Return points of two thin half moons, less than one wide; there are no targets."""
    seed = int(torch.randint(2**31, ()))
    points, _ = sklearn.datasets.make_moons(count, noise=0.05, random_state=seed)
    tensor = torch.tensor(points, dtype=torch.float32)
    return 0.4 * (tensor - torch.tensor([0.5, 0.25])), tensor


def likelihood(draw: partial[Batch], held: partial[Batch], sign: float = -1.0) -> Task:
    """Minimise the mean log-likelihood times a sign; the score is its held-out mean."""
    held_points = held()
    return Task(
        draw=lambda _step: draw(),
        loss=lambda model, batch: sign * model(*batch).mean(),
        score=lambda model: float(model(*held_points).mean()),
    )


waves = partial(likelihood, partial(inverse_wave, 128), partial(inverse_wave, 1000))
points = partial(likelihood, partial(moons, 128), partial(moons, 1000))
adam = partial(torch.optim.Adam, lr=3e-3)

CASES: tuple[Case, ...] = (
    Case(
        name="mixture-density-wave",
        family="mixture-density",
        build=partial(trained, waves, Mixture, adam),
        steps=400,
        level=0.5,
        why="the loss goes from positive through zero to negative",
    ),
    Case(
        name="flow-two-moons",
        family="flow",
        build=partial(trained, points, Flow, adam),
        steps=350,
        level=0.0,
        why="a log-likelihood of thin points: the loss passes zero and stays negative",
    ),
    Case(
        name="mixture-density-wrong-sign",
        family="mixture-density",
        build=partial(trained, partial(waves, 1.0), Mixture, adam),
        steps=400,
        level=0.5,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"look at the loss": partial(trained, waves, Mixture, adam)},
        why="the likelihood is made small, without end, as the minus sign was left out",
    ),
    Case(
        name="flow-wrong-sign",
        family="flow",
        build=partial(trained, partial(points, 1.0), Flow, adam),
        steps=350,
        level=0.0,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"look at the loss": partial(trained, points, Flow, adam)},
        why="the points are thrown ever further from the middle, as the minus sign was left out",
    ),
)
