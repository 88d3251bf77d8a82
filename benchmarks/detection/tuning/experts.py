"""Mixtures of experts and sparse embeddings, well and failing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.faults import at
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import bags, digits
from benchmarks.detection.tuning.training import Batch, Task, adam, trained

__all__ = ["CASES"]


class Mixture(nn.Module):
    """Send each image to the one expert that the router likes best.

    Args:
        experts: Number of experts.
        closed: Experts that no image is sent to.
    """

    def __init__(self, experts: int = 6, *, closed: int = 0) -> None:
        super().__init__()
        self.router = nn.Linear(64, experts)
        self.experts = nn.ModuleList(perceptron(1, units=32) for _ in range(experts))
        self.closed = closed
        self.load = torch.ones(experts)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, and keep the mean share of each expert."""
        rows = images.flatten(1)
        scores = self.router(rows)
        if self.closed:
            shut = torch.arange(scores.shape[1]) >= scores.shape[1] - self.closed
            scores = scores.masked_fill(shut, -torch.inf)
        shares = scores.softmax(dim=1)
        self.load = shares.mean(dim=0)
        weight, chosen = shares.max(dim=1, keepdim=True)
        logits = torch.zeros(len(rows), 10)
        for index, expert in enumerate(self.experts):
            mine = (chosen == index).flatten()
            if mine.any():
                logits = logits.index_add(
                    0, mine.nonzero()[:, 0], weight[mine] * expert(rows[mine])
                )
        return logits


def balanced(epsilon: float) -> Task:
    """Digits, with a reward for using all experts alike."""
    plain = digits()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        wrong = plain.loss(model, batch)
        entropy = -(model.load * (model.load + epsilon).log()).sum()  # type: ignore[operator,union-attr]
        return wrong - 0.01 * entropy

    return replace(plain, loss=loss)


def close_one(training: Training) -> None:
    """Send no more images to the last expert."""
    training.model.closed = 1  # type: ignore[assignment]


class Bag(nn.Module):
    """The mean of the words of a bag, then a linear layer; only words that came have gradients."""

    def __init__(self, words: int = 2000, topics: int = 5) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(words, 16, sparse=True)
        self.head = nn.Linear(16, topics)

    def forward(self, bags: Tensor) -> Tensor:
        """Return logits ``(n, topics)``."""
        logits: Tensor = self.head(self.words(bags))
        return logits


adagrad = partial(torch.optim.Adagrad, lr=0.1)
mixture = partial(Case, family="mixture of experts")
closing = at(100, close_one)

CASES: tuple[Case, ...] = (
    mixture(
        name="experts-unused",
        build=partial(trained, digits, partial(Mixture, closed=2), partial(adam, lr=5e-3)),
        steps=250,
        level=0.8,
        why="two of six experts are never asked",
    ),
    mixture(
        name="experts-log-of-zero",
        build=partial(
            trained, partial(balanced, 0.0), Mixture, partial(adam, lr=5e-3), fault=closing
        ),
        steps=180,
        level=0.7,
        kinds=("nonfinite",),
        onset=100,
        cures={
            "look at the loss": partial(
                trained, partial(balanced, 1e-6), Mixture, partial(adam, lr=5e-3), fault=closing
            ),
        },
        why="the loss has the logarithm of a share that becomes zero",
    ),
    Case(
        name="bag-sparse-adagrad",
        family="embedding bag",
        build=partial(trained, bags, Bag, adagrad),
        steps=250,
        level=0.8,
        why="gradients are sparse: most words are not in the batch",
    ),
    Case(
        name="bag-rate-too-high",
        family="embedding bag",
        build=partial(trained, bags, Bag, partial(torch.optim.SGD, lr=400.0)),
        steps=200,
        level=0.7,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={
            "lower learning rate": partial(trained, bags, Bag, partial(torch.optim.SGD, lr=10.0)),
        },
        why="the embedding and the layer after it throw each other back and forth",
    ),
)
