"""What one training of this benchmark is, with its trouble and without.

In: nothing. Out: `Case`, and `Hand`, what a person would change by hand. This file knows no guard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["UNCHANGED", "Batch", "Case", "Hand", "Task", "hands"]

Batch = tuple[Tensor, Tensor]
"""Inputs and targets."""

Draw = Callable[[torch.Generator], Batch]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to learn.

    Attributes:
        draw: Makes a batch, from random numbers of its own.
        loss: From a model and a batch, a scalar.
        score: Of a model, on held-out data that are always the same; larger is better.
        chance: Score of the best answer that does not look at the inputs.
    """

    draw: Draw
    loss: Callable[[nn.Module, Batch], Tensor]
    score: Callable[[nn.Module], float]
    chance: float


@dataclass(frozen=True)
class Hand:
    """What a person changes who knows the trouble.

    Attributes:
        rate: The learning rate is multiplied by this.
        max_norm: Largest gradient norm that is let through; None for any.
        warmup: Share of the steps during which the rate rises from zero.
        is_clean: Whether bad batches and bad stretches of the schedule are taken out.
    """

    rate: float = 1.0
    max_norm: float | None = None
    warmup: float = 0.0
    is_clean: bool = False

    def __str__(self) -> str:
        """Say it in words."""
        said = [f"{self.rate:g} of the rate"] if self.rate != 1.0 else []
        said += [f"norm {self.max_norm:g}"] if self.max_norm is not None else []
        said += ["warm-up"] if self.warmup else []
        said += ["clean data and schedule"] if self.is_clean else []
        return ", ".join(said)


UNCHANGED: Final = Hand()
RATES: Final = (1.0, 0.3, 0.1, 0.03, 0.01)


def hands() -> Iterator[Hand]:
    """Return every cure by hand that is tried to find what is possible."""
    for rate in RATES:
        for max_norm in (None, 1.0):
            for warmup in (0.0, 0.2):
                yield Hand(rate, max_norm, warmup, is_clean=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training.

    Attributes:
        name: Unique name.
        why: One sentence: what goes wrong, or what is special in a healthy one.
        task: Makes the task.
        model: Makes the model; called after seeding.
        optimizer: Makes the optimizer from parameters and ``lr``.
        rate: Learning rate.
        steps: Optimizer steps.
        schedule: Factor of the rate at each step, without its trouble.
        bump: Another factor of the rate: trouble of the schedule.
        spoil: Makes a bad batch of a good one at some steps: trouble of the data.
        is_healthy: Whether it is a control.
    """

    name: str
    why: str
    task: Callable[[], Task]
    model: Callable[[], nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    rate: float
    steps: int = 300
    schedule: Callable[[int], float] = lambda _step: 1.0
    bump: Callable[[int], float] = lambda _step: 1.0
    spoil: Callable[[int, Batch], Batch] = lambda _step, batch: batch
    is_healthy: bool = False
