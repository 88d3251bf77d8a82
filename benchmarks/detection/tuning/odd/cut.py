"""Features that are cut off from the loss by mistake.

In: signs, and strings to write backwards. Out: cases in which what comes behind the cut learns a
little and what is before it nothing.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import parity
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]

SYMBOLS, LENGTH = 8, 8


class Apart(nn.Module):
    """A body and a linear head.

    Args:
        is_cut: Whether features are detached between them.
    """

    def __init__(self, *, is_cut: bool) -> None:
        super().__init__()
        self.body = perceptron(2, nn.Tanh, inputs=12, outputs=32)
        self.head = nn.Linear(32, 2)
        self.is_cut = is_cut

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        features = self.body(inputs)
        logits: Tensor = self.head(features.detach() if self.is_cut else features)
        return logits


class Backwards(nn.Module):
    """Three GRUs that read a string, and one that writes it backwards, told each symbol before.

    Args:
        is_cut: Whether what was read is detached.
    """

    def __init__(self, *, is_cut: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS + 1, 16)
        self.reader = nn.GRU(16, 48, 3, batch_first=True)
        self.writer = nn.GRU(16, 48, batch_first=True)
        self.head = nn.Linear(48, SYMBOLS)
        self.is_cut = is_cut

    def forward(self, strings: Tensor) -> Tensor:
        """Return logits ``(n, length, symbols)``; symbols are told as in training."""
        read = self.reader(self.embedding(strings))[1][-1:].contiguous()
        told = torch.cat([torch.full_like(strings[:, :1], SYMBOLS), strings.flip(1)[:, :-1]], 1)
        states, _ = self.writer(self.embedding(told), read.detach() if self.is_cut else read)
        logits: Tensor = self.head(states)
        return logits


def backwards() -> Task:
    """Write strings backwards; each symbol is one or two more than the one before it."""

    def draw(count: int) -> Batch:
        ahead = torch.randint(SYMBOLS, (count, 1)) + torch.randint(1, 3, (count, LENGTH)).cumsum(1)
        strings = ahead % SYMBOLS
        return strings, strings.flip(1)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    def score(model: nn.Module) -> float:
        strings, answers = draw(500)
        return float((model(strings).argmax(dim=2) == answers).float().mean())

    return Task(draw=lambda _step: draw(64), loss=loss, score=score)


on_signs = partial(trained, partial(parity, bits=3))
on_strings = partial(trained, backwards)
adam = partial(torch.optim.Adam, lr=5e-3)

CASES: tuple[Case, ...] = (
    Case(
        name="cut-before-the-head",
        family="mlp",
        build=partial(on_signs, partial(Apart, is_cut=True), adam),
        steps=300,
        level=0.85,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": partial(on_signs, partial(Apart, is_cut=False), adam)},
        why="only the last layer is trained, on features that do not tell parity",
    ),
    Case(
        name="cut-between-reader-and-writer",
        family="sequence-to-sequence",
        build=partial(on_strings, partial(Backwards, is_cut=True), adam),
        steps=250,
        level=0.85,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": partial(on_strings, partial(Backwards, is_cut=False), adam)},
        why="the writer learns which symbols may follow which, and the reader learns nothing",
    ),
)
