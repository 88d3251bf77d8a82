"""Embeddings of images by comparison: triplets and pairs."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out.parts import (
    Batch,
    batches,
    fit,
)

__all__ = ["CASES"]


@lru_cache(maxsize=1)
def few_digits() -> data.Split:
    """Return noughts, ones and twos."""
    inputs, targets, held_inputs, held_targets = data.digits()
    kept, held = targets < 3, held_targets < 3
    return inputs[kept], targets[kept], held_inputs[held], held_targets[held]


def embedder() -> nn.Sequential:
    """Return a small net from digits to eight numbers."""
    first = nn.Conv2d(1, 12, 3, stride=2, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(192, 8))


def triplets(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the hinge of each image with one of its class and one of another."""
    codes = model(inputs)
    same = targets[:, None] == targets
    friend = torch.multinomial(same.float(), 1).squeeze(1)
    stranger = torch.multinomial((~same).float(), 1).squeeze(1)
    near = (codes - codes[friend]).square().sum(dim=1)
    far = (codes - codes[stranger]).square().sum(dim=1)
    hinge: Tensor = (near - far + 1.0).relu().mean()
    return hinge


def contrast(model: nn.Module, inputs: Tensor, targets: Tensor, *, least: float = 0.0) -> Tensor:
    """Return distances of pairs of one class, and what pairs of two lack to a distance of 2."""
    codes, others = model(inputs).chunk(2)
    classes, other_classes = targets.chunk(2)
    distance = ((codes - others).square().sum(dim=1) + least).sqrt()
    is_same = classes == other_classes
    return torch.where(is_same, distance, (2.0 - distance).relu()).mean()


def centres_right(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of images nearest to the centre of their own class."""
    codes = model(inputs)
    centres = torch.stack([codes[targets == digit].mean(dim=0) for digit in range(3)])
    return float((torch.cdist(codes, centres).argmin(dim=1) == targets).float().mean())


def twins(step: int, batch: Batch) -> Batch:
    """Add noise; pair an image with itself at step 90 and every 20 steps from there on."""
    inputs, targets = batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1].clone()
    if step >= 90 and step % 20 == 10:
        inputs[16], targets[16] = inputs[0], targets[0]
    return inputs, targets


SGD, Adam = torch.optim.SGD, torch.optim.Adam

CASES: tuple[Case, ...] = (
    Case(
        name="triplets-all-apart",
        family="siamese",
        build=fit(
            embedder, partial(Adam, lr=5e-3), few_digits, criterion=triplets, score=centres_right
        ),
        steps=200,
        level=0.95,
        why="once all triplets are apart the loss is exactly zero, and so are all gradients",
    ),
    Case(
        name="contrast-twins",
        family="siamese",
        build=fit(
            embedder,
            partial(Adam, lr=2e-3),
            few_digits,
            batches(twins),
            criterion=contrast,
            score=centres_right,
        ),
        steps=180,
        level=0.6,
        kinds=("nonfinite",),
        onset=90,
        cures={
            "backward pass": fit(
                embedder,
                partial(Adam, lr=2e-3),
                few_digits,
                batches(twins),
                criterion=partial(contrast, least=1e-6),
                score=centres_right,
            )
        },
        why="the root of a distance of zero has no slope: the loss is sound, its gradient is NaN",
    ),
)
