"""Convolutions with instance norm, group norm, weight norm, or none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrizations

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.once_held_out.convolutions import head
from benchmarks.detection.tuning.once_held_out.parts import Batch, at, batches, fit

__all__ = ["CASES"]

Norm = Callable[[int], nn.Module]


def plain(norm: Norm) -> nn.Sequential:
    """Return three convolutions with a norm behind each."""
    layers: list[nn.Module] = []
    for channels, width in ((1, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), norm(width), nn.ReLU()]
    return nn.Sequential(*layers, head(32))


def weight_normed(gain: float) -> nn.Sequential:
    """Return five convolutions with weights of a length that is learned apart.

    Args:
        gain: That length at first, per output channel.
    """
    layers: list[nn.Module] = []
    for channels in (1, 16, 16, 16, 16):
        layers += [parametrizations.weight_norm(nn.Conv2d(channels, 16, 3, padding=1)), nn.ReLU()]
    net = nn.Sequential(*layers, head(16))
    for name, parameter in net.named_parameters():
        if name.endswith("original0"):
            nn.init.constant_(parameter, gain)
    return net


def bright_batch(step: int, batch: Batch) -> Batch:
    """Make one batch fifty times as bright as the others, with classes at random."""
    inputs, targets = batch
    return (50.0 * inputs, torch.randint_like(targets, 10)) if step == 80 else batch


def push_down_(training: Training) -> None:
    """Take a large number from the biases of the second convolution, as a bad edit would."""
    bias = training.model.get_parameter("3.bias")
    with torch.no_grad():
        bias.sub_(40.0)


sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
slower = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
group_norm: Norm = partial(nn.GroupNorm, 4)

CASES: tuple[Case, ...] = (
    Case(
        name="instance-norm-bright-batch",
        family="instance-norm",
        build=fit(
            partial(plain, partial(nn.InstanceNorm2d, affine=True)),
            sgd,
            data.digits,
            batches(bright_batch),
        ),
        steps=180,
        level=0.9,
        why="one batch has fifty times the brightness and wrong classes; the run gets over it",
    ),
    Case(
        name="weight-norm-momentum",
        family="weight-norm",
        build=fit(partial(weight_normed, 1.5), slower, data.digits),
        steps=220,
        level=0.7,
        why="the length of each filter is a parameter of its own",
    ),
    Case(
        name="weight-norm-long-filters",
        family="weight-norm",
        build=fit(partial(weight_normed, 12.0), slower, data.digits),
        steps=150,
        level=0.4,
        kinds=("exploding", "nonfinite", "diverging", "dead"),
        cures={"initialisation": fit(partial(weight_normed, 1.5), slower, data.digits)},
        why="each of five layers multiplies by about ten from the first step on",
    ),
    Case(
        name="plain3-pushed-down",
        family="plain-conv",
        build=fit(partial(plain, lambda _: nn.Identity()), sgd, data.digits, at(80, push_down_)),
        steps=180,
        level=0.5,
        kinds=("dead", "not_learning", "vanishing"),
        onset=80,
        cures={
            "normalisation": fit(partial(plain, group_norm), sgd, data.digits, at(80, push_down_))
        },
        why="the biases of one layer jump far below zero at step 80, and none of its units fires",
    ),
)
