"""Embeddings: of words by their neighbours, of users and items by ratings."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.layers import scale_weights_
from benchmarks.detection.tuning.once_held_out.parts import (
    each_step,
    explained,
    fit,
    squared_error,
)

__all__ = ["CASES"]


class Skipgram(nn.Module):
    """Two vectors per word: for itself, and for being near.

    Args:
        sparse: Whether gradients name only the words that occurred.
    """

    def __init__(self, *, sparse: bool = True) -> None:
        super().__init__()
        self.own = nn.Embedding(120, 12, sparse=sparse)
        self.near = nn.Embedding(120, 12, sparse=sparse)
        scale_weights_(self, 0.3)

    def forward(self, words: Tensor, near: Tensor) -> Tensor:
        """Return how well each word goes with each of those near it."""
        return torch.einsum("nd,nkd->nk", self.own(words), self.near(near))


def negative_sampling(model: nn.Module, words: Tensor, near: Tensor) -> Tensor:
    """Return the loss that tells the word that was near from five that were not."""
    others = torch.randint(120, (len(words), 5))
    fits = model(words, torch.cat([near.unsqueeze(1), others], dim=1))
    wanted = torch.zeros_like(fits)
    wanted[:, 0] = 1.0
    return nn.functional.binary_cross_entropy_with_logits(fits, wanted)


def neighbours_agree(model: nn.Module, _words: Tensor, _near: Tensor) -> float:
    """Return the share of words whose nearest word has the same topic."""
    vectors = nn.functional.normalize(model.get_parameter("own.weight"), dim=1)
    nearest = (vectors @ vectors.T).fill_diagonal_(-1.0).argmax(dim=1)
    return float((nearest % 10 == torch.arange(120) % 10).float().mean())


class Factors(nn.Module):
    """A table as a product of users' and items' vectors.

    Args:
        deviation: Of all numbers at first.
    """

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(60, 4), nn.Embedding(50, 4)
        for weight in self.parameters():
            nn.init.normal_(weight, std=deviation)

    def forward(self, pairs: Tensor) -> Tensor:
        """Return ratings."""
        told: Tensor = (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(dim=1)
        return told


class Undo:
    """Puts the weights back to where they began, before each step."""

    def __init__(self) -> None:
        self.first: dict[str, Tensor] = {}

    def __call__(self, training: Training, step: int) -> None:
        """Remember at step 0, restore at all others."""
        state = training.model.state_dict()
        if step == 0:
            self.first = {name: weight.clone() for name, weight in state.items()}
        training.model.load_state_dict(self.first)


SGD, Adam = torch.optim.SGD, torch.optim.Adam
regress = partial(fit, criterion=squared_error, score=explained)
skipgram = partial(
    fit,
    split=sources.topic_pairs,
    criterion=negative_sampling,
    score=neighbours_agree,
    batch_size=128,
)
tables = partial(regress, split=sources.ratings, batch_size=None)


def undone() -> Training:
    """Return a factorisation whose weights are put back before every step."""
    training = tables(partial(Factors, 0.3), partial(SGD, lr=20.0))()
    each_step(Undo())(training)
    return training


CASES: tuple[Case, ...] = (
    Case(
        name="skipgram-sparse",
        family="word-embedding",
        build=skipgram(Skipgram, partial(torch.optim.SparseAdam, lr=2e-2)),
        steps=250,
        level=0.8,
        why="sparse gradients: a word that did not occur has none",
    ),
    Case(
        name="factors-plateau",
        family="matrix-factorisation",
        build=tables(partial(Factors, 0.01), partial(SGD, lr=20.0)),
        steps=300,
        level=0.6,
        why="tiny factors: the loss stands still for long before it falls",
    ),
    Case(
        name="skipgram-decayed",
        family="word-embedding",
        build=skipgram(partial(Skipgram, sparse=False), partial(Adam, lr=2e-2, weight_decay=1.0)),
        steps=250,
        level=0.5,
        kinds=("not_learning", "vanishing"),
        cures={"weight decay": skipgram(partial(Skipgram, sparse=False), partial(Adam, lr=2e-2))},
        why="the weight decay outweighs what the loss asks for, and all vectors shrink to nothing",
    ),
    Case(
        name="factors-undone",
        family="matrix-factorisation",
        build=undone,
        steps=200,
        level=0.3,
        kinds=("not_learning",),
        why="a callback that keeps the best weights puts the first ones back before every step",
    ),
    Case(
        name="factors-heavy-momentum",
        family="matrix-factorisation",
        build=tables(partial(Factors, 0.3), partial(SGD, lr=40.0, momentum=0.999)),
        steps=250,
        level=0.3,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={
            "lower learning rate": tables(
                partial(Factors, 0.3), partial(SGD, lr=0.3, momentum=0.999)
            )
        },
        why="a momentum of 0.999 piles steps up until the table swings ever wider",
    ),
)
