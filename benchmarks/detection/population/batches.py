"""What a random healthy run is fed: size of batches, accumulation, and how clean the data are.

In: what draws, and a task. Out: a `Diet`, and what makes the batches that it describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from benchmarks.detection.population.dice import Dice
from benchmarks.detection.population.families import TABLES
from benchmarks.detection.population.tasks import Task

__all__ = ["Diet", "drawn", "made"]

SMALL: Final = (*TABLES, "moons", "sine")
"""Tasks that learn from some hundred examples, so that batches may be tiny."""


@dataclass(frozen=True, kw_only=True)
class Diet:
    """What one run is fed.

    Attributes:
        batch_size: Examples in a batch; everything, if there are no more.
        accumulate: Batches for each step.
        short_every: Every so many steps one batch must do.
        label_noise: Share of wrong classes, or half the deviation of what is added to numbers.
        outlier: A batch that is no good.
    """

    batch_size: int
    accumulate: int
    short_every: int | None
    label_noise: float
    outlier: int | None


def drawn(dice: Dice, task: str, steps: int, *, is_costly: bool) -> Diet:
    """Draw a diet that suits a task; costly models get less at once."""
    is_full = task in SMALL and dice.happens(0.15)
    parts = 1 if is_full else 2 if is_costly else dice.choice((2, 3, 4))
    accumulate = parts if dice.happens(0.1) else 1
    lowest = 2 if task in SMALL else 32 if task == "windows" else 16
    size = round(dice.log_uniform(lowest, 22 if is_costly else 128))
    if is_costly:
        size = max(8, size // accumulate)
    return Diet(
        batch_size=512 if is_full else size,
        accumulate=accumulate,
        short_every=dice.randint(5, 20) if accumulate > 1 and dice.happens(0.5) else None,
        label_noise=dice.uniform(0.05, 0.2) if dice.happens(0.2) else 0.0,
        outlier=dice.randint(steps // 5, steps // 2) if dice.happens(0.05) else None,
    )


def made(diet: Diet, task: Task) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return what makes the batch of a step."""
    targets = _noisy(task, diet.label_noise)
    total = len(targets)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        is_full = diet.batch_size >= total
        chosen = torch.arange(total) if is_full else torch.randint(total, (diet.batch_size,))
        inputs = task.inputs[chosen]
        return _spoilt(inputs) if step == diet.outlier else inputs, targets[chosen]

    return batch


def _noisy(task: Task, share: float) -> Tensor:
    if task.is_regression:
        return task.targets + 2.0 * share * torch.randn_like(task.targets)
    is_wrong = torch.rand(task.targets.shape) < share
    return torch.where(is_wrong, torch.randint_like(task.targets, task.outputs), task.targets)


def _spoilt(inputs: Tensor) -> Tensor:
    """Five times as large, or any tokens."""
    if inputs.is_floating_point():
        return 5.0 * inputs
    return torch.randint_like(inputs, 128)
