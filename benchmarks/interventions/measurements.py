"""More that trainings of this benchmark learn: tables, and what an instrument records.

In: sizes. Out: tasks, each with held-out data that are the same for every run.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.detection import data
from benchmarks.interventions.case import Batch, Draw, Task
from benchmarks.interventions.tasks import HELD_OUT, classes, fixed, numbers

__all__ = ["images", "look_up", "pitch", "table", "waves"]


def table(name: str, *, batch_size: int = 32) -> Task:
    """Tell the classes of a table, or its number in ``"diabetes"``, from standardised columns."""
    inputs, targets, *held_out = data.table(name)
    draw = _rows(inputs, targets, batch_size)
    if targets.is_floating_point():
        return _regression(draw, (held_out[0], held_out[1]))
    most = float(held_out[1].bincount().max()) / len(held_out[1])
    return classes(draw, (held_out[0], held_out[1]), chance=most)


def images(*, batch_size: int = 64) -> Task:
    """Return images of digits ``(n, 64)`` as they came."""
    inputs, _, held_out, _ = (part.flatten(1) for part in map(torch.atleast_2d, data.digits()))
    return _regression(_rows(inputs, inputs, batch_size), (held_out, held_out))


def _rows(inputs: Tensor, targets: Tensor, batch_size: int) -> Draw:
    def draw(random: torch.Generator) -> Batch:
        rows = torch.randint(len(inputs), (batch_size,), generator=random)
        return inputs[rows], targets[rows]

    return draw


def _regression(draw: Draw, held_out: Batch) -> Task:
    inputs, targets = held_out
    spread = (targets - targets.mean(dim=0)).square().mean()

    def score(model: nn.Module) -> float:
        return float(1.0 - (model(inputs) - targets).square().mean() / spread)

    return Task(
        draw=draw,
        loss=lambda model, batch: functional.mse_loss(model(batch[0]), batch[1]),
        score=score,
        chance=0.0,
    )


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

    held_out = draw(HELD_OUT // 4, fixed())
    most = float(held_out[1].bincount().max()) / len(held_out[1])
    return classes(lambda random: draw(batch_size, random), held_out, chance=most)


def pitch(*, length: int = 32, batch_size: int = 32, heavy: float = 0.0) -> Task:
    """Name the pitch of a wave ``(n, length, 1)``, of mean 0 and deviation 1.

    Args:
        length: Values per wave.
        batch_size: Waves per batch.
        heavy: Scale of noise in the targets with one long tail, a Pareto distribution that has no
            mean; none where held out.
    """

    def draw(count: int, random: torch.Generator) -> Batch:
        turns, pitches = _turns(count, length, random)
        recorded = _recorded((2.0 * math.pi * turns).sin(), random)
        return recorded.unsqueeze(2), (pitches - 0.09) / 0.035

    def noisy(random: torch.Generator) -> Batch:
        inputs, targets = draw(batch_size, random)
        uniform = torch.rand(targets.shape, generator=random)
        return inputs, targets + heavy * ((1.0 - uniform) ** -1.0 - 2.0)

    return replace(numbers(draw, batch_size), draw=noisy)


def _turns(count: int, length: int, random: torch.Generator) -> Batch:
    """Return turns of waves since they began, and turns per value."""
    pitches = 0.03 + 0.12 * torch.rand(count, 1, generator=random)
    phases = torch.rand(count, 1, generator=random)
    return pitches * torch.arange(length) + phases, pitches


def _recorded(values: Tensor, random: torch.Generator) -> Tensor:
    """Return waves of different loudness with a little noise."""
    loudness = 0.5 + torch.rand(len(values), 1, generator=random)
    return loudness * values + 0.1 * torch.randn(values.shape, generator=random)


def look_up(*, length: int = 12, batch_size: int = 64) -> Task:
    """Name what stands beside the mark, ``(n, length, 10)``: one of eight signs, and its mark.

    A sequence is signs, each with a key, and first a key to look for.
    """

    def draw(count: int, random: torch.Generator) -> Batch:
        signs = torch.randint(8, (count, length), generator=random)
        keys = torch.randn(count, length, 4, generator=random)
        keys = functional.normalize(keys, dim=2)
        places = torch.randint(length, (count,), generator=random)
        rows = torch.arange(count)
        asked = torch.cat([keys[rows, places], torch.zeros(count, 8)], dim=1).unsqueeze(1)
        stored = torch.cat([keys, functional.one_hot(signs, 8).float()], dim=2)
        return torch.cat([asked, stored], dim=1), signs[rows, places]

    held_out = draw(HELD_OUT // 4, fixed())
    most = float(held_out[1].bincount().max()) / len(held_out[1])
    return classes(lambda random: draw(batch_size, random), held_out, chance=most)
