"""Perceptrons that explode or diverge."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.faults import at, multiply_rate, scaled_inputs, spoiled
from benchmarks.detection.tuning.inits import he
from benchmarks.detection.tuning.perceptrons import TwoBranches, perceptron
from benchmarks.detection.tuning.tasks import digits, linear_numbers, rescaled
from benchmarks.detection.tuning.training import sgd, stepping, trained

__all__ = ["CASES"]

failing = partial(Case, family="mlp")
on_digits = partial(trained, digits)
three = partial(perceptron, 3, initialise=he)
eight = partial(perceptron, 8)
one = partial(perceptron, 1)
linear = partial(perceptron, 0, inputs=10, outputs=1)


def deep_with_gain(*, norm: bool = False) -> nn.Sequential:
    """Return eight layers that each multiply the signal by three."""
    return eight(initialise=partial(he, gain=3.0), norm=norm)


def loud_layer() -> nn.Sequential:
    """Return a perceptron whose second layer begins 300 times too large."""
    model = three()
    with torch.no_grad():
        model[3].weight.mul_(300.0)  # type: ignore[operator]
    return model


def loud_branch(*, inputs: int, outputs: int) -> nn.Sequential:
    """Return a branch whose four layers each multiply the signal by six."""
    return perceptron(4, inputs=inputs, outputs=outputs, initialise=partial(he, gain=6.0))


EXPLODING = (
    failing(
        name="mlp-large-gain",
        build=partial(on_digits, deep_with_gain, stepping(0.02)),
        steps=150,
        level=0.7,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={
            "He initialisation": partial(on_digits, partial(eight, initialise=he), stepping(0.02)),
            "normalisation": partial(
                on_digits, partial(deep_with_gain, norm=True), stepping(0.02, 0.9)
            ),
        },
        why="each layer multiplies the signal by three from the first step on",
    ),
    failing(
        name="mlp-rate-far-too-high",
        build=partial(on_digits, three, stepping(20.0)),
        steps=150,
        level=0.7,
        kinds=("exploding", "diverging", "nonfinite", "dead"),
        cures={"lower learning rate": partial(on_digits, three, sgd)},
        why="at a rate of 20 the first updates are larger than the weights",
    ),
    failing(
        name="mlp-one-loud-layer",
        build=partial(on_digits, loud_layer, sgd),
        steps=150,
        level=0.7,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={
            "initialisation": partial(on_digits, three, sgd),
            "clip by norm": partial(on_digits, loud_layer, sgd, clip_norm=1.0),
            "He initialisation": partial(on_digits, three, sgd),
        },
        why="one of four layers begins 300 times too large",
    ),
    failing(
        name="two-branch-one-explodes",
        build=partial(on_digits, partial(TwoBranches, loud_branch), sgd),
        steps=200,
        level=0.7,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={
            "He initialisation": partial(
                on_digits, partial(TwoBranches, partial(perceptron, 4, initialise=he)), sgd
            ),
            "normalisation": partial(
                on_digits,
                partial(
                    TwoBranches,
                    partial(perceptron, 4, initialise=partial(he, gain=6.0), norm=True),
                ),
                sgd,
            ),
        },
        why="the deep branch multiplies by six per layer and drowns the other",
    ),
    failing(
        name="mlp-late-rate",
        build=partial(on_digits, three, sgd, fault=at(120, multiply_rate(1000.0))),
        steps=250,
        level=0.7,
        kinds=("exploding", "diverging", "nonfinite"),
        onset=120,
        cures={
            "schedule": partial(on_digits, three, sgd),
            "lower learning rate": partial(on_digits, three, sgd),
        },
        why="the rate is multiplied by a thousand in mid-run and stays there",
    ),
    failing(
        name="mlp-late-data-scale",
        build=partial(
            trained, spoiled(digits, scaled_inputs(1e4), start=120), three, stepping(0.05)
        ),
        steps=250,
        level=0.7,
        kinds=("exploding", "diverging", "nonfinite"),
        onset=120,
        cures={"look at the data": partial(on_digits, three, stepping(0.05))},
        why="from a step on the inputs come ten thousand times too large",
    ),
)

DIVERGING = (
    failing(
        name="linear-rate-over-limit",
        build=partial(trained, linear_numbers, linear, stepping(1.02)),
        steps=150,
        level=0.7,
        kinds=("diverging", "exploding"),
        cures={"lower learning rate": partial(trained, linear_numbers, linear, stepping(0.1))},
        why="the rate is a little over the limit of stability, so the loss grows a little per step",
    ),
    failing(
        name="mlp-momentum-0.999",
        build=partial(on_digits, three, stepping(0.1, 0.999)),
        steps=250,
        level=0.7,
        kinds=("diverging", "dead", "exploding"),
        cures={"lower learning rate": partial(on_digits, three, stepping(5e-4, 0.999))},
        why="momentum of 0.999 adds up a thousand steps and overshoots",
    ),
    failing(
        name="mlp-sign-error",
        build=partial(trained, rescaled(digits, -1.0), one, stepping(0.005)),
        steps=200,
        level=0.5,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"look at the loss": partial(on_digits, one, stepping(0.005, 0.9))},
        why="the loss has the wrong sign and is driven down without end",
    ),
)

CASES: tuple[Case, ...] = EXPLODING + DIVERGING
