"""Recurrent nets, on strings and on rows of digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ExponentialLR

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.layers import scale_weights_
from benchmarks.detection.tuning.once_held_out.parts import Batch, batches, changed, fit, scheduled

__all__ = ["CASES"]


class Reader(nn.Module):
    """A recurrent net with a linear read-out of its last state.

    Args:
        body: Any of torch's recurrent nets, batch first.
        classes: How many.
        symbols: Size of the alphabet, or 0 for inputs that are vectors already.
        everywhere: Whether to read every state out, not the last.
    """

    def __init__(
        self, body: nn.RNNBase, classes: int, symbols: int = 0, *, everywhere: bool = False
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, body.input_size) if symbols else nn.Identity()
        self.body = body
        self.out = nn.Linear(body.hidden_size * (2 if body.bidirectional else 1), classes)
        self.everywhere = everywhere

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, per place if asked for."""
        states: Tensor = self.body(self.embed(inputs))[0]
        logits: Tensor = self.out(states if self.everywhere else states[:, -1])
        return logits


def elman() -> Reader:
    """Return a tanh recurrence over strings, to tell four classes apart."""
    reader = Reader(nn.RNN(16, 32, batch_first=True), 4, 8)
    scale_weights_(reader.embed, 0.2)
    return reader


def forgetful(forget_bias: float) -> Reader:
    """Return an LSTM whose forget gate begins with a bias."""
    body = nn.LSTM(16, 32, batch_first=True)
    with torch.no_grad():
        body.get_parameter("bias_ih_l0")[32:64] = forget_bias
    return Reader(body, 4, 8)


def stacked() -> Reader:
    """Return three LSTMs on top of each other, with dropout of a half between them."""
    return Reader(nn.LSTM(8, 48, 3, batch_first=True, dropout=0.5), 10)


def bidirectional() -> Reader:
    """Return a GRU that reads the rows of a digit from both ends."""
    return Reader(nn.GRU(8, 24, batch_first=True, bidirectional=True), 10)


def lost_row(step: int, batch: Batch) -> Batch:
    """Lose a row of a digit, now and then from step 100 on."""
    inputs, targets = batch
    if step >= 100 and step % 25 == 0:
        inputs = inputs.clone()
        inputs[0, 5] = torch.nan
    return inputs, targets


def filled(_step: int, batch: Batch) -> Batch:
    """Put zeros where something is lost."""
    return batch[0].nan_to_num(), batch[1]


Adam = torch.optim.Adam
strings: Callable[[], data.Split] = partial(sources.first_symbol, 50)
long_strings: Callable[[], data.Split] = partial(sources.first_symbol, 45)
rows = sources.rows_of_digits
careful = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
nadam = partial(torch.optim.NAdam, lr=5e-3)
restarts = scheduled(partial(CosineAnnealingWarmRestarts, T_0=60))
halving = scheduled(partial(ExponentialLR, gamma=0.7))

CASES: tuple[Case, ...] = (
    Case(
        name="bigru-short-window",
        family="bidirectional-gru",
        build=fit(bidirectional, nadam, rows, changed(accumulate=3, short_every=10), batch_size=24),
        steps=160,
        level=0.8,
        why="three batches per step, and every tenth step only one of them",
    ),
    Case(
        name="lstm3-dropout-restarts",
        family="stacked-lstm",
        build=fit(stacked, partial(Adam, lr=1e-2), rows, restarts),
        steps=240,
        level=0.75,
        why="dropout of a half, and a rate that jumps back to its start every 60 steps",
    ),
    Case(
        name="lstm-remembers",
        family="stacked-lstm",
        build=fit(partial(forgetful, 4.0), partial(Adam, lr=1e-2), strings),
        steps=220,
        level=0.9,
        why="a forget gate that begins open carries the first symbol over fifty steps",
    ),
    Case(
        name="elman-forgets-first",
        family="elman",
        build=fit(elman, careful, long_strings, changed(clip_norm=1.0)),
        steps=220,
        level=0.6,
        kinds=("vanishing", "not_learning"),
        cures={
            "LSTM": fit(partial(forgetful, 5.0), partial(Adam, lr=1e-2), long_strings),
        },
        why="44 tanh steps stand between the one symbol that matters and the answer",
    ),
    Case(
        name="lstm-gate-shut",
        family="stacked-lstm",
        build=fit(partial(forgetful, -3.0), partial(Adam, lr=1e-2), strings),
        steps=220,
        level=0.6,
        kinds=("vanishing", "not_learning"),
        cures={"initialisation": fit(partial(forgetful, 4.0), partial(Adam, lr=1e-2), strings)},
        why="the forget gate begins shut, so no gradient reaches the first of fifty steps",
    ),
    Case(
        name="bigru-lost-rows",
        family="bidirectional-gru",
        build=fit(bidirectional, nadam, rows, batches(lost_row)),
        steps=220,
        level=0.5,
        kinds=("nonfinite",),
        onset=100,
        cures={
            "look at the data": fit(bidirectional, nadam, rows, batches(lost_row), batches(filled))
        },
        why="a sensor drops a row of one digit as NaN, and one step carries it into all weights",
    ),
    Case(
        name="bigru-rate-falls-off",
        family="bidirectional-gru",
        build=fit(bidirectional, nadam, rows, halving),
        steps=200,
        level=0.6,
        kinds=("not_learning",),
        cures={"schedule": fit(bidirectional, nadam, rows)},
        why="a schedule meant for epochs is stepped per batch: after 20 steps the rate is gone",
    ),
)
