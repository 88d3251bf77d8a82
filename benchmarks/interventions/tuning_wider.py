"""More trainings that the automatic policy may be tuned on: other tasks, models and troubles."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from torch import nn, optim

from benchmarks.detection.tuning.sequence_models import Transformer
from benchmarks.interventions.case import Case
from benchmarks.interventions.networks import (
    convolutions,
    perceptron,
    reader,
    rows_of_images,
    spectral,
)
from benchmarks.interventions.tasks import adding, characters, curve, digits, inverse, teacher
from benchmarks.interventions.troubles import (
    heavy_tailed,
    now_and_then,
    peaks,
    scaled_inputs,
    with_value,
)

__all__ = ["CASES"]

sgd = optim.SGD
nesterov = partial(optim.SGD, momentum=0.9, nesterov=True)
adamw = partial(optim.AdamW, weight_decay=0.01)
healthy = partial(Case, is_healthy=True)
relu_rnn = partial(nn.RNN, nonlinearity="relu")
gelu = partial(perceptron, activation=nn.GELU)

CASES: Final = (
    Case(
        name="gru-high-rate",
        why="A GRU at a rate at which each step throws it elsewhere.",
        task=adding,
        model=partial(reader, nn.GRU, 1),
        optimizer=nesterov,
        rate=2.0,
        steps=400,
    ),
    Case(
        name="vision-transformer-high-rate",
        why="A transformer that reads images, without warm-up, at a rate that it cannot bear.",
        task=digits,
        model=rows_of_images,
        optimizer=adamw,
        rate=1e-1,
    ),
    Case(
        name="raw-pixels",
        why="Three batches in a hundred come as pixels from 0 to 255.",
        task=digits,
        model=partial(convolutions, norm=False),
        optimizer=nesterov,
        rate=0.05,
        spoil=now_and_then(0.03, scaled_inputs(128.0, offset=128.0)),
    ),
    Case(
        name="heavy-tailed-inputs",
        why="One batch in five has inputs with Cauchy noise.",
        task=teacher,
        model=partial(gelu, 20, 8),
        optimizer=nesterov,
        rate=0.1,
        spoil=now_and_then(0.2, heavy_tailed(1.0)),
    ),
    Case(
        name="infinite-targets",
        why="Targets are ratios, and in two batches of a hundred one divides by zero.",
        task=curve,
        model=partial(gelu, 4, 1, norm=nn.LayerNorm),
        optimizer=adamw,
        rate=5e-3,
        spoil=now_and_then(0.02, with_value(math.inf, of_targets=True)),
    ),
    Case(
        name="peaks-of-the-rate",
        why="A cyclic schedule whose peaks are too high.",
        task=teacher,
        model=partial(perceptron, 20, 8, depth=4),
        optimizer=nesterov,
        rate=0.03,
        bump=peaks(100.0, 100, 20),
    ),
    Case(
        name="recurrent-gain",
        why="A recurrent matrix that makes everything longer at each step, without a limit.",
        task=digits,
        model=lambda: spectral(reader(relu_rnn, 10, inputs=8), 4.0),
        optimizer=sgd,
        rate=0.05,
    ),
    Case(
        name="narrow-densities",
        why="Densities become narrower, and gradients larger, the better they fit.",
        task=inverse,
        model=partial(perceptron, 1, 15, activation=nn.Tanh),
        optimizer=nesterov,
        rate=0.1,
        steps=400,
    ),
    healthy(
        name="transformer",
        why="Layer norm first, warm-up and a cosine.",
        task=characters,
        model=Transformer,
        optimizer=adamw,
        rate=5e-3,
        schedule=lambda step: min(1.0, step / 40) * 0.5 * (1.0 + math.cos(math.pi * step / 300)),
    ),
    healthy(
        name="gru",
        why="A plateau first, then a sudden fall of the loss.",
        task=adding,
        model=partial(reader, nn.GRU, 1),
        optimizer=optim.Adam,
        rate=1e-2,
        steps=400,
    ),
    healthy(
        name="wrong-labels",
        why="Three labels in ten are random.",
        task=partial(teacher, wrong=0.3),
        model=partial(gelu, 20, 8),
        optimizer=nesterov,
        rate=0.03,
    ),
    healthy(
        name="small-batches",
        why="Four rows per batch: gradients of very different sizes.",
        task=partial(digits, batch_size=4),
        model=partial(perceptron, 64, 10),
        optimizer=sgd,
        rate=0.05,
        steps=600,
    ),
)
"""Eight that fail, four that do not."""
