"""Convolutional nets on digits: squeeze and excite, inception, shuffled groups."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields.parts import (
    Apply,
    Task,
    accuracy,
    cross_entropy,
    fit,
    perceptron,
)

__all__ = ["CASES"]


class Excited(nn.Module):
    """A convolution whose channels are weighed by what all places say together.

    Args:
        inputs: Channels in.
        outputs: Channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.squeeze = perceptron(outputs, outputs // 4, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return weighed channels."""
        channels = self.conv(images).relu()
        weights = self.squeeze(channels.mean(dim=(2, 3))).sigmoid()
        weighed: Tensor = channels * weights[:, :, None, None]
        return weighed


def excited(bias: float | None = None) -> nn.Sequential:
    """Return three layers with squeeze and excitation; all biases can be set."""
    layers = [Excited(1, 16), Excited(16, 24), nn.MaxPool2d(2), Excited(24, 24)]
    model = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10))
    if bias is not None:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(parameter, bias)
    return model


class Inception(nn.Module):
    """Filters of several sizes side by side.

    Args:
        inputs: Channels in.
        width: Channels out, per branch.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, width, 1)
        self.three = nn.Sequential(
            nn.Conv2d(inputs, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.five = nn.Sequential(
            nn.Conv2d(inputs, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 5, padding=2)
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inputs, width, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return all branches' channels."""
        branches = (self.one, self.three, self.five, self.pooled)
        return torch.cat([branch(images) for branch in branches], dim=1).relu()


def inception() -> nn.Sequential:
    """Return two blocks of four branches, and dropout before the last layer."""
    return nn.Sequential(
        Inception(1, 6),
        nn.MaxPool2d(2),
        Inception(24, 8),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(128, 10),
    )


def shuffled() -> nn.Sequential:
    """Return convolutions in four groups, whose channels are shuffled between."""

    def mix(images: Tensor) -> Tensor:
        grouped = images.view(len(images), 4, -1, *images.shape[2:])
        return grouped.transpose(1, 2).flatten(1, 2)

    def block(inputs: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, 32, 3, padding=1, groups=4, bias=False)
        return [conv, nn.BatchNorm2d(32), nn.Hardswish(), Apply(mix)]

    return nn.Sequential(
        nn.Conv2d(1, 16, 2, stride=2), *block(16), *block(32), nn.Flatten(), nn.Linear(512, 10)
    )


def smoothed(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the cross entropy with a tenth of each target spread over all classes."""
    return nn.functional.cross_entropy(model(images), classes, label_smoothing=0.1)


def held_back(training: Training, step: int) -> None:
    """Put the slow average into the net, and forget to take it out again."""
    model = training.model
    if step == 0:
        for name, parameter in list(model.named_parameters()):
            model.register_buffer(f"slow_{name.replace('.', '_')}", parameter.detach().clone())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            average = model.get_buffer(f"slow_{name.replace('.', '_')}")
            parameter.copy_(average.lerp_(parameter, 5e-4))


def slow_start(step: int, *, steps: int) -> float:
    """Return the share of the full rate in a warm-up of so many steps."""
    return min((step + 1) / steps, 1.0)


Digits = Task(split=data.digits, loss=cross_entropy, score=accuracy, size=24)
Smoothed = Task(split=data.digits, loss=smoothed, score=accuracy, size=32)
Few = Task(split=data.digits, loss=cross_entropy, score=accuracy, size=6)
sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
adam = partial(torch.optim.Adam, lr=2e-3)
adamax = partial(torch.optim.Adamax, lr=0.01)

CASES: tuple[Case, ...] = (
    Case(
        name="excited-restarts",
        family="squeeze-excite",
        build=fit(Digits, excited, sgd, schedule=partial(CosineAnnealingWarmRestarts, T_0=60)),
        steps=420,
        level=0.75,
        why="the rate goes to zero and back six times, and nothing is learned before the third",
    ),
    Case(
        name="inception-smoothed",
        family="inception",
        build=fit(Smoothed, inception, adamax, autocast=torch.bfloat16),
        steps=250,
        level=0.75,
        why="smoothed targets keep the loss high, dropout makes it noisy, numbers have eight bits",
    ),
    Case(
        name="shuffled-batch-of-six",
        family="shuffle-net",
        build=fit(
            Few, shuffled, partial(torch.optim.Adadelta, lr=0.5), accumulate=4, short_every=25
        ),
        steps=120,
        level=0.75,
        why="batch norm over six images, four batches to a step, and one only at each end",
    ),
    Case(
        name="excited-prior-everywhere",
        family="squeeze-excite",
        build=fit(Digits, partial(excited, -4.6), sgd),
        steps=320,
        level=0.4,
        kinds=("dead", "not_learning", "vanishing"),
        cures={"initialisation": fit(Digits, excited, sgd)},
        why="the bias that is meant for the last layer, for rare classes, was given to all layers",
    ),
    Case(
        name="inception-warms-forever",
        family="inception",
        build=fit(
            Digits,
            inception,
            sgd,
            schedule=partial(LambdaLR, lr_lambda=partial(slow_start, steps=10_000_000)),
        ),
        steps=250,
        level=0.6,
        kinds=("not_learning",),
        cures={
            "schedule": fit(
                Digits,
                inception,
                sgd,
                schedule=partial(LambdaLR, lr_lambda=partial(slow_start, steps=50)),
            )
        },
        why="the warm-up is as long as a training of weeks, so the rate never gets anywhere",
    ),
    Case(
        name="shuffled-held-back",
        family="shuffle-net",
        build=fit(Digits, shuffled, adam, before=held_back),
        steps=200,
        level=0.5,
        kinds=("not_learning",),
        why="the slow average of the weights is put into the net before each step, and stays there",
    ),
)
