"""Things and how they are related: triples, and two towers."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.parts import Build, accuracy, fit, using

__all__ = ["CASES"]

SIDE = 8


@lru_cache(maxsize=1)
def moves() -> Split:
    """Return fields of a board and moves ``(n, 2)``, and the fields that these lead to."""
    fields = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    steps = torch.tensor([[0, 1], [1, 0], [2, 1], [-1, 2], [3, 0], [-2, -2]])
    pairs = torch.cartesian_prod(torch.arange(SIDE * SIDE), torch.arange(len(steps)))
    after = fields[pairs[:, 0]] + steps[pairs[:, 1]]
    inside = ((after >= 0) & (after < SIDE)).all(dim=1)
    pairs, after = pairs[inside], after[inside]
    mixed = torch.randperm(len(pairs), generator=sources.generator())
    return sources.split(pairs[mixed], after[mixed, 0] * SIDE + after[mixed, 1])


class Translation(nn.Module):
    """Fields as points and moves as arrows: a field is near where an arrow ends."""

    def __init__(self) -> None:
        super().__init__()
        self.points, self.arrows = nn.Embedding(SIDE * SIDE, 16), nn.Embedding(6, 16)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return how near every field is, with a minus."""
        ends = self.points(inputs[:, 0]) + self.arrows(inputs[:, 1])
        return -torch.cdist(ends, self.points.weight)


class Products(nn.Module):
    """Fields and moves as vectors, multiplied with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.points, self.arrows = nn.Embedding(SIDE * SIDE, 32), nn.Embedding(6, 32)
        self.ends = nn.Embedding(SIDE * SIDE, 32)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.4)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return how well every field fits."""
        fits = self.points(inputs[:, 0]) * self.arrows(inputs[:, 1])
        logits: Tensor = fits @ self.ends.weight.T
        return logits


class Towers(nn.Module):
    """Two nets that give one vector each to two halves of a passage.

    Args:
        cached: Whether vectors come out of a cache that knows no gradient.
    """

    def __init__(self, *, cached: bool = False) -> None:
        super().__init__()
        self.left, self.right = self._tower(), self._tower()
        self.sharpness, self.cached = nn.Parameter(torch.tensor(1.0)), cached

    @staticmethod
    def _tower() -> nn.Sequential:
        return nn.Sequential(nn.EmbeddingBag(128 * 32, 24), nn.Linear(24, 24))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return how well every left half fits every right half."""
        halves = zip((self.left, self.right), inputs.chunk(2, dim=1), strict=True)
        vectors = [nn.functional.normalize(tower(pairs(half)), dim=1) for tower, half in halves]
        if self.cached:
            vectors = [vector.detach() for vector in vectors]
        fits: Tensor = self.sharpness.exp() * vectors[0] @ vectors[1].T
        return fits


def pairs(passages: Tensor) -> Tensor:
    """Return a number for each two characters that stand together."""
    return passages[:, :-1] % 128 * 32 + passages[:, 1:] % 32


def in_batch(model: nn.Module, inputs: Tensor, _targets: Tensor) -> Tensor:
    """Return the cross entropy of the own other half among those of the batch."""
    return nn.functional.cross_entropy(model(inputs), torch.arange(len(inputs)))


def found(model: nn.Module, inputs: Tensor, _targets: Tensor) -> float:
    """Return the share whose own other half fits best among 16."""
    groups = torch.split(inputs[: len(inputs) // 16 * 16], 16)
    return sum(accuracy(model, group, torch.arange(16)) for group in groups) / len(groups)


def multiplied(rate: float) -> Build:
    """Return a training of products, with momentum."""
    return fit(
        Products,
        using(torch.optim.SGD, lr=rate, momentum=0.9),
        moves,
        batch_size=64,
        score=lambda model, _inputs, _targets: accuracy(model, *moves()[:2]),
    )


Adam = torch.optim.Adam
passages = partial(sources.modules, 120)

CASES: tuple[Case, ...] = (
    Case(
        name="translations-on-board",
        family="translation-embedding",
        build=fit(Translation, using(torch.optim.Adagrad, lr=1.0), moves, batch_size=128),
        steps=300,
        level=0.7,
        why="nothing but two tables, whose distances are the logits, and steps that only shrink",
    ),
    Case(
        name="towers-find-halves",
        family="two-tower",
        build=fit(
            Towers, using(Adam, lr=2e-2), passages, loss=in_batch, score=found, batch_size=64
        ),
        steps=300,
        level=0.4,
        why="every other passage of the batch is a counter-example, and sharpness is learned",
    ),
    Case(
        name="products-thrown-about",
        family="bilinear-embedding",
        build=multiplied(5.0),
        steps=250,
        level=0.4,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"lower learning rate": multiplied(0.5)},
        why="a rate of 5 lets three tables that are multiplied throw each other ever farther",
    ),
    Case(
        name="towers-from-cache",
        family="two-tower",
        build=fit(
            partial(Towers, cached=True), using(Adam, lr=5e-3), passages, loss=in_batch, score=found
        ),
        steps=200,
        level=0.3,
        kinds=("not_learning", "vanishing"),
        why="the vectors come from a cache without gradient, and only the sharpness can learn",
    ),
)
