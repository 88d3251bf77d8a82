"""Trainings that the automatic policy may be tuned on."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from torch import nn, optim

from benchmarks.interventions.case import Case
from benchmarks.interventions.networks import (
    PostNorm,
    convolutions,
    half_precision,
    louder,
    perceptron,
    writer,
)
from benchmarks.interventions.tasks import characters, curve, digits, teacher
from benchmarks.interventions.troubles import (
    at,
    now_and_then,
    raised,
    scaled_inputs,
    with_value,
)

__all__ = ["CASES"]

momentum = partial(optim.SGD, momentum=0.9)
adam = optim.Adam
small = partial(perceptron, 20, 8)
healthy = partial(Case, is_healthy=True)

CASES: Final = (
    Case(
        name="lstm-high-rate",
        why="An LSTM at fifty times the rate that it likes: its gates saturate.",
        task=characters,
        model=partial(writer, nn.LSTM),
        optimizer=momentum,
        rate=20.0,
    ),
    Case(
        name="post-norm-high-rate",
        why="A transformer with layer norm last, without warm-up, at a rate that it cannot bear.",
        task=characters,
        model=PostNorm,
        optimizer=adam,
        rate=3e-2,
    ),
    Case(
        name="outlier-batches",
        why="Two batches in a hundred have missed their normalisation.",
        task=teacher,
        model=small,
        optimizer=momentum,
        rate=0.1,
        spoil=now_and_then(0.02, scaled_inputs(100.0)),
    ),
    Case(
        name="heavy-tailed-targets",
        why="The noise of the targets has no mean: most batches are fine, a few are wild.",
        task=partial(curve, noise=0.1),
        model=partial(perceptron, 4, 1),
        optimizer=momentum,
        rate=0.02,
    ),
    Case(
        name="nan-batch",
        why="One row of one batch is NaN.",
        task=digits,
        model=partial(convolutions, norm=True),
        optimizer=adam,
        rate=3e-3,
        spoil=at(150, with_value(math.nan)),
    ),
    Case(
        name="rate-bump",
        why="For five steps the schedule is a hundred times too high.",
        task=teacher,
        model=small,
        optimizer=momentum,
        rate=0.05,
        bump=raised(100.0, 150, 5),
    ),
    Case(
        name="loud-initialisation",
        why="Six layers that begin five times too large.",
        task=digits,
        model=lambda: louder(perceptron(64, 10, depth=6), 5.0),
        optimizer=momentum,
        rate=0.05,
    ),
    Case(
        name="half-overflow",
        why="Between layers numbers are float16; one batch in fifty is loud, and overflows.",
        task=teacher,
        model=lambda: half_precision(small()),
        optimizer=adam,
        rate=3e-3,
        spoil=now_and_then(0.02, scaled_inputs(1e5)),
    ),
    healthy(
        name="mlp-adam",
        why="The plainest training.",
        task=teacher,
        model=small,
        optimizer=adam,
        rate=3e-3,
    ),
    healthy(
        name="cnn-batch-norm",
        why="Batch norm, momentum and a cosine.",
        task=digits,
        model=partial(convolutions, norm=True),
        optimizer=momentum,
        rate=0.05,
        schedule=lambda step: 0.5 * (1.0 + math.cos(math.pi * step / 300)),
    ),
    healthy(
        name="lstm",
        why="An LSTM at a rate that it likes.",
        task=characters,
        model=partial(writer, nn.LSTM),
        optimizer=adam,
        rate=5e-3,
    ),
    healthy(
        name="regression",
        why="A loss that falls by decades, and the gradient with it.",
        task=curve,
        model=partial(perceptron, 4, 1, activation=nn.Tanh),
        optimizer=momentum,
        rate=0.03,
    ),
)
"""Eight that fail, four that do not."""
