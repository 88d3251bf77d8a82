"""Data made by arithmetic: pictures, tables, points, and movements.

In: nothing. Out: splits, always the same ones, whatever the seed of a training.
"""

from __future__ import annotations

import math
from functools import lru_cache

import sklearn.datasets
import torch
from torch import Tensor

from benchmarks.detection import data
from benchmarks.detection.data import Split

__all__ = [
    "clicks",
    "clouds",
    "counts",
    "flat_digits",
    "formula",
    "inverse",
    "moons",
    "odd_halves",
    "pendulum",
    "picture",
    "survival",
]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _cut(inputs: Tensor, targets: Tensor) -> Split:
    order = torch.randperm(len(inputs), generator=_generator())
    kept, held_out = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    return inputs[kept], targets[kept], inputs[held_out], targets[held_out]


@lru_cache(maxsize=1)
def picture() -> Split:
    """Return places in a square from -1 to 1, ``(n, 2)``, and the brightness of a picture there."""
    side = torch.linspace(-1.0, 1.0, 40)
    places = torch.cartesian_prod(side, side)
    x, y = places.unbind(1)
    rings = (12.0 * (x.square() + y.square())).sin()
    bright = rings + 0.7 * (9.0 * x).cos() * (7.0 * y + 1.0).sin()
    return _cut(places, bright.unsqueeze(1))


@lru_cache(maxsize=1)
def moons() -> Split:
    """Return points of two moons, standardised ``(n, 2)``; the target is the moon."""
    points, moon = sklearn.datasets.make_moons(2000, noise=0.06, random_state=0)
    inputs = torch.tensor(points, dtype=torch.float32)
    return _cut((inputs - inputs.mean(dim=0)) / inputs.std(dim=0), torch.tensor(moon))


@lru_cache(maxsize=1)
def survival() -> Split:
    """Return six columns, and per row the time of the end and whether it was seen (1) or not."""
    generator = _generator()
    inputs = torch.randn(1500, 6, generator=generator)
    hazard = (inputs[:, 0] + 0.8 * inputs[:, 1] * inputs[:, 2] - 0.6 * inputs[:, 3]).exp()
    end = -torch.rand(1500, generator=generator).log() / hazard
    watched = -3.0 * torch.rand(1500, generator=generator).log()
    return _cut(inputs, torch.stack([end.minimum(watched), (end <= watched).float()], dim=1))


@lru_cache(maxsize=1)
def counts() -> Split:
    """Return eight columns, and how often something happened, four times on average."""
    generator = _generator()
    inputs = torch.randn(2000, 8, generator=generator)
    rate = (1.0 + 0.5 * inputs[:, 0] - 0.4 * inputs[:, 1] + 0.4 * (2.0 * inputs[:, 2]).sin()).exp()
    return _cut(inputs, torch.poisson(rate, generator=generator).unsqueeze(1))


@lru_cache(maxsize=1)
def inverse() -> Split:
    """Return places, and targets of which up to three fit the same place, all ``(n, 1)``."""
    generator = _generator()
    target = torch.rand(2000, 1, generator=generator)
    noise = 0.03 * torch.randn(2000, 1, generator=generator)
    place = target + 0.3 * (2.0 * math.pi * target).sin() + noise
    return _cut(4.0 * place - 2.0, target)


@lru_cache(maxsize=1)
def clouds() -> Split:
    """Return clouds of 24 points ``(n, 24, 2)`` on a circle, a square, a cross or a spiral."""
    generator = _generator()
    along = torch.rand(2000, 24, generator=generator)
    angle = 2.0 * math.pi * along
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    square = circle / circle.abs().amax(dim=-1, keepdim=True)
    arm = torch.rand(2000, 24, generator=generator) < 0.5
    axis = torch.stack([arm.float(), 1.0 - arm.float()], dim=-1)
    shapes = (circle, square, axis * (2.0 * along - 1.0).unsqueeze(-1), circle * along[..., None])
    kind = torch.randint(4, (2000,), generator=generator)
    points = torch.stack(shapes)[kind, torch.arange(2000)]
    return _cut(points + 0.04 * torch.randn(points.shape, generator=generator), kind)


@lru_cache(maxsize=1)
def clicks() -> Split:
    """Return rows of three words out of 60, twenty per column, and a rating of their pairs."""
    generator = _generator()
    words = torch.randint(20, (3000, 3), generator=generator) + torch.tensor([0, 20, 40])
    vectors = torch.randn(60, 3, generator=generator)
    a, b, c = vectors[words].unbind(1)
    rating = (a * b + b * c + a * c).sum(dim=1) / 3.0
    return _cut(words, rating.unsqueeze(1))


@lru_cache(maxsize=1)
def odd_halves() -> Split:
    """Return words as `clicks` does, and whether an odd number of them is in an upper half."""
    words = clicks()
    return words[0], _is_odd(words[0]), words[2], _is_odd(words[2])


def _is_odd(words: Tensor) -> Tensor:
    upper = (words % 20 >= 10)[:, :2].sum(dim=1)
    return (upper % 2 == 1).long()


@lru_cache(maxsize=1)
def pendulum() -> Split:
    """Return angle and speed of a pendulum ``(n, 2)``, and how fast the two change."""
    state = torch.rand(1500, 2, generator=_generator()) * 4.0 - 2.0
    return _cut(state, torch.stack([state[:, 1], -2.0 * state[:, 0].sin()], dim=1))


@lru_cache(maxsize=1)
def formula() -> Split:
    """Return places in a square from -1 to 1, and a formula of sums and functions of one number."""
    places = torch.rand(1500, 2, generator=_generator()) * 2.0 - 1.0
    x, y = places.unbind(1)
    value = ((math.pi * x).sin() + y.square()).exp()
    return _cut(places, ((value - value.mean()) / value.std()).unsqueeze(1))


@lru_cache(maxsize=1)
def flat_digits() -> Split:
    """Return digits as rows of 64 numbers."""
    inputs, targets, held_inputs, held_targets = data.digits()
    return inputs.flatten(1), targets, held_inputs.flatten(1), held_targets
