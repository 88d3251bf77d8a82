"""Tasks and perceptrons that look wrong and are well.

In: nothing. Out: makers for `trained`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.tuning.faults import spoiled
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import classes, regression
from benchmarks.detection.tuning.training import Batch, Task

__all__ = [
    "WithUnused",
    "frozen_first",
    "noisy_digits",
    "partly_dead",
    "rare_digits",
    "smooth_numbers",
    "switched_digits",
]


def noisy_digits() -> Task:
    """Digits of which 30 % carry a random label."""
    inputs, targets, held_inputs, held_targets = data.digits()
    source = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(targets), generator=source) < 0.3
    random = torch.randint(10, targets.shape, generator=source)
    return classes((inputs, torch.where(wrong, random, targets), held_inputs, held_targets), 64)


def rare_digits() -> Task:
    """Digits with only eight zeros among the training images."""
    inputs, targets, held_inputs, held_targets = data.digits()
    is_rare = targets == 0
    kept = ~is_rare | (is_rare.cumsum(dim=0) <= 8)
    return classes((inputs[kept], targets[kept], held_inputs, held_targets), 64)


def switched_digits(start: int) -> Callable[[], Task]:
    """Digits that are all called one more from a step on."""

    def made() -> Task:
        inputs, targets, held_inputs, held_targets = data.digits()
        task = classes((inputs, targets, held_inputs, (held_targets + 1) % 10), 64)
        return spoiled(lambda: task, lambda x, y: (x, (y + 1) % 10), start=start)()

    return made


def smooth_numbers(scale: float) -> Task:
    """A smooth function of four numbers, plus a constant, times a scale."""

    def draw(count: int) -> Batch:
        inputs = torch.randn(count, 4)
        targets = inputs[:, :1] + torch.sin(2.0 * inputs[:, 1:2]) + inputs[:, 2:3].square() + 1.0
        return inputs, targets

    return regression(draw, scale=scale)


def frozen_first() -> nn.Module:
    """Return a perceptron whose first layer is not trained."""
    model = perceptron(2, units=128)
    model[1].requires_grad_(requires_grad=False)
    return model


class WithUnused(nn.Module):
    """A perceptron beside a layer that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used = perceptron(2)
        self.unused = nn.Linear(64, 64)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of the one part."""
        logits: Tensor = self.used(inputs)
        return logits


def partly_dead() -> nn.Module:
    """Return a perceptron of which a third of the hidden units never fire."""
    model = perceptron(2, units=96)
    for layer in model:
        if isinstance(layer, nn.Linear) and layer.out_features == 96:
            nn.init.constant_(layer.bias[:32], -20.0)
    return model
