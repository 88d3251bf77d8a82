"""A graph of who knows whom, and attention along its edges."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.parts import Build, fit, using

__all__ = ["CASES"]


@lru_cache(maxsize=1)
def circles() -> tuple[Tensor, Tensor]:
    """Return who knows whom among 160, mostly in one of four circles, and the circles."""
    draw = sources.generator()
    circle = torch.arange(160) % 4
    chance = torch.where(circle.unsqueeze(1) == circle, 0.2, 0.02)
    knows = (torch.rand(160, 160, generator=draw) < chance).triu(1)
    return knows | knows.T | torch.eye(160, dtype=torch.bool), circle


@lru_cache(maxsize=1)
def members() -> Split:
    """Return 40 whose circle is told, and 120 others."""
    order = torch.randperm(160, generator=sources.generator())
    circle = circles()[1][order]
    return order[:40], circle[:40], order[40:], circle[40:]


class Neighbours(nn.Module):
    """One layer of attention of each to those it knows.

    Args:
        width: Of inputs and outputs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.near, self.far = nn.Linear(width, 1), nn.Linear(width, 1)
        self.hidden = ~circles()[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what each hears."""
        value = self.value(inputs)
        scores = nn.functional.leaky_relu(self.near(value) + self.far(value).T, 0.2)
        heard: Tensor = scores.masked_fill(self.hidden, -torch.inf).softmax(dim=1) @ value
        return heard


class Circles(nn.Module):
    """Rounds of hearing, on vectors that are learned for all.

    Args:
        rounds: How many.
        skip: Whether each adds to what was known before.
    """

    def __init__(self, rounds: int, *, skip: bool) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(160, 24))
        self.rounds = nn.ModuleList(Neighbours(24) for _ in range(rounds))
        self.out, self.skip = nn.Linear(24, 4), skip

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of the circle."""
        state = nn.functional.dropout(self.start, 0.2, self.training)
        for listen in self.rounds:
            told = torch.tanh(listen(state))
            state = state + told if self.skip else told
        logits: Tensor = self.out(state[inputs])
        return logits


def circle(rounds: int, *, skip: bool) -> Build:
    """Return a training on the graph, all of it at once."""
    sgd = using(torch.optim.SGD, lr=0.03, momentum=0.9)
    return fit(partial(Circles, rounds, skip=skip), sgd, members, batch_size=None)


CASES: tuple[Case, ...] = (
    Case(
        name="circles-by-attention",
        family="graph-attention",
        build=fit(
            partial(Circles, 4, skip=True),
            using(torch.optim.AdamW, lr=2e-3, weight_decay=1e-2),
            members,
            batch_size=None,
        ),
        steps=150,
        level=0.75,
        why="one graph is each batch, and a quarter of its members carries the loss",
    ),
    Case(
        name="circles-heard-too-often",
        family="graph-attention",
        build=circle(12, skip=False),
        steps=200,
        level=0.5,
        kinds=("vanishing", "not_learning"),
        cures={"skip connections": circle(12, skip=True)},
        why="twelve rounds of averaging make members alike, and gradients die",
    ),
)
