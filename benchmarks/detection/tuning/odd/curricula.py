"""Curricula: the task becomes harder from step to step, and the loss rises though all is well.

In: images of digits and numbers to add. Out: cases in which noise or length grows.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.sequence_models import Reader
from benchmarks.detection.tuning.tasks import accuracy, explained
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]


def noisier(most: float, steps: int) -> Task:
    """Tell digits apart under noise whose deviation grows evenly up to some steps."""
    inputs, targets, held_inputs, held_targets = data.digits()
    noisy = held_inputs + most * torch.randn_like(held_inputs)

    def draw(step: int) -> Batch:
        chosen = torch.randint(len(inputs), (64,))
        images, noise = inputs[chosen], most * min(step / steps, 1.0)
        return images + noise * torch.randn_like(images), targets[chosen]

    return Task(
        draw=draw,
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        score=lambda model: accuracy(model(noisy), held_targets),
    )


def walks(count: int, length: int) -> Batch:
    """Return steps ``(n, length, 1)`` and where they lead."""
    steps = torch.randn(count, length, 1)
    return steps, steps.sum(dim=1)


def longer(most: int, steps: int) -> Task:
    """Add ever more numbers: a sum of more of them is a larger number."""

    def draw(step: int) -> Batch:
        return walks(64, 2 + round((most - 2) * min(step / steps, 1.0)))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def score(model: nn.Module) -> float:
        numbers, end = walks(1000, most)
        return explained(model(numbers), end)

    return Task(draw=draw, loss=loss, score=score)


CASES: tuple[Case, ...] = (
    Case(
        name="curriculum-more-noise",
        family="mlp",
        build=partial(
            trained,
            partial(noisier, 2.5, 300),
            partial(perceptron, 2, units=128),
            partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.05),
        ),
        steps=350,
        level=0.3,
        why="the loss falls and then rises for most of the run, as noise grows faster than skill",
    ),
    Case(
        name="curriculum-longer-sums",
        family="gru",
        build=partial(
            trained,
            partial(longer, 24, 250),
            lambda: Reader(nn.GRU(1, 32, batch_first=True), 1),
            partial(torch.optim.Adam, lr=5e-3),
            clip_norm=1.0,
        ),
        steps=300,
        level=0.6,
        why="the loss rises with the length of the sums",
    ),
)
