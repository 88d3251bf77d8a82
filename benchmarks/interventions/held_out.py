"""Trainings that nothing was tuned on: other tasks, models, optimizers and troubles."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from torch import nn, optim

from benchmarks.interventions.case import Case
from benchmarks.interventions.measurements import images, look_up, pitch, table, waves
from benchmarks.interventions.networks import louder, perceptron, reader
from benchmarks.interventions.networks_wider import (
    Attention,
    Feedback,
    autoencoder,
    convolutions_1d,
)
from benchmarks.interventions.troubles import now_and_then, restarted, scaled_targets

__all__ = ["CASES"]

nesterov = partial(optim.SGD, momentum=0.9, nesterov=True)
adamw = partial(optim.AdamW, weight_decay=0.01)
healthy = partial(Case, is_healthy=True)
layer_norm = partial(perceptron, norm=nn.LayerNorm, width=48, activation=nn.SiLU)

CASES: Final = (
    Case(
        name="waves-high-rate",
        why="Convolutions along a sequence, at a rate at which each layer overshoots.",
        task=waves,
        model=partial(convolutions_1d, 4, norm=False),
        optimizer=nesterov,
        rate=1.0,
    ),
    Case(
        name="autoencoder-high-rate",
        why="An autoencoder at thirty times the rate that it likes.",
        task=images,
        model=autoencoder,
        optimizer=optim.NAdam,
        rate=0.3,
    ),
    Case(
        name="other-units",
        why="Two batches in a hundred have their targets in thousandths.",
        task=pitch,
        model=partial(layer_norm, 32, 1),
        optimizer=optim.RMSprop,
        rate=1e-3,
        spoil=now_and_then(0.02, scaled_targets(1000.0)),
    ),
    Case(
        name="loud-attention",
        why="Attention whose matrices begin four times too large: it looks at one row only.",
        task=look_up,
        model=lambda: louder(Attention(14, 8), 4.0),
        optimizer=adamw,
        rate=1e-1,
    ),
    Case(
        name="growing-state",
        why="A state that is fed back and grows with each value.",
        task=pitch,
        model=partial(Feedback, 1.5),
        optimizer=nesterov,
        rate=0.1,
    ),
    Case(
        name="warm-restart",
        why="Late in training a schedule begins again, much higher than the first time.",
        task=partial(table, "wine"),
        model=partial(perceptron, 13, 3, depth=5),
        optimizer=optim.RMSprop,
        rate=1e-3,
        bump=restarted(300.0, 200, 100),
    ),
    Case(
        name="long-tail",
        why="The noise of the targets has one long tail, and no variance.",
        task=partial(pitch, heavy=0.3),
        model=partial(convolutions_1d, 1, norm=False),
        optimizer=nesterov,
        rate=0.05,
    ),
    Case(
        name="high-momentum",
        why="Momentum of 0.99 at a rate that would do without: it swings, farther each time.",
        task=partial(table, "breast_cancer"),
        model=partial(perceptron, 30, 2, depth=5),
        optimizer=partial(optim.SGD, momentum=0.99),
        rate=0.5,
    ),
    healthy(
        name="waves-group-norm",
        why="Group norm and a cosine.",
        task=waves,
        model=partial(convolutions_1d, 4, norm=True),
        optimizer=optim.NAdam,
        rate=3e-3,
        schedule=lambda step: 0.5 * (1.0 + math.cos(math.pi * step / 300)),
    ),
    healthy(
        name="autoencoder",
        why="The rate rises to its peak and falls again, in one cycle.",
        task=images,
        model=autoencoder,
        optimizer=adamw,
        rate=1e-2,
        schedule=lambda step: 0.5 * (1.0 - math.cos(2.0 * math.pi * (step + 1) / 301)),
    ),
    healthy(
        name="few-rows",
        why="A table of some 350 rows with much noise, read many times.",
        task=partial(table, "diabetes"),
        model=partial(perceptron, 10, 1, depth=1, width=16),
        optimizer=partial(optim.RMSprop, weight_decay=0.1),
        rate=1e-3,
    ),
    healthy(
        name="mild-restarts",
        why="A cosine that begins again twice, each time as high as the first.",
        task=partial(pitch, length=16),
        model=partial(reader, nn.GRU, 1, inputs=1),
        optimizer=optim.Adam,
        rate=5e-3,
        schedule=lambda step: 0.5 * (1.0 + math.cos(math.pi * (step % 100) / 100)),
    ),
)
"""Eight that fail, four that do not."""
