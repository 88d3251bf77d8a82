"""More that trainings of this benchmark learn: tables, and what an instrument records.

In: sizes. Out: tasks, each with held-out data that are the same for every run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.detection import data
from benchmarks.interventions.case import Batch, Task
from benchmarks.interventions.tasks import classes, fixed, numbers, rows

__all__ = ["images", "look_up", "pitch", "table", "waves"]

HELD_OUT = 1000


def table(name: str, *, batch_size: int = 32) -> Task:
    """Tell the classes of a table, or the number of ``"diabetes"``, from standardised columns."""
    inputs, targets, *others = data.table(name)
    draw, held_out = rows(inputs, targets, batch_size=batch_size), (others[0], others[1])
    if targets.is_floating_point():
        return numbers(draw, held_out)
    return classes(draw, held_out, chance=_most(held_out[1]))


def _most(targets: Tensor) -> float:
    return float(targets.bincount().max()) / len(targets)


def images(*, batch_size: int = 64) -> Task:
    """Give images of digits ``(n, 64)`` back as they came."""
    inputs, _, held_out, _ = data.digits()
    inputs, held_out = inputs.flatten(1), held_out.flatten(1)
    return numbers(rows(inputs, inputs, batch_size=batch_size), (held_out, held_out))


def waves(*, length: int = 64, batch_size: int = 32) -> Task:
    """Tell four shapes of waves apart, ``(n, 1, length)``, of any pitch, phase and loudness."""

    def draw(count: int, random: torch.Generator) -> Batch:
        kinds = torch.randint(4, (count,), generator=random)
        turns = _turns(count, length, random)[0] % 1.0
        shapes = torch.stack(
            [
                (2.0 * math.pi * turns).sin(),
                (turns - 0.5).sign(),
                2.0 * turns - 1.0,
                4.0 * (turns - 0.5).abs() - 1.0,
            ]
        )
        return _recorded(shapes[kinds, torch.arange(count)], random).unsqueeze(1), kinds

    held_out = draw(HELD_OUT, fixed())
    chance = _most(held_out[1])
    return classes(lambda random: draw(batch_size, random), held_out, chance=chance)


def pitch(*, length: int = 32, batch_size: int = 32, heavy: float = 0.0) -> Task:
    """Name the pitch of a wave ``(n, length, 1)``, of mean 0 and deviation 1.

    Args:
        length: Values per wave.
        batch_size: Waves per batch.
        heavy: Scale of noise in the targets with one long tail: Pareto's distribution with the
            exponent 1.5, whose variance is infinite, less its mean; none where held out.
    """

    def draw(count: int, random: torch.Generator) -> Batch:
        turns, pitches = _turns(count, length, random)
        recorded = _recorded((2.0 * math.pi * turns).sin(), random)
        return recorded.unsqueeze(2), (pitches - 0.09) / 0.035

    def noisy(random: torch.Generator) -> Batch:
        inputs, targets = draw(batch_size, random)
        uniform = torch.rand(targets.shape, generator=random)
        return inputs, targets + heavy * ((1.0 - uniform) ** (-1.0 / 1.5) - 3.0)

    return numbers(noisy, draw(HELD_OUT, fixed()))


def _turns(count: int, length: int, random: torch.Generator) -> Batch:
    """Return turns of waves since they began, and turns per value."""
    pitches = 0.03 + 0.12 * torch.rand(count, 1, generator=random)
    phases = torch.rand(count, 1, generator=random)
    return pitches * torch.arange(length) + phases, pitches


def _recorded(values: Tensor, random: torch.Generator) -> Tensor:
    """Return waves of different loudness with a little noise."""
    loudness = 0.5 + torch.rand(len(values), 1, generator=random)
    return loudness * values + 0.1 * torch.randn(values.shape, generator=random)


def look_up(*, length: int = 6, batch_size: int = 64) -> Task:
    """Name the sign, one of eight, that is kept under a key: rows ``(n, 1 + length, length + 8)``.

    The first row is the key that is asked for, each other one a key and its sign.
    """

    def draw(count: int, random: torch.Generator) -> Batch:
        signs = torch.randint(8, (count, length), generator=random)
        order = torch.rand(count, length, generator=random).argsort(dim=1)
        keys = functional.one_hot(order, length).float()
        places = torch.randint(length, (count,), generator=random)
        every = torch.arange(count)
        asked = torch.cat([keys[every, places], torch.zeros(count, 8)], dim=1).unsqueeze(1)
        stored = torch.cat([keys, functional.one_hot(signs, 8).float()], dim=2)
        return torch.cat([asked, stored], dim=1), signs[every, places]

    held_out = draw(HELD_OUT, fixed())
    chance = _most(held_out[1])
    return classes(lambda random: draw(batch_size, random), held_out, chance=chance)
