"""A loss with a large part that no weight can change.

In: images of digits, in units of a millionth. Out: a case whose loss falls by less than a
hundredth of itself.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import explained
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]

LOG_UNIT = math.log(1e6)
"""Log-determinant of the change of units, in nats per pixel."""


def likelihood(model: nn.Module, rows: Tensor) -> Tensor:
    """Return the negative log-likelihood of lower halves, in nats per image.

    The deviation of each pixel is taken to be two.
    """
    errors = (model(rows[:, :32]) - rows[:, 32:]) / 2.0
    total: Tensor = 0.5 * errors.square().sum(dim=1).mean() + 32 * (LOG_UNIT + math.log(2.0))
    return total


def lower_halves() -> Task:
    """Foretell the lower half of a digit from the upper one."""
    inputs, _, held, _ = data.digits()
    rows, held_rows = inputs.flatten(1), held.flatten(1)

    def draw(_step: int) -> Batch:
        chosen = rows[torch.randint(len(rows), (64,))]
        return chosen, chosen

    return Task(
        draw=draw,
        loss=lambda model, batch: likelihood(model, batch[0]),
        score=lambda model: explained(model(held_rows[:, :32]), held_rows[:, 32:]),
    )


CASES: tuple[Case, ...] = (
    Case(
        name="loss-mostly-constant",
        family="regression",
        build=partial(
            trained,
            lower_halves,
            partial(perceptron, 2, inputs=32, outputs=32),
            partial(torch.optim.Adam, lr=3e-3),
        ),
        steps=300,
        level=0.3,
        why="a log-determinant of 464 nats hides that the rest of the loss falls to a third",
    ),
)
