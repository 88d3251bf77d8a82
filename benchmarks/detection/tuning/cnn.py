"""Convolutional and residual nets, well and failing."""

from __future__ import annotations

from functools import partial

import torch
from torch.optim import lr_scheduler

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.cnn_models import plain, residual
from benchmarks.detection.tuning.faults import nan_backward, scaled_inputs, spoiled
from benchmarks.detection.tuning.inits import biased, he
from benchmarks.detection.tuning.tasks import digits
from benchmarks.detection.tuning.training import adam, momentum, trained, warmed_up

__all__ = ["CASES"]

plain_cnn = partial(Case, family="cnn")
resnet = partial(Case, family="resnet")
on_digits = partial(trained, partial(digits, batch_size=32))
gentle = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
gentler = partial(torch.optim.SGD, lr=0.005, momentum=0.9)
three = partial(plain, 3)
deep = partial(plain, 12)
adamw = partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.05)

HEALTHY = (
    plain_cnn(
        name="cnn-rmsprop",
        build=partial(on_digits, three, partial(torch.optim.RMSprop, lr=1e-3)),
        steps=250,
        level=0.85,
        why="a small net without normalisation",
    ),
    plain_cnn(
        name="cnn-bias-before-norm",
        build=partial(on_digits, partial(plain, 4, norm=True), gentle),
        steps=200,
        level=0.9,
        why="batch norm takes away what the biases add, so these have no gradient but rounding",
    ),
    plain_cnn(
        name="cnn-bf16",
        build=partial(on_digits, three, adamw, autocast=torch.bfloat16),
        steps=200,
        level=0.85,
        why="the forward pass keeps eight bits of each number",
    ),
    plain_cnn(
        name="cnn-outlier-batch-adam",
        build=partial(
            trained,
            spoiled(partial(digits, batch_size=32), scaled_inputs(1000.0), start=100, stop=101),
            three,
            partial(torch.optim.Adam, lr=2e-3, betas=(0.9, 0.99)),
        ),
        steps=350,
        level=0.85,
        why="one batch is a thousand times too large; Adam's second moment takes the blow",
    ),
    resnet(
        name="resnet-cosine",
        build=partial(on_digits, partial(residual, 4), gentle, schedule=warmed_up(10, 150)),
        steps=150,
        level=0.9,
        why="nine layers with batch norm and a rate that ends at zero",
    ),
    resnet(
        name="resnet-zero-gamma",
        build=partial(on_digits, partial(residual, 3, zero_gamma=True), gentle),
        steps=150,
        level=0.9,
        why="every branch begins at zero, so its convolutions have no gradient on the first step",
    ),
)

VANISHING = (
    plain_cnn(
        name="cnn-plain12",
        build=partial(on_digits, deep, momentum),
        steps=150,
        level=0.7,
        kinds=("vanishing", "not_learning"),
        cures={
            "He initialisation": partial(on_digits, partial(deep, initialise=he), gentler),
            "normalisation": partial(on_digits, partial(deep, norm=True), gentle),
            "skip connections": partial(on_digits, partial(residual, 6, zero_gamma=True), gentle),
        },
        why="torch's default weights are too small for 12 convolutions in a row",
    ),
    plain_cnn(
        name="cnn-dead-at-birth",
        build=partial(on_digits, partial(plain, 3, initialise=partial(biased, -8.0)), adam),
        steps=200,
        level=0.7,
        kinds=("dead", "vanishing", "not_learning"),
        cures={
            "initialisation": partial(on_digits, three, adam),
            "He initialisation": partial(on_digits, partial(plain, 3, initialise=he), adam),
            "normalisation": partial(
                on_digits, partial(plain, 3, initialise=partial(biased, -8.0), norm=True), adam
            ),
        },
        why="biases of -8 keep the channels silent",
    ),
    plain_cnn(
        name="cnn-dead-by-rate",
        build=partial(on_digits, three, partial(torch.optim.Adam, lr=0.3)),
        steps=200,
        level=0.7,
        kinds=("dead", "diverging", "not_learning", "exploding"),
        cures={
            "lower learning rate": partial(on_digits, three, adam),
        },
        why="Adam at 0.3 throws the channels below zero in the first steps",
    ),
)

OTHERS = (
    plain_cnn(
        name="cnn-large-gain",
        build=partial(on_digits, partial(plain, 6, initialise=partial(he, gain=4.0)), gentle),
        steps=150,
        level=0.7,
        kinds=("exploding", "nonfinite", "diverging", "dead"),
        cures={
            "He initialisation": partial(on_digits, partial(plain, 6, initialise=he), gentle),
            "normalisation": partial(
                on_digits, partial(plain, 6, initialise=partial(he, gain=4.0), norm=True), gentle
            ),
        },
        why="each layer multiplies the signal by four",
    ),
    resnet(
        name="resnet-without-norm",
        build=partial(on_digits, partial(residual, 6, norm=False, initialise=he), gentle),
        steps=150,
        level=0.7,
        kinds=("exploding", "nonfinite", "diverging", "dead"),
        cures={
            "normalisation": partial(on_digits, partial(residual, 6, initialise=he), gentle),
        },
        why="without normalisation each of six residual blocks adds as much again",
    ),
    plain_cnn(
        name="cnn-schedule-dead",
        build=partial(
            on_digits,
            three,
            momentum,
            schedule=lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: step == 0),
        ),
        steps=150,
        level=0.7,
        kinds=("not_learning",),
        onset=1,
        cures={"schedule": partial(on_digits, three, momentum)},
        why="a schedule counted in epochs is at zero after one step",
    ),
    plain_cnn(
        name="cnn-nan-backward",
        build=partial(on_digits, three, gentle, fault=nan_backward(80, 2)),
        steps=150,
        level=0.7,
        kinds=("nonfinite",),
        onset=80,
        cures={"backward pass": partial(on_digits, three, gentle)},
        why="one layer's own backward function divides nothing by nothing from a step on",
    ),
)

CASES: tuple[Case, ...] = HEALTHY + VANISHING + OTHERS
