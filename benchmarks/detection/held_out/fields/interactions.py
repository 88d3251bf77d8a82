"""Columns of words: factorisation machines, and a wide net beside a deep one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Build,
    Task,
    accuracy,
    cross_entropy,
    explained,
    fit,
    perceptron,
    squared_error,
)

__all__ = ["CASES"]


class Factors(nn.Module):
    """A weight per word, and a vector per word, of which all pairs are multiplied.

    Args:
        deviation: Of the vectors at first.
        sparse: Whether gradients hold only the words of the batch.
    """

    def __init__(self, deviation: float, *, sparse: bool = False) -> None:
        super().__init__()
        self.weight = nn.Embedding(60, 1, sparse=sparse)
        self.vector = nn.Embedding(60, 6, sparse=sparse)
        nn.init.zeros_(self.weight.weight)
        nn.init.normal_(self.vector.weight, 0.0, deviation)

    def forward(self, words: Tensor) -> Tensor:
        """Return a rating."""
        vectors = self.vector(words)
        pairs = vectors.sum(dim=1).square() - vectors.square().sum(dim=1)
        rating: Tensor = self.weight(words).sum(dim=1) + 0.5 * pairs.sum(dim=1, keepdim=True)
        return rating


class WideDeep(nn.Module):
    """A weight per word beside a deep net over the words' vectors.

    Args:
        depth: Inner layers of the deep part.
        act: Makes their activation.
    """

    def __init__(self, depth: int = 1, act: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.wide, self.vector = nn.Embedding(60, 2), nn.Embedding(60, 8)
        self.deep = perceptron(24, *([32] * depth), 2, act=act)
        nn.init.zeros_(self.wide.weight)

    def forward(self, words: Tensor) -> Tensor:
        """Return two logits."""
        logits: Tensor = self.wide(words).sum(dim=1) + self.deep(self.vector(words).flatten(1))
        return logits


def he_wide_deep() -> WideDeep:
    """Return a deep part of five rectifiers, with weights as He would have them."""
    model = WideDeep(5)
    for layer in model.deep.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return model


def two_optimizers() -> Build:
    """Return the training of a wide part by Adagrad, then of the deep part by Adam, per batch."""
    together = fit(Odd, WideDeep, partial(torch.optim.Adam, lr=0.01))

    def build() -> Training:
        training = together()
        wide = training.model.get_submodule("wide")
        deep = nn.ModuleList(training.model.get_submodule(part) for part in ("vector", "deep"))
        training.optimizers = [
            torch.optim.Adagrad(wide.parameters(), lr=0.1),
            torch.optim.Adam(deep.parameters(), lr=0.01),
        ]
        return training

    return build


Ratings = Task(split=sources.clicks, loss=squared_error, score=explained, size=64)
Odd = Task(split=sources.odd_halves, loss=cross_entropy, score=accuracy, size=64)
sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

CASES: tuple[Case, ...] = (
    Case(
        name="factors-sparse-plateau",
        family="factorisation-machine",
        build=fit(
            Ratings, partial(Factors, 0.02, sparse=True), partial(torch.optim.SparseAdam, lr=0.004)
        ),
        steps=500,
        level=0.6,
        why="products of tiny vectors have tiny slopes, so the loss stays level before it falls",
    ),
    Case(
        name="wide-and-deep-two-optimizers",
        family="wide-and-deep",
        build=two_optimizers(),
        steps=250,
        level=0.8,
        why="two optimizers share a loss, and a word that is not in the batch has no gradient",
    ),
    Case(
        name="factors-too-fast",
        family="factorisation-machine",
        build=fit(Ratings, partial(Factors, 0.5), partial(torch.optim.SGD, lr=8.0)),
        steps=200,
        level=0.3,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={
            "lower learning rate": fit(
                Ratings, partial(Factors, 0.5), partial(torch.optim.SGD, lr=0.3)
            )
        },
        why="products of vectors answer a step that is too long with one that is longer",
    ),
    Case(
        name="deep-beside-wide-vanishes",
        family="wide-and-deep",
        build=fit(Odd, partial(WideDeep, 5, nn.Sigmoid), sgd),
        steps=300,
        level=0.8,
        kinds=("vanishing", "not_learning"),
        cures={"He initialisation": fit(Odd, he_wide_deep, sgd)},
        why="the deep part is five sigmoids, so only the wide part learns, which cannot tell odd",
    ),
)
