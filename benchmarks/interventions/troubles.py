"""What goes wrong in the data and in schedules.

In: at which steps, and how much. Out: functions that a `Case` takes as ``spoil`` and ``bump``.
What is random is decided by the step alone, so that all treatments meet the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from benchmarks.interventions.case import Batch

__all__ = [
    "at",
    "heavy_tailed",
    "now_and_then",
    "peaks",
    "raised",
    "restarted",
    "scaled_inputs",
    "scaled_targets",
    "with_value",
]

Change = Callable[[Batch, torch.Generator], Batch]
Spoil = Callable[[int, Batch], Batch]


def now_and_then(share: float, change: Change, *, since: int = 20) -> Spoil:
    """Spoil a share of the batches, after the first few."""

    def spoil(step: int, batch: Batch) -> Batch:
        random = torch.Generator().manual_seed(step)
        is_bad = step >= since and float(torch.rand((), generator=random)) < share
        return change(batch, random) if is_bad else batch

    return spoil


def at(first: int, change: Change) -> Spoil:
    """Spoil one batch."""
    return lambda step, batch: (
        change(batch, torch.Generator().manual_seed(step)) if step == first else batch
    )


def scaled_inputs(factor: float, *, offset: float = 0.0) -> Change:
    """Multiply inputs, as where a batch has missed its normalisation."""
    return lambda batch, _random: (batch[0] * factor + offset, batch[1])


def scaled_targets(factor: float) -> Change:
    """Multiply targets, as where a batch comes in other units."""
    return lambda batch, _random: (batch[0], batch[1] * factor)


def with_value(value: float, *, of_targets: bool = False) -> Change:
    """Put a value into one row of the inputs or of the targets."""

    def change(batch: Batch, random: torch.Generator) -> Batch:
        spoiled = batch[of_targets].clone()
        spoiled[int(torch.randint(len(spoiled), (), generator=random))] = value
        return (batch[0], spoiled) if of_targets else (spoiled, batch[1])

    return change


def heavy_tailed(scale: float) -> Change:
    """Add Cauchy noise, whose mean does not exist, to the inputs."""

    def change(batch: Batch, random: torch.Generator) -> Batch:
        uniform = torch.rand(batch[0].shape, generator=random)
        return batch[0] + scale * (math.pi * (uniform - 0.5)).tan(), batch[1]

    return change


def raised(factor: float, first: int, count: int) -> Callable[[int], float]:
    """Return a factor of the rate that is high for some steps."""
    return lambda step: factor if first <= step < first + count else 1.0


def peaks(factor: float, period: int, width: int) -> Callable[[int], float]:
    """Return a factor that rises and falls again around the end of each period."""

    def bump(step: int) -> float:
        distance = min(step % period, -step % period) if step >= width else width
        return float(factor ** max(0.0, 1.0 - distance / width))

    return bump


def restarted(factor: float, first: int, count: int) -> Callable[[int], float]:
    """Return a factor that jumps up at one step and comes down to one within some steps."""
    return lambda step: factor ** max(0.0, 1.0 - (step - first) / count) if step >= first else 1.0
