"""Digits by linear pieces, by capsules that agree, and by filters with holes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields.parts import (
    Task,
    accuracy,
    cross_entropy,
    fit,
)

__all__ = ["CASES"]


def dilated(act: type[nn.Module], depth: int = 4) -> nn.Sequential:
    """Return convolutions with ever wider holes, and the mean over places."""
    layers: list[nn.Module] = []
    for number in range(depth):
        hole = 2 ** (number % 3)
        layers += [nn.Conv2d(16 if number else 1, 16, 3, padding=hole, dilation=hole), act()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))


class Maxout(nn.Module):
    """The largest of a few linear pieces per output.

    Args:
        inputs: Numbers in.
        outputs: Numbers out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pieces = nn.Linear(inputs, 4 * outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the largest pieces."""
        largest: Tensor = self.pieces(inputs).unflatten(1, (-1, 4)).amax(dim=2)
        return largest


def maxout() -> nn.Sequential:
    """Return two layers of maxout with dropout."""
    body = [Maxout(64, 32), nn.Dropout(0.3), Maxout(32, 32), nn.Dropout(0.3)]
    return nn.Sequential(nn.Flatten(), *body, nn.Linear(32, 10))


@torch.no_grad()
def shorten(training: Training, _step: int) -> None:
    """Keep the incoming weights of each unit within a length of one and a half."""
    for weight in training.model.parameters():
        if weight.dim() > 1:
            weight.renorm_(2, 0, 1.5)


class Capsules(nn.Module):
    """Vectors that agree on ten vectors in three rounds; their lengths are the classes.

    Args:
        guard: Added to squared lengths before the root is taken.
    """

    def __init__(self, guard: float = 1e-8) -> None:
        super().__init__()
        self.guard = guard
        self.conv = nn.Conv2d(1, 32, 3, stride=2)
        self.votes = nn.Parameter(0.1 * torch.randn(72, 10, 4, 8))

    def forward(self, images: Tensor) -> Tensor:
        """Return lengths below one."""
        parts = self.conv(images).relu().unflatten(1, (8, 4)).permute(0, 1, 3, 4, 2)
        votes = torch.einsum("bid,icde->bice", self.squash(parts.flatten(1, 3)), self.votes)
        whole = self.squash(votes.sum(dim=1) / 10.0)
        agreement = torch.zeros(votes.shape[:3])
        for _ in range(2):
            agreement = agreement + (votes * whole.unsqueeze(1)).sum(dim=3)
            whole = self.squash((agreement.softmax(dim=2).unsqueeze(3) * votes).sum(dim=1))
        return (whole.square().sum(dim=2) + self.guard).sqrt()

    def squash(self, vectors: Tensor) -> Tensor:
        """Shorten vectors to less than one, short ones most."""
        square = vectors.square().sum(dim=-1, keepdim=True)
        return vectors * square / (1.0 + square) / (square + self.guard).sqrt()


def margins(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return what lengths miss: 0.9 for the right class, 0.1 for the others."""
    lengths, right = model(images), nn.functional.one_hot(classes, 10)
    present = right * (0.9 - lengths).relu().square()
    absent = 0.5 * (1 - right) * (lengths - 0.1).relu().square()
    missed: Tensor = (present + absent).sum(dim=1).mean()
    return missed


def attacked(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the cross entropy of images that were changed to make it as large as can be."""
    images = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(model, images, classes), images)
    return cross_entropy(model, (images + 0.15 * slope.sign()).detach(), classes)


def flat_slope(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the cross entropy, and the squared slope of it over the images."""
    images = images.clone().requires_grad_()
    loss = cross_entropy(model, images, classes)
    (slope,) = torch.autograd.grad(loss, images, create_graph=True)
    total: Tensor = loss + 20.0 * slope.square().sum()
    return total


def small(depth: int = 7, *, deviation: float | None = 0.02) -> nn.Module:
    """Return a dilated net whose weights begin with this deviation, or as He would have them."""
    model = dilated(nn.ReLU, depth)
    for weight in model.parameters():
        if weight.dim() == 4 and deviation is None:
            nn.init.kaiming_normal_(weight)
        elif weight.dim() == 4 and deviation is not None:
            nn.init.normal_(weight, 0.0, deviation)
    return model


Attacked = Task(split=data.digits, loss=attacked, score=accuracy, size=24)
Flat = Task(split=data.digits, loss=flat_slope, score=accuracy, size=32)
Margins = Task(split=data.digits, loss=margins, score=accuracy, size=24)
Digits = Task(split=data.digits, loss=cross_entropy, score=accuracy, size=24)
adam = partial(torch.optim.Adam, lr=2e-3)

CASES: tuple[Case, ...] = (
    Case(
        name="maxout-kept-short",
        family="maxout",
        build=fit(Digits, maxout, partial(torch.optim.SGD, lr=0.1, momentum=0.7), before=shorten),
        steps=300,
        level=0.8,
        why="a quarter of the pieces is used per image; weights are cut to a length in each step",
    ),
    Case(
        name="capsules-agree",
        family="capsules",
        build=fit(Margins, Capsules, partial(torch.optim.Adam, lr=5e-3)),
        steps=250,
        level=0.75,
        why="squashed vectors are short at first, and so are the gradients that pass them",
    ),
    Case(
        name="dilated-attacked",
        family="dilated-conv",
        build=fit(Attacked, partial(dilated, nn.ReLU), partial(torch.optim.RMSprop, lr=1e-3)),
        steps=300,
        level=0.7,
        why="images are changed against the net in every step, so the loss stays high",
    ),
    Case(
        name="dilated-flat-slope",
        family="dilated-conv",
        build=fit(Flat, partial(dilated, nn.SiLU), partial(torch.optim.NAdam, lr=4e-3)),
        steps=250,
        level=0.7,
        why="the loss has the slope over the images in it, so gradients are of second order",
    ),
    Case(
        name="capsules-without-guard",
        family="capsules",
        build=fit(Margins, partial(Capsules, 0.0), adam),
        steps=150,
        level=0.4,
        kinds=("nonfinite",),
        cures={"look at the loss": fit(Margins, Capsules, adam)},
        why="some vectors are exactly zero, and dividing them by their length is 0/0",
    ),
    Case(
        name="dilated-small-weights",
        family="dilated-conv",
        build=fit(Digits, small, partial(torch.optim.SGD, lr=0.02, momentum=0.9)),
        steps=250,
        level=0.4,
        kinds=("vanishing", "not_learning"),
        cures={
            "He initialisation": fit(
                Digits,
                partial(small, deviation=None),
                partial(torch.optim.SGD, lr=0.02, momentum=0.9),
            )
        },
        why="the deviation that transformers begin with leaves a sixth of a signal per layer",
    ),
)
