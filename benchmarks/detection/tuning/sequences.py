"""Recurrent nets and transformers, well and failing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.faults import one_nan, spoiled
from benchmarks.detection.tuning.sequence_models import (
    Reader,
    Transformer,
    Writer,
    long_memory,
    orthogonal,
)
from benchmarks.detection.tuning.tasks import adding, characters, digits
from benchmarks.detection.tuning.training import adam, trained, warmed_up

__all__ = ["CASES"]

on_rows = partial(trained, partial(digits, batch_size=32))
on_sums = partial(trained, partial(adding, length=18))
on_text = partial(trained, characters)
short_sums = partial(trained, partial(adding, length=12))
adamw = partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.05)
quick = partial(torch.optim.Adam, lr=5e-3)


def rows(make: Callable[..., nn.RNNBase], *, units: int = 32) -> Reader:
    """Return a reader of images."""
    return Reader(make(8, units, batch_first=True), 10)


def forgetful() -> Reader:
    """Return a plain recurrent net for the adding problem, as torch makes it."""
    return Reader(nn.RNN(2, 32, batch_first=True), 1)


def retentive() -> Reader:
    """Return one that keeps its signal; an orthogonal matrix under tanh would not be enough."""
    return Reader(orthogonal(nn.RNN(2, 32, nonlinearity="relu", batch_first=True)), 1)


def relu_orthogonal(gain: float) -> Reader:
    """Return a recurrent ReLU net that reads images by half rows."""
    cell = nn.RNN(4, 64, nonlinearity="relu", batch_first=True)
    return Reader(orthogonal(cell, gain=gain), 10)


def open_gates() -> Reader:
    """Return an LSTM for the adding problem that begins with a long memory."""
    return Reader(long_memory(nn.LSTM(2, 32, batch_first=True), forget_bias=3.0), 1)


HEALTHY = (
    Case(
        name="lstm-rows-clipped",
        family="lstm",
        build=partial(on_rows, partial(rows, nn.LSTM), quick, clip_norm=0.1),
        steps=250,
        level=0.8,
        why="clipping acts on every step",
    ),
    Case(
        name="gru-sums",
        family="gru",
        build=partial(short_sums, lambda: Reader(nn.GRU(2, 32, batch_first=True), 1), quick),
        steps=500,
        level=0.8,
        why="the loss stays level until the trick of adding is found",
    ),
    Case(
        name="rnn-orthogonal-plateau",
        family="rnn",
        build=partial(on_sums, retentive, adam, clip_norm=1.0),
        steps=500,
        level=0.7,
        why="a plain recurrent net that keeps its signal finds the trick late",
    ),
    Case(
        name="lstm-text",
        family="lstm",
        build=partial(on_text, lambda: Writer(nn.LSTM(32, 64, batch_first=True)), adam),
        steps=300,
        level=0.25,
        why="characters that never come leave most rows of the embedding without gradient",
    ),
    Case(
        name="transformer-tied",
        family="transformer",
        build=partial(
            on_text,
            partial(Transformer, tied=True),
            adamw,
            schedule=warmed_up(20, 250),
            clip_norm=1.0,
        ),
        steps=250,
        level=0.25,
        why="the embedding is the last layer, too; warm-up, cosine and clipping",
    ),
    Case(
        name="transformer-layer-scale",
        family="transformer",
        build=partial(on_text, partial(Transformer, scale=1e-4), adamw),
        steps=250,
        level=0.25,
        why="branches begin ten thousand times smaller than the path beside them",
    ),
)

FAILING = (
    Case(
        name="rnn-sums-vanishing",
        family="rnn",
        build=partial(on_sums, forgetful, adam, clip_norm=1.0),
        steps=500,
        level=0.7,
        kinds=("vanishing", "not_learning"),
        cures={
            "orthogonal": partial(on_sums, retentive, adam, clip_norm=1.0),
            "LSTM": partial(on_sums, open_gates, quick, clip_norm=1.0),
        },
        why="what was read first is forgotten, and so is its gradient",
    ),
    Case(
        name="rnn-relu-exploding",
        family="rnn",
        build=partial(on_rows, partial(relu_orthogonal, 2.5), partial(torch.optim.SGD, lr=0.05)),
        steps=250,
        level=0.6,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={
            "orthogonal": partial(
                on_rows, partial(relu_orthogonal, 1.0), partial(torch.optim.SGD, lr=0.05)
            ),
        },
        why="each of 16 readings multiplies the state by two and a half",
    ),
    Case(
        name="lstm-rate-far-too-small",
        family="lstm",
        build=partial(on_rows, partial(rows, nn.LSTM), partial(torch.optim.Adam, lr=5e-6)),
        steps=250,
        level=0.6,
        kinds=("not_learning",),
        cures={"higher learning rate": partial(on_rows, partial(rows, nn.LSTM), quick)},
        why="a rate of 0.000005 would need a hundred times as many steps",
    ),
    Case(
        name="gru-nan-batch",
        family="gru",
        build=partial(
            trained,
            spoiled(partial(digits, batch_size=32), one_nan, start=90, stop=91),
            partial(rows, nn.GRU),
            quick,
        ),
        steps=180,
        level=0.6,
        kinds=("nonfinite",),
        onset=90,
        cures={"look at the data": partial(on_rows, partial(rows, nn.GRU), quick)},
        why="one pixel of one image is NaN, and every weight is NaN after it",
    ),
    Case(
        name="transformer-rate-zero",
        family="transformer",
        build=partial(on_text, Transformer, partial(torch.optim.AdamW, lr=1e-8)),
        steps=200,
        level=0.22,
        kinds=("not_learning",),
        cures={"higher learning rate": partial(on_text, Transformer, adamw)},
        why="the rate is a slip of the keyboard: 1e-8",
    ),
    Case(
        name="transformer-rate-too-high",
        family="transformer",
        build=partial(on_text, Transformer, partial(torch.optim.AdamW, lr=1.0)),
        steps=200,
        level=0.22,
        kinds=("diverging", "exploding"),
        cures={
            "lower learning rate": partial(on_text, Transformer, adamw),
        },
        why="Adam moves every weight by one per step, so the loss jumps about",
    ),
)

CASES: tuple[Case, ...] = HEALTHY + FAILING
