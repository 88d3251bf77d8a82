"""What the trainings of this benchmark learn.

In: sizes. Out: tasks, each with held-out data that are the same for every run.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.detection import data
from benchmarks.interventions.case import Batch, Draw, Task

__all__ = [
    "adding",
    "characters",
    "classes",
    "curve",
    "digits",
    "fixed",
    "inverse",
    "mixture_loss",
    "numbers",
    "rows",
    "teacher",
]

HELD_OUT = 4000


def digits(*, batch_size: int = 64) -> Task:
    """Tell ten digits apart in images ``(n, 1, 8, 8)``."""
    inputs, targets, *held_out = data.digits()
    return classes(
        rows(inputs, targets, batch_size=batch_size), (held_out[0], held_out[1]), chance=0.1
    )


def rows(inputs: Tensor, targets: Tensor, *, batch_size: int) -> Draw:
    """Draw rows of a table, each as likely as any other."""

    def draw(random: torch.Generator) -> Batch:
        chosen = torch.randint(len(inputs), (batch_size,), generator=random)
        return inputs[chosen], targets[chosen]

    return draw


@lru_cache(maxsize=1)
def _teacher() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        net = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 8))
        nn.init.normal_(net[0].weight, std=0.3)  # type: ignore[arg-type]  # a linear layer's
    return net


def teacher(*, batch_size: int = 64, wrong: float = 0.0) -> Task:
    """Tell apart eight classes that a fixed random net makes of 20 numbers.

    Args:
        batch_size: Rows per batch.
        wrong: Share of labels that are drawn at random.
    """

    def labelled(count: int, random: torch.Generator, wrong: float) -> Batch:
        inputs = torch.randn(count, 20, generator=random)
        with torch.no_grad():
            targets = _teacher()(inputs).argmax(dim=1)
        others = torch.randint(8, (count,), generator=random)
        return inputs, torch.where(torch.rand(count, generator=random) < wrong, others, targets)

    held_out = labelled(HELD_OUT, fixed(), 0.0)
    most = float(held_out[1].bincount().max()) / HELD_OUT
    return classes(lambda random: labelled(batch_size, random, wrong), held_out, chance=most)


def classes(draw: Draw, held_out: Batch, *, chance: float) -> Task:
    """Return a task whose targets are classes; the score is the share that is right."""
    return Task(
        draw=draw,
        loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        score=lambda model: _accuracy(model(held_out[0]), held_out[1]),
        chance=chance,
    )


def _accuracy(logits: Tensor, targets: Tensor) -> float:
    return float((logits.argmax(dim=1) == targets).float().mean())


def characters(*, length: int = 24, batch_size: int = 16) -> Task:
    """Predict each next character of a text; characters are numbers below 128."""
    text = data.text()
    cut = len(text) * 9 // 10
    held = text[cut : cut + (len(text) - cut - 1) // length * length + 1]
    held_out = held[:-1].reshape(-1, length), held[1:].reshape(-1, length)

    def draw(random: torch.Generator) -> Batch:
        starts = torch.randint(cut - length - 1, (batch_size, 1), generator=random)
        window = text[starts + torch.arange(length + 1)]
        return window[:, :-1], window[:, 1:]

    return Task(
        draw=draw,
        loss=lambda model, batch: functional.cross_entropy(
            model(batch[0]).flatten(0, 1), batch[1].flatten()
        ),
        score=lambda model: _accuracy(model(held_out[0]).flatten(0, 1), held_out[1].flatten()),
        chance=float(held[1:].bincount().max()) / (len(held) - 1),
    )


def curve(*, batch_size: int = 64, noise: float = 0.0) -> Task:
    """Predict a smooth function of four numbers.

    Args:
        batch_size: Rows per batch.
        noise: Scale of Cauchy noise in the targets, whose mean does not exist; none where held
            out.
    """

    def noisy(random: torch.Generator) -> Batch:
        inputs, targets = draw(batch_size, random)
        uniform = torch.rand(targets.shape, generator=random)
        return inputs, targets + noise * (math.pi * (uniform - 0.5)).tan()

    def draw(count: int, random: torch.Generator) -> Batch:
        inputs = torch.rand(count, 4, generator=random) * 4.0 - 2.0
        waves = (inputs * torch.tensor([1.0, 1.5, 2.0, 0.7])).sin()
        return inputs, waves.sum(dim=1, keepdim=True) + inputs[:, :1] * inputs[:, 1:2] / 2.0

    return numbers(noisy, draw(HELD_OUT, fixed()))


def adding(*, length: int = 20, batch_size: int = 32) -> Task:
    """Add the two marked numbers of a sequence ``(n, length, 2)``, one in either half."""

    def draw(count: int, random: torch.Generator) -> Batch:
        values, marks = torch.rand(count, length, generator=random), torch.zeros(count, length)
        every, half = torch.arange(count), length // 2
        marks[every, torch.randint(half, (count,), generator=random)] = 1.0
        marks[every, torch.randint(half, length, (count,), generator=random)] = 1.0
        return torch.stack([values, marks], dim=2), (values * marks).sum(dim=1, keepdim=True)

    return numbers(lambda random: draw(batch_size, random), draw(HELD_OUT, fixed()))


def numbers(draw: Draw, held_out: Batch) -> Task:
    """Return a task whose targets are numbers; the score is the share of variance explained."""
    inputs, targets = held_out
    spread = (targets - targets.mean(dim=0)).square().mean()
    return Task(
        draw=draw,
        loss=lambda model, batch: functional.mse_loss(model(batch[0]), batch[1]),
        score=lambda model: float(1.0 - (model(inputs) - targets).square().mean() / spread),
        chance=0.0,
    )


def inverse(*, batch_size: int = 64) -> Task:
    """Give the density of the angles that lead to a place: several, and nearly without width.

    Models answer ``(n, 3 * components)``: logits, means and logarithms of deviations. The score is
    the logarithm of the density that held-out answers get, on the mean.
    """

    def draw(count: int, random: torch.Generator) -> Batch:
        angles = torch.rand(count, 1, generator=random)
        return angles + 0.3 * (2.0 * math.pi * angles).sin(), angles

    held_out = draw(HELD_OUT, fixed())
    return Task(
        draw=lambda random: draw(batch_size, random),
        loss=lambda model, batch: mixture_loss(model(batch[0]), batch[1]),
        score=lambda model: float(-mixture_loss(model(held_out[0]), held_out[1])),
        chance=0.0,  # the density of angles is 1 everywhere
    )


def mixture_loss(answer: Tensor, targets: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of a mixture of normal distributions."""
    logits, means, log_deviations = answer.chunk(3, dim=1)
    z = (targets - means) / log_deviations.exp()
    log_density = -0.5 * z.square() - log_deviations - 0.5 * math.log(2.0 * math.pi)
    return -(logits.log_softmax(dim=1) + log_density).logsumexp(dim=1).mean()


def fixed() -> torch.Generator:
    """Return random numbers that are the same for every run: for data that are held out."""
    return torch.Generator().manual_seed(12345)
