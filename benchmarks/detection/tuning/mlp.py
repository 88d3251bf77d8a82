"""Perceptrons that are well."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim import lr_scheduler

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.faults import scaled_inputs, spoiled
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import digits, parity, wine
from benchmarks.detection.tuning.training import adam, momentum, sgd, trained, warmed_up
from benchmarks.detection.tuning.unusual import (
    WithUnused,
    frozen_first,
    noisy_digits,
    partly_dead,
    rare_digits,
    switched_digits,
)

__all__ = ["CASES"]

two = partial(perceptron, 2)
healthy = partial(Case, family="mlp")
nesterov = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)

OPTIMIZERS = (
    healthy(
        name="mlp-sgd",
        build=partial(trained, digits, two, sgd),
        steps=300,
        level=0.85,
        why="the plainest healthy run",
    ),
    healthy(
        name="mlp-nesterov-warmup-cosine",
        build=partial(trained, digits, two, nesterov, schedule=warmed_up(30, 250)),
        steps=250,
        level=0.9,
        why="the rate begins near zero and ends at zero",
    ),
    healthy(
        name="mlp-warm-restarts",
        build=partial(
            trained,
            digits,
            partial(perceptron, 3, nn.Tanh),
            momentum,
            schedule=lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 60),
        ),
        steps=240,
        level=0.9,
        why="the rate jumps up from zero every 60 steps",
    ),
    healthy(
        name="mlp-full-batch-adagrad",
        build=partial(trained, wine, partial(two, inputs=13, outputs=3), torch.optim.Adagrad),
        steps=200,
        level=0.9,
        why="every batch is the whole table, so nothing is noisy, and the steps shrink",
    ),
    healthy(
        name="mlp-batch-of-two",
        build=partial(
            trained, partial(digits, batch_size=2), two, partial(torch.optim.SGD, lr=0.02)
        ),
        steps=600,
        level=0.75,
        why="two images per batch make gradients jump by a decade and more",
    ),
    healthy(
        name="mlp-accumulate-short-window",
        build=partial(
            trained, partial(digits, batch_size=16), two, sgd, accumulate=4, short_every=10
        ),
        steps=250,
        level=0.85,
        why="every tenth update has a quarter of the usual gradient",
    ),
)

EVENTS = (
    healthy(
        name="mlp-label-noise",
        build=partial(trained, noisy_digits, two, adam),
        steps=250,
        level=0.8,
        why="30 % of the labels are random, so the loss stays high",
    ),
    healthy(
        name="mlp-rare-class",
        build=partial(trained, rare_digits, two, momentum),
        steps=300,
        level=0.93,
        why="one class shows up in few batches, with large gradients when it does",
    ),
    healthy(
        name="mlp-outlier-batch",
        build=partial(
            trained,
            spoiled(digits, scaled_inputs(1000.0), start=120, stop=121),
            two,
            momentum,
            clip_norm=1.0,
        ),
        steps=300,
        level=0.85,
        why="one batch is a thousand times too large; clipping takes the blow",
    ),
    healthy(
        name="mlp-task-switch",
        build=partial(trained, switched_digits(150), two, momentum),
        steps=400,
        level=0.85,
        why="all labels change in mid-run and are learned again",
    ),
    healthy(
        name="mlp-plateau-parity",
        build=partial(
            trained,
            partial(parity, bits=5),
            partial(two, inputs=12, outputs=2, units=128),
            partial(torch.optim.Adam, lr=1e-3),
        ),
        steps=800,
        level=0.9,
        why="the loss stays at chance for a long while before parity is found",
    ),
)

PARTS = (
    healthy(
        name="mlp-frozen-first-layer",
        build=partial(trained, digits, frozen_first, momentum),
        steps=200,
        level=0.85,
        why="the first layer is meant to stay as it is",
    ),
    healthy(
        name="mlp-unused-layer",
        build=partial(trained, digits, WithUnused, adam),
        steps=200,
        level=0.9,
        why="one layer takes no part and never has a gradient",
    ),
    healthy(
        name="mlp-third-dead",
        build=partial(trained, digits, partly_dead, adam),
        steps=250,
        level=0.9,
        why="a third of the units never fire, and the others are enough",
    ),
)

CASES: tuple[Case, ...] = OPTIMIZERS + EVENTS + PARTS
