"""What the labelled trainings learn.

In: options such as a batch size. Out: tasks, with data from `benchmarks.detection.data` or drawn
anew at each step. Draws use torch's global random state, which the loop seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.detection import data
from benchmarks.detection.tuning.training import Batch, Task

__all__ = [
    "accuracy",
    "adding",
    "bags",
    "characters",
    "classes",
    "digits",
    "explained",
    "linear_numbers",
    "parity",
    "regression",
    "rescaled",
    "wine",
]


def digits(*, batch_size: int = 64) -> Task:
    """Tell ten digits apart in images ``(n, 1, 8, 8)``."""
    return classes(data.digits(), batch_size)


def wine() -> Task:
    """Tell three wines apart by 13 numbers, with all 142 of them in each batch."""
    return classes(data.table("wine"), None)


def classes(split: data.Split, batch_size: int | None) -> Task:
    """Tell classes apart; no batch size means all rows in each batch."""
    inputs, targets, held_inputs, held_targets = split

    def draw(_step: int) -> Batch:
        if batch_size is None:
            return inputs, targets
        chosen = torch.randint(len(inputs), (batch_size,))
        return inputs[chosen], targets[chosen]

    return Task(
        draw=draw,
        loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        score=lambda model: accuracy(model(held_inputs), held_targets),
    )


def characters(*, length: int = 24, batch_size: int = 16) -> Task:
    """Predict each next character of a text; characters are numbers below 128."""
    text = data.text()
    cut = len(text) * 9 // 10

    def windows(low: int, high: int, count: int) -> Batch:
        starts = torch.randint(low, high - length - 1, (count, 1))
        window = text[starts + torch.arange(length + 1)]
        return window[:, :-1], window[:, 1:]

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    def score(model: nn.Module) -> float:
        inputs, targets = windows(cut, len(text), 64)
        return accuracy(model(inputs).flatten(0, 1), targets.flatten())

    return Task(draw=lambda _step: windows(0, cut, batch_size), loss=loss, score=score)


def regression(draw: Callable[[int], Batch], *, scale: float = 1.0, batch_size: int = 64) -> Task:
    """Predict numbers; the score is the share of the variance that is explained."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return functional.mse_loss(model(batch[0]), batch[1] * scale)

    def score(model: nn.Module) -> float:
        inputs, targets = draw(1000)
        return explained(model(inputs), targets * scale)

    return Task(draw=lambda _step: draw(batch_size), loss=loss, score=score)


def adding(*, length: int, batch_size: int = 32) -> Task:
    """Add the two marked numbers of a sequence ``(n, length, 2)``, one in either half."""

    def draw(count: int) -> Batch:
        numbers, marks = torch.rand(count, length), torch.zeros(count, length)
        half = length // 2
        rows = torch.arange(count)
        marks[rows, torch.randint(half, (count,))] = 1.0
        marks[rows, torch.randint(half, length, (count,))] = 1.0
        return torch.stack([numbers, marks], dim=2), (numbers * marks).sum(dim=1, keepdim=True)

    return regression(draw, batch_size=batch_size)


def linear_numbers() -> Task:
    """A linear function of ten numbers, without noise."""
    weights = torch.randn(10, 1)

    def draw(count: int) -> Batch:
        inputs = torch.randn(count, 10)
        return inputs, inputs @ weights

    return regression(draw)


def parity(*, bits: int, batch_size: int = 64) -> Task:
    """Tell whether the number of ones among the first ``bits`` of 12 signs is odd."""

    def draw(count: int) -> Batch:
        signs = torch.randint(2, (count, 12)).float() * 2.0 - 1.0
        return signs, (signs[:, :bits].prod(dim=1) > 0).long()

    return _drawn_classes(draw, batch_size)


def bags(*, words: int = 2000, topics: int = 5, batch_size: int = 64) -> Task:
    """Tell the topic of a bag of 20 words, of which most are about nothing."""

    def draw(count: int) -> Batch:
        topic = torch.randint(topics, (count,))
        common = torch.randint(words, (count, 20))
        own = torch.randint(words // topics, (count, 20)) * topics + topic[:, None]
        return torch.where(torch.rand(count, 20) < 0.4, own, common), topic

    return _drawn_classes(draw, batch_size)


def _drawn_classes(draw: Callable[[int], Batch], batch_size: int) -> Task:
    held_inputs, held_targets = draw(1000)
    return Task(
        draw=lambda _step: draw(batch_size),
        loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        score=lambda model: accuracy(model(held_inputs), held_targets),
    )


def rescaled(task: Callable[[], Task], factor: float) -> Callable[[], Task]:
    """Multiply the loss of a task."""

    def made() -> Task:
        plain = task()
        return replace(plain, loss=lambda model, batch: plain.loss(model, batch) * factor)

    return made


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Return the share of rows whose largest logit is the target's."""
    return float((logits.argmax(dim=1) == targets).float().mean())


def explained(predicted: Tensor, targets: Tensor) -> float:
    """Return one less the squared error over the variance; 0 for the best constant."""
    spread = (targets - targets.mean(dim=0)).square().mean()
    return float(1.0 - (predicted - targets).square().mean() / spread)
