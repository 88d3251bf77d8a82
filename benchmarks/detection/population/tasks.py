"""What the random healthy runs learn: real tables, images and text, and arithmetic.

In: a name and a number. Out: a `Task`: inputs, clean targets, and how good a sound small model
gets on it. Quality is taken on what is trained on: the question is whether it is learnt, not
whether it carries over. No model is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Generator, Tensor, nn

from benchmarks.detection import data

__all__ = ["TASKS", "Form", "Task", "task"]

Form = Literal["vector", "image", "sequence", "tokens"]

LOOKED_AT = 400
"""So many examples are enough to tell what has been learnt."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to learn.

    Attributes:
        inputs: ``(n, features)``, ``(n, 1, 8, 8)``, ``(n, time, features)`` or ``(n, time)``.
        targets: Classes ``(n,)``, classes for each position ``(n, time)``, or numbers ``(n, k)``.
        outputs: Numbers that a model has to give, for each position if there are several.
        form: What an input is.
        good: Quality that a small sound model reaches in a few hundred steps.
    """

    inputs: Tensor
    targets: Tensor
    outputs: int
    form: Form
    good: float

    @property
    def is_regression(self) -> bool:
        """Whether the targets are numbers."""
        return self.targets.is_floating_point()

    @property
    def chance(self) -> float:
        """Quality of the best constant answer."""
        if self.is_regression:
            return 0.0
        return float(self.targets.flatten().bincount().max()) / self.targets.numel()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        if self.is_regression:
            return nn.functional.mse_loss(output, target)
        return nn.functional.cross_entropy(output.flatten(0, -2), target.flatten())

    def quality(self, model: Callable[[Tensor], Tensor]) -> float:
        """Return the share of right classes, or one minus the normalised squared error."""
        target = self.targets[:LOOKED_AT]
        output = model(self.inputs[:LOOKED_AT])
        if not self.is_regression:
            return float((output.argmax(dim=-1) == target).float().mean())
        error = (output - target).square().mean() / (target - target.mean(0)).square().mean()
        return 1.0 - float(error)


def task(name: str, number: int) -> Task:
    """Return a task; the number decides what is random in those that are arithmetic."""
    return TASKS[name](Generator().manual_seed(number))


def _table(name: str, good: float) -> Task:
    inputs, targets, *_ = data.table(name)
    outputs = 1 if targets.is_floating_point() else int(targets.max()) + 1
    return Task(inputs=inputs, targets=targets, outputs=outputs, form="vector", good=good)


def _digits(form: Form) -> Task:
    """Digits as vectors of pixels, as images, or row by row."""
    shape = {"vector": (-1, 64), "image": (-1, 1, 8, 8), "sequence": (-1, 8, 8)}[form]
    inputs, targets, *_ = data.digits()
    return Task(inputs=inputs.reshape(shape), targets=targets, outputs=10, form=form, good=0.95)


def _copy() -> Task:
    """Digits are their own targets, with each pixel that varies at deviation one."""
    pixels = data.digits()[0].flatten(1)
    pixels = pixels[:, pixels.std(dim=0) > 0.1]
    pixels = (pixels - pixels.mean(dim=0)) / pixels.std(dim=0)
    outputs = pixels.shape[1]
    return Task(inputs=pixels, targets=pixels, outputs=outputs, form="vector", good=0.6)


def _characters(length: int, good: float, *, each: bool) -> Task:
    """The character that comes next, after each position or after the last one."""
    windows = data.text().unfold(0, length + 1, 5)
    order = torch.randperm(len(windows), generator=Generator().manual_seed(0))
    inputs, targets = windows[order, :-1], windows[order, 1:]
    return Task(
        inputs=inputs,
        targets=targets if each else targets[:, -1],
        outputs=128,
        form="tokens",
        good=good,
    )


def _sine(generator: Generator) -> Task:
    inputs = torch.rand(512, 1, generator=generator) * 2.0 - 1.0
    targets = torch.sin(2.5 * inputs) * math.sqrt(2.0)
    return Task(inputs=inputs * 1.7, targets=targets, outputs=1, form="vector", good=0.95)


def _moons(generator: Generator) -> Task:
    targets = torch.arange(400) % 2
    angle = torch.rand(400, generator=generator) * math.pi
    side = 1.0 - 2.0 * targets
    inputs = torch.stack([side * angle.cos() + targets, side * angle.sin() + 0.5 * targets], dim=1)
    inputs = inputs + 0.1 * torch.randn(400, 2, generator=generator)
    inputs = (inputs - inputs.mean(dim=0)) / inputs.std(dim=0)
    return Task(inputs=inputs, targets=targets, outputs=2, form="vector", good=0.95)


def _blobs(generator: Generator) -> Task:
    centres = 1.5 * torch.randn(5, 10, generator=generator)
    targets = torch.randint(5, (500,), generator=generator)
    inputs = centres[targets] + torch.randn(500, 10, generator=generator)
    inputs = (inputs - inputs.mean(dim=0)) / inputs.std(dim=0)
    return Task(inputs=inputs, targets=targets, outputs=5, form="vector", good=0.95)


def _teacher(generator: Generator) -> Task:
    """What a random network of one hidden layer says, with deviation one."""
    inputs = torch.randn(1000, 8, generator=generator)
    hidden = torch.tanh(inputs @ torch.randn(8, 16, generator=generator) / math.sqrt(8.0))
    targets = hidden @ torch.randn(16, 2, generator=generator)
    targets = (targets - targets.mean(dim=0)) / targets.std(dim=0)
    return Task(inputs=inputs, targets=targets, outputs=2, form="vector", good=0.9)


def _waves(generator: Generator) -> Task:
    """Which of three frequencies a noisy wave of unknown phase has."""
    targets = torch.randint(3, (600,), generator=generator)
    phase = torch.rand(600, 1, generator=generator) * 2.0 * math.pi
    time = torch.arange(16.0)
    waves = torch.sin(phase + (0.3 + 0.5 * targets.unsqueeze(1)) * time) * math.sqrt(2.0)
    inputs = (waves + 0.3 * torch.randn(600, 16, generator=generator)).unsqueeze(2)
    return Task(inputs=inputs, targets=targets, outputs=3, form="sequence", good=0.95)


TASKS: Final[Mapping[str, Callable[[Generator], Task]]] = {
    "wine": lambda _: _table("wine", 0.97),
    "breast_cancer": lambda _: _table("breast_cancer", 0.96),
    "iris": lambda _: _table("iris", 0.95),
    "diabetes": lambda _: _table("diabetes", 0.5),
    "digits": lambda _: _digits("vector"),
    "images": lambda _: _digits("image"),
    "rows": lambda _: _digits("sequence"),
    "copy": lambda _: _copy(),
    "characters": lambda _: _characters(10, 0.28, each=True),
    "windows": lambda _: _characters(4, 0.31, each=False),
    "sine": _sine,
    "moons": _moons,
    "blobs": _blobs,
    "teacher": _teacher,
    "waves": _waves,
}
"""Makes each task, by name."""
