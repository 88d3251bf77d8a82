"""Perceptrons that are well though their losses are huge, tiny, or gone."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import digits, linear_numbers, rescaled, wine
from benchmarks.detection.tuning.training import sgd, trained
from benchmarks.detection.tuning.unusual import smooth_numbers

__all__ = ["CASES"]

two = partial(perceptron, 2)
healthy = partial(Case, family="mlp")

CASES: tuple[Case, ...] = (
    healthy(
        name="mlp-summed-loss",
        build=partial(
            trained, rescaled(digits, 64.0), two, partial(torch.optim.SGD, lr=0.1 / 64.0)
        ),
        steps=250,
        level=0.85,
        why="the loss is summed over the batch and the rate made to fit",
    ),
    healthy(
        name="mlp-tiny-loss",
        build=partial(
            trained, rescaled(digits, 1e-6), two, partial(torch.optim.Adam, lr=2e-3, eps=1e-16)
        ),
        steps=200,
        level=0.9,
        why="gradients are a millionth of the usual, which Adam does not mind",
    ),
    healthy(
        name="mlp-huge-loss",
        build=partial(trained, rescaled(digits, 1e6), two, partial(torch.optim.SGD, lr=1e-7)),
        steps=250,
        level=0.85,
        why="gradients are a million times the usual and the rate a millionth",
    ),
    healthy(
        name="mlp-large-targets-adam",
        build=partial(
            trained,
            partial(smooth_numbers, 1000.0),
            partial(two, inputs=4, outputs=1, units=128),
            partial(torch.optim.Adam, lr=0.02),
        ),
        steps=400,
        level=0.7,
        why="targets in the thousands make a loss of millions that Adam brings down",
    ),
    healthy(
        name="mlp-converged-long-ago",
        build=partial(trained, linear_numbers, partial(perceptron, 0, inputs=10, outputs=1), sgd),
        steps=500,
        level=0.999,
        why="a problem without noise is solved exactly, and loss and gradients fall to nothing",
    ),
    healthy(
        name="mlp-all-learned-adam",
        build=partial(
            trained,
            wine,
            partial(two, inputs=13, outputs=3),
            partial(torch.optim.Adam, lr=5e-3),
        ),
        steps=400,
        level=0.9,
        why="every row is right after a tenth of the run, and the rest polishes zeros",
    ),
)
