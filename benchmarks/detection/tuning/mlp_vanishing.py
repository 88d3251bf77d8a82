"""Perceptrons whose gradients vanish, whose units die or saturate."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.faults import (
    at,
    decay_weights,
    multiply_rate,
)
from benchmarks.detection.tuning.inits import biased, he, normal, xavier
from benchmarks.detection.tuning.perceptrons import Times, TwoBranches, perceptron
from benchmarks.detection.tuning.tasks import digits
from benchmarks.detection.tuning.training import momentum, sgd, trained

__all__ = ["CASES"]

failing = partial(Case, family="mlp")
on_digits = partial(trained, digits)
slower = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
sigmoid10 = partial(perceptron, 10, nn.Sigmoid)
tanh10 = partial(perceptron, 10, nn.Tanh)
relu14 = partial(perceptron, 14, nn.ReLU)
two_sigmoid = partial(perceptron, 2, nn.Sigmoid)
three = partial(perceptron, 3, initialise=he)
five = partial(perceptron, 5, initialise=he)


def giant_updates(training: Training, step: int) -> None:
    """Make 20 steps at 1000 times the rate."""
    multiply_rate({120: 1000.0, 140: 0.001}.get(step, 1.0))(training)


def saturate(training: Training) -> None:
    """Push the biases of the first two layers far to either side."""
    with torch.no_grad():
        for index in (1, 3):
            bias = training.model[index].bias  # type: ignore[index]
            bias.copy_(bias.sign() * 30.0)


OVER_DEPTH = (
    failing(
        name="mlp-sigmoid10",
        build=partial(on_digits, sigmoid10, momentum),
        steps=300,
        level=0.7,
        kinds=("vanishing", "not_learning"),
        cures={
            "normalisation": partial(on_digits, partial(sigmoid10, norm=True), momentum),
            "skip connections": partial(on_digits, partial(sigmoid10, skip=True), momentum),
            "He initialisation": partial(on_digits, partial(perceptron, 10, initialise=he), slower),
        },
        why="each sigmoid takes at least three quarters of the gradient",
    ),
    failing(
        name="mlp-tanh10-small-init",
        build=partial(on_digits, partial(tanh10, initialise=partial(normal, 0.03)), momentum),
        steps=250,
        level=0.7,
        kinds=("vanishing", "not_learning"),
        cures={
            "Xavier initialisation": partial(on_digits, partial(tanh10, initialise=xavier), slower),
            "initialisation": partial(on_digits, partial(tanh10, initialise=xavier), slower),
            "normalisation": partial(
                on_digits, partial(tanh10, initialise=partial(normal, 0.03), norm=True), slower
            ),
        },
        why="weights of deviation 0.03 shrink signal and gradient by four in each layer",
    ),
    failing(
        name="mlp-relu14-default-init",
        build=partial(on_digits, relu14, sgd),
        steps=250,
        level=0.7,
        kinds=("vanishing", "not_learning"),
        cures={
            "He initialisation": partial(on_digits, partial(relu14, initialise=he), slower),
            "normalisation": partial(on_digits, partial(relu14, norm=True), slower),
            "skip connections": partial(on_digits, partial(relu14, skip=True), slower),
        },
        why="torch's default weights are too small for a deep stack of ReLU",
    ),
    failing(
        name="two-branch-deep-one-vanishes",
        build=partial(on_digits, partial(TwoBranches, sigmoid10), momentum),
        steps=300,
        level=0.85,
        kinds=("vanishing",),
        cures={
            "normalisation": partial(
                on_digits, partial(TwoBranches, partial(sigmoid10, norm=True)), momentum
            ),
            "skip connections": partial(
                on_digits, partial(TwoBranches, partial(sigmoid10, norm=True, skip=True)), momentum
            ),
        },
        why="the shallow branch sees a quarter of the image and learns; the deep one never starts",
    ),
    failing(
        name="mlp-late-weight-decay",
        build=partial(on_digits, five, sgd, fault=at(150, decay_weights(1.0))),
        steps=350,
        level=0.7,
        kinds=("vanishing", "not_learning"),
        onset=150,
        cures={"weight decay": partial(on_digits, five, sgd)},
        why="an absurd weight decay shrinks a trained net to nothing",
    ),
)

FLAT = (
    failing(
        name="mlp-dead-at-birth",
        build=partial(on_digits, partial(perceptron, 3, initialise=partial(biased, -6.0)), sgd),
        steps=250,
        level=0.7,
        kinds=("dead", "vanishing", "not_learning"),
        cures={
            "initialisation": partial(on_digits, partial(perceptron, 3), sgd),
            "He initialisation": partial(on_digits, partial(perceptron, 3, initialise=he), sgd),
            "normalisation": partial(
                on_digits,
                partial(perceptron, 3, initialise=partial(biased, -6.0), norm=True),
                sgd,
            ),
        },
        why="biases of -6 keep nearly all units silent for every image",
    ),
    failing(
        name="mlp-killed-by-giant-updates",
        build=partial(on_digits, three, sgd, clip_norm=1.0, fault=giant_updates),
        steps=300,
        level=0.7,
        kinds=("dead", "not_learning", "exploding"),
        onset=120,
        cures={
            "schedule": partial(on_digits, three, sgd, clip_norm=1.0),
            "lower learning rate": partial(on_digits, three, sgd, clip_norm=1.0),
        },
        why="twenty updates at 1000 times the rate push the units below zero for good",
    ),
    failing(
        name="mlp-tanh-saturated-at-birth",
        build=partial(
            on_digits, partial(perceptron, 5, nn.Tanh, initialise=partial(normal, 1.5)), sgd
        ),
        steps=250,
        level=0.8,
        kinds=("saturated", "exploding"),
        cures={
            "Xavier initialisation": partial(
                on_digits, partial(perceptron, 5, nn.Tanh, initialise=xavier), sgd
            ),
            "initialisation": partial(on_digits, partial(perceptron, 5, nn.Tanh), momentum),
            "normalisation": partial(
                on_digits,
                partial(perceptron, 5, nn.Tanh, initialise=partial(normal, 1.5), norm=True),
                sgd,
            ),
        },
        needs_activations=True,
        why="weights of deviation 1.5 keep tanh at its flat ends",
    ),
    failing(
        name="mlp-tanh-late-saturation",
        build=partial(
            on_digits, partial(perceptron, 2, nn.Tanh), momentum, fault=at(120, saturate)
        ),
        steps=250,
        level=0.7,
        kinds=("saturated", "vanishing", "not_learning"),
        onset=120,
        cures={"initialisation": partial(on_digits, partial(perceptron, 2, nn.Tanh), momentum)},
        needs_activations=True,
        why="biases are pushed so far that every unit is at a flat end, whatever the image",
    ),
    failing(
        name="mlp-sigmoid-raw-inputs",
        build=partial(on_digits, lambda: nn.Sequential(Times(1000.0), *two_sigmoid()), momentum),
        steps=250,
        level=0.7,
        kinds=("saturated", "vanishing"),
        cures={
            "look at the data": partial(on_digits, two_sigmoid, momentum),
        },
        needs_activations=True,
        why="inputs that were never scaled leave the first sigmoids flat",
    ),
)

CASES: tuple[Case, ...] = OVER_DEPTH + FLAT
