"""Densities: flows, mixtures, and nets that take noise away from points."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import Task, fit, perceptron

__all__ = ["CASES"]


class Coupling(nn.Module):
    """Stretches and shifts one of two numbers, as the other one says.

    Args:
        kept: Which number stays.
    """

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.kept, self.net = kept, perceptron(1, 32, 32, 2, act=nn.SiLU)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new points, and the logarithm of the stretch."""
        kept, moved = points[:, self.kept], points[:, 1 - self.kept]
        stretch, shift = self.net(kept.unsqueeze(1)).unbind(1)
        stretch = stretch.tanh()
        moved = moved * stretch.exp() + shift
        pair = (kept, moved) if self.kept == 0 else (moved, kept)
        return torch.stack(pair, dim=1), stretch


class Flow(nn.Module):
    """Couplings in turn, and a normal distribution at the end.

    Args:
        depth: Couplings.
    """

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(number % 2) for number in range(depth))

    def forward(self, points: Tensor) -> Tensor:
        """Return the logarithm of the density at the points."""
        total = torch.zeros(len(points))
        for coupling in self.couplings:
            points, stretch = coupling(points)
            total = total + stretch
        density: Tensor = total - 0.5 * points.square().sum(dim=1) - math.log(2.0 * math.pi)
        return density


def unlikely(model: nn.Module, points: Tensor, _moons: Tensor) -> Tensor:
    """Return the mean negative log density."""
    loss: Tensor = -model(points).mean()
    return loss


def likely(model: nn.Module, points: Tensor, _moons: Tensor) -> Tensor:
    """Return the mean log density, which is to be large and not small."""
    return -unlikely(model, points, _moons)


def density(model: nn.Module, points: Tensor, _moons: Tensor) -> float:
    """Return the mean log density as a score."""
    return float(likely(model, points, _moons))


def mixture(model: nn.Module, places: Tensor, targets: Tensor, *, least: float = 1e-3) -> Tensor:
    """Return the negative log likelihood under a mixture of normals of some least width."""
    weight, mean, log_width = model(places).chunk(3, dim=1)
    width = log_width.exp() + least
    normal = -0.5 * ((targets - mean) / width).square() - width.log()
    likelihood: Tensor = (weight.log_softmax(dim=1) + normal).logsumexp(dim=1).mean()
    return -likelihood


def mixture_score(model: nn.Module, places: Tensor, targets: Tensor) -> float:
    """Return the log likelihood as a score, under widths of 0.01 at least."""
    return -float(mixture(model, places, targets, least=0.01))


class Denoiser(nn.Module):
    """Foresees the noise in points from the points and how noisy they are.

    Args:
        width: Of the two inner layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = perceptron(3, width, width, 2, act=nn.SiLU)
        self.teacher = perceptron(3, width, width, 2, act=nn.SiLU).requires_grad_(
            requires_grad=False
        )
        self.teacher.load_state_dict(self.net.state_dict())

    def forward(self, noisy: Tensor, level: Tensor) -> Tensor:
        """Return the noise, by the averaged net in evaluation."""
        net = self.net if self.training else self.teacher
        noise: Tensor = net(torch.cat([noisy, level], dim=1))
        return noise


def average(training: Training, _step: int) -> None:
    """Let the averaged net follow."""
    own, averaged = (training.model.get_submodule(name) for name in ("net", "teacher"))
    with torch.no_grad():
        for mean, weight in zip(averaged.parameters(), own.parameters(), strict=True):
            mean.lerp_(weight, 0.03)


def noise_loss(model: nn.Module, points: Tensor, _moons: Tensor) -> Tensor:
    """Return the squared error of the foreseen noise, at levels from none to all."""
    level, noise = torch.rand(len(points), 1), torch.randn_like(points)
    noisy = (1.0 - level).sqrt() * points + level.sqrt() * noise
    loss: Tensor = (model(noisy, level) - noise).square().mean()
    return loss


def score_loss(model: nn.Module, points: Tensor, _moons: Tensor, *, weighted: bool) -> Tensor:
    """Return the squared error of the slope of the log density, times the variance or not."""
    width = (-3.0 * torch.rand(len(points), 1)).exp()
    noise = torch.randn_like(points)
    slope = model(points + width * noise, width.log()) / width
    weight = width.square() if weighted else torch.ones_like(width)
    loss: Tensor = (weight * (slope + noise / width).square()).mean()
    return loss


def noise_score(model: nn.Module, points: Tensor, _moons: Tensor) -> float:
    """Return the share of the noise that is foreseen."""
    torch.manual_seed(0)
    return 1.0 - float(noise_loss(model, points.repeat(4, 1), _moons))


def width_score(model: nn.Module, points: Tensor, _moons: Tensor) -> float:
    """Return the share of the noise of all widths that is foreseen."""
    torch.manual_seed(0)
    return 1.0 - float(score_loss(model, points.repeat(4, 1), _moons, weighted=True))


Moons = Task(split=sources.moons, loss=unlikely, score=density, size=64)
Reversed = Task(split=sources.moons, loss=likely, score=density, size=64)
Fits = Task(split=sources.inverse, loss=mixture, score=mixture_score, size=64)
Noise = Task(split=sources.moons, loss=noise_loss, score=noise_score, size=128)
Slopes = Task(
    split=sources.moons, loss=partial(score_loss, weighted=False), score=width_score, size=64
)
WeightedSlopes = Task(
    split=sources.moons, loss=partial(score_loss, weighted=True), score=width_score, size=64
)
mixture_net = partial(perceptron, 1, 32, 32, 12, act=nn.Tanh)
adam = partial(torch.optim.Adam, lr=3e-3)
sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

CASES: tuple[Case, ...] = (
    Case(
        name="flow-moons",
        family="normalising-flow",
        build=fit(
            Moons,
            Flow,
            partial(torch.optim.AdamW, lr=5e-3, weight_decay=0.01),
            schedule=partial(CosineAnnealingLR, T_max=300),
        ),
        steps=300,
        level=-2.4,
        why="the loss is a negative logarithm, and one number in two passes each layer unchanged",
    ),
    Case(
        name="mixture-of-fits",
        family="mixture-density",
        build=fit(Fits, mixture_net, adam, clip_norm=5.0),
        steps=400,
        level=0.6,
        why="the loss falls below zero; narrow normals have steep slopes, so each step is clipped",
    ),
    Case(
        name="points-from-noise",
        family="diffusion",
        build=fit(Noise, Denoiser, adam, before=average),
        steps=400,
        level=0.3,
        why="the loss is mostly noise; what is scored is a slow copy that has no gradient",
    ),
    Case(
        name="flow-sign",
        family="normalising-flow",
        build=fit(Reversed, Flow, adam),
        steps=200,
        level=-2.4,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"look at the loss": fit(Moons, Flow, adam)},
        why="the log density is driven down, where there is no end",
    ),
    Case(
        name="slopes-unweighted",
        family="score-matching",
        build=fit(Slopes, Denoiser, sgd, before=average),
        steps=400,
        level=0.14,
        kinds=("exploding", "diverging", "nonfinite"),
        cures={"look at the loss": fit(WeightedSlopes, Denoiser, sgd, before=average)},
        why="slopes near the points are twenty times steeper, and nothing weighs them down",
    ),
)
