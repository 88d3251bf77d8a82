"""Recurrent nets that need no memory, carry one along, or have lost it.

In: strings, and sources of the standard library. Out: cases in which early steps rightly have no
gradient, and one in which they should.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.sequence_models import Reader, Writer
from benchmarks.detection.tuning.tasks import accuracy
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]

State = tuple[Tensor, Tensor]


def strings(draw: Callable[[int], Batch]) -> Task:
    """Tell which of four symbols stood at some place of a string ``(n, length, 8)``."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def score(model: nn.Module) -> float:
        inputs, targets = draw(1000)
        return accuracy(model(inputs), targets)

    return Task(draw=lambda _step: draw(32), loss=loss, score=score)


def last_but_one(count: int) -> Batch:
    """Return strings of 40 symbols, and the last but one of each."""
    symbols = torch.randint(4, (count, 40))
    return nn.functional.one_hot(symbols, 8).float(), symbols[:, -2]


def first(count: int) -> Batch:
    """Return strings of 60 symbols, and the first of each, which is of another alphabet."""
    symbols = torch.randint(4, 8, (count, 60))
    symbols[:, 0] -= 4
    return nn.functional.one_hot(symbols, 8).float(), symbols[:, 0]


def gated(update_bias: float) -> Reader:
    """Return a GRU whose update gates begin with a bias; a high one keeps what was read."""
    cell = nn.GRU(8, 32, batch_first=True)
    with torch.no_grad():
        cell.get_parameter("bias_ih_l0")[32:64] = update_bias
    return Reader(cell, 4)


@lru_cache(maxsize=1)
def source() -> Tensor:
    """Return the text of one module of the standard library, as numbers below 128."""
    text = Path(argparse.__file__).read_text("utf-8")
    return torch.tensor([ord(c) for c in text if ord(c) < 128])


class Carried(nn.Module):
    """A writer whose state at the end of a passage is the one at the start of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = Writer(nn.LSTM(24, 64, batch_first=True))
        self.state: State | None = None

    def forward(self, characters: Tensor) -> Tensor:
        """Return logits of the next characters, starting afresh."""
        logits: Tensor = self.writer(characters)
        return logits

    def go_on(self, characters: Tensor) -> Tensor:
        """Return logits of the next characters, without gradient to earlier passages."""
        states, (hidden, cell) = self.writer.cell(self.writer.embedding(characters), self.state)
        self.state = hidden.detach(), cell.detach()
        logits: Tensor = self.writer.head(states)
        return logits


def reading() -> Training:
    """Return a training that reads 16 parts of a text side by side, 24 characters at a time."""
    model, text = Carried(), source()
    cut = len(text) * 9 // 10
    columns = text[: cut - cut % 16].view(16, -1)
    held = text[cut : cut + (len(text) - cut) // 65 * 65].view(-1, 65)

    def batch(step: int) -> Batch:
        start = step * 24 % (columns.shape[1] - 25)
        window = columns[:, start : start + 25]
        return window[:, :-1], window[:, 1:]

    def loss(batch: Batch, _index: int) -> Tensor:
        logits = model.go_on(batch[0])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

    return Training(
        model=model,
        optimizers=[torch.optim.Adam(model.parameters(), lr=5e-3)],
        batch=batch,
        loss=loss,
        score=lambda: accuracy(model(held[:, :-1]).flatten(0, 1), held[:, 1:].flatten()),
        clip_norm=1.0,
    )


adam = partial(torch.optim.Adam, lr=1e-2)
on_last = partial(trained, partial(strings, last_but_one))
on_first = partial(trained, partial(strings, first))

CASES: tuple[Case, ...] = (
    Case(
        name="gru-needs-the-end-only",
        family="gru",
        build=partial(on_last, partial(gated, 0.0), adam),
        steps=250,
        level=0.8,
        why="the answer stands next to the end: early steps have no gradient and need none",
    ),
    Case(
        name="lstm-carried-state",
        family="lstm",
        build=reading,
        steps=350,
        level=0.35,
        why="each passage begins with the state that the last one ended with",
    ),
    Case(
        name="gru-gates-forget",
        family="gru",
        build=partial(on_first, partial(gated, -5.0), adam),
        steps=200,
        level=0.6,
        kinds=("vanishing", "not_learning"),
        cures={"initialisation": partial(on_first, partial(gated, 3.0), adam)},
        why="update gates that begin shut overwrite the state at each of sixty steps",
    ),
)
