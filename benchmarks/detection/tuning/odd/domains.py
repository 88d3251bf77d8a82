"""A gradient that is turned round half way down.

In: digits, and digits on a bright ground without labels. Out: a case in which a body is trained to
leave a head in the dark.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import accuracy
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]


SHARE = 0.05
"""Of the gradient that is turned round."""


class _TurnedRound(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, features: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        return features.clone()

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        return -SHARE * gradient


class Adapting(nn.Module):
    """A body, a head for the class, and one that guesses where an image is from."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(perceptron(1, outputs=48), nn.ReLU())
        self.digit = nn.Linear(48, 10)
        self.origin = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of the class."""
        logits: Tensor = self.digit(self.body(images))
        return logits

    def loss(self, plain: Tensor, targets: Tensor, bright: Tensor) -> Tensor:
        """Return the loss of both heads."""
        features = self.body(torch.cat([plain, bright]))
        digits = nn.functional.cross_entropy(self.digit(features[: len(plain)]), targets)
        turned: Tensor = _TurnedRound.apply(features)  # type: ignore[no-untyped-call]
        origins = torch.arange(2).repeat_interleave(len(plain))
        return digits + nn.functional.cross_entropy(self.origin(turned), origins)


def brightened(images: Tensor) -> Tensor:
    """Return images on a ground that becomes brighter to one side."""
    return 0.8 * images + torch.linspace(0.0, 1.0, 8)


def bright_digits() -> Task:
    """Tell digits apart on a bright ground, where none has a label."""
    inputs, targets, held_inputs, held_targets = data.digits()

    def draw(_step: int) -> Batch:
        one, other = torch.randint(len(inputs), (2, 64))
        images = torch.cat([inputs[one], brightened(inputs[other])])
        return images, targets[one]

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        plain, bright = batch[0].chunk(2)
        total: Tensor = model.loss(plain, batch[1], bright)  # type: ignore[operator]
        return total

    return Task(
        draw=draw,
        loss=loss,
        score=lambda model: accuracy(model(brightened(held_inputs)), held_targets),
    )


CASES: tuple[Case, ...] = (
    Case(
        name="origin-unlearnt",
        family="domain-adversarial",
        build=partial(trained, bright_digits, Adapting, partial(torch.optim.Adam, lr=2e-3)),
        steps=300,
        level=0.6,
        why="one head gets worse as the body gets better, since its gradient is turned round",
    ),
)
