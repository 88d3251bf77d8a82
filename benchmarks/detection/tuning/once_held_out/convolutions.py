"""Convolutional classifiers of digits: dense, depthwise, and with scaled residuals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out.layers import Joined, LayerScale, Residual
from benchmarks.detection.tuning.once_held_out.parts import Batch, batches, fit, scheduled

__all__ = ["CASES", "head"]

Norm = Callable[[int], nn.Module]


def head(channels: int) -> nn.Sequential:
    """Return what turns maps of features into ten classes."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 10))


def densenet(layers: int = 5) -> nn.Sequential:
    """Return a net in which each layer sees the outputs of all before it."""
    body: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1)]
    for channels in range(16, 16 + 8 * layers, 8):
        norm, convolution = nn.BatchNorm2d(channels), nn.Conv2d(channels, 8, 3, padding=1)
        body.append(Joined(nn.Identity(), nn.Sequential(norm, nn.ReLU(), convolution)))
        if channels == 16:
            body.append(nn.AvgPool2d(2))
    return nn.Sequential(*body, head(16 + 8 * layers))


def convnext(depth: int = 3, scale: float = 1e-6) -> nn.Sequential:
    """Return residual blocks of a depthwise and two pointwise convolutions, scaled per channel."""
    blocks = [
        Residual(
            nn.Conv2d(24, 24, 3, padding=1, groups=24),
            nn.GroupNorm(1, 24),
            nn.Conv2d(24, 96, 1),
            nn.GELU(),
            nn.Conv2d(96, 24, 1),
            LayerScale(24, scale),
        )
        for _ in range(depth)
    ]
    return nn.Sequential(nn.Conv2d(1, 24, 2, stride=2), *blocks, nn.GroupNorm(1, 24), head(24))


def separable(depth: int, norm: Norm | None = None) -> nn.Sequential:
    """Return depthwise and pointwise convolutions in turn, without skip connections."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 2, stride=2), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)]
        layers += [nn.ReLU()] if norm is None else [norm(16), nn.ReLU()]
    return nn.Sequential(*layers, head(16))


def hot_pixel(step: int, batch: Batch) -> Batch:
    """Have one pixel of one image overflow, from step 90 on and every 40 steps."""
    inputs, targets = batch
    if step >= 90 and (step - 90) % 40 == 0:
        inputs = inputs.clone()
        inputs[0, 0, 3, 3] = torch.inf
    return inputs, targets


def without_overflow(_step: int, batch: Batch) -> Batch:
    """Bring every pixel back into its range."""
    return batch[0].clamp(-3.0, 3.0), batch[1]


sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
warm_cosine = partial(
    LambdaLR,
    lr_lambda=lambda step: min((step + 1) / 30, 0.5 + 0.5 * torch.tensor(step / 63.8).cos().item()),
)
group_norm: Norm = partial(nn.GroupNorm, 4)

CASES: tuple[Case, ...] = (
    Case(
        name="densenet-onecycle",
        family="densenet",
        build=fit(
            densenet,
            partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
            data.digits,
            scheduled(partial(OneCycleLR, max_lr=0.1, total_steps=161)),
        ),
        steps=160,
        level=0.93,
        why="the rate climbs to 25 times its start and falls to nearly nothing, as planned",
    ),
    Case(
        name="convnext-layer-scale",
        family="convnext",
        build=fit(
            convnext,
            partial(torch.optim.AdamW, lr=4e-3, weight_decay=0.1),
            data.digits,
            scheduled(warm_cosine),
        ),
        steps=200,
        level=0.85,
        why="the blocks count for a millionth at first, so their gradients are tiny; rate to zero",
    ),
    Case(
        name="separable-batch-of-two",
        family="depthwise-separable",
        build=fit(
            partial(separable, 2, group_norm),
            partial(torch.optim.SGD, lr=0.03),
            data.digits,
            batch_size=2,
        ),
        steps=900,
        level=0.65,
        why="two images a step: gradients are mostly noise, yet it learns",
    ),
    Case(
        name="separable12-plain",
        family="depthwise-separable",
        build=fit(partial(separable, 12), sgd, data.digits),
        steps=150,
        level=0.35,
        kinds=("vanishing", "not_learning"),
        cures={"normalisation": fit(partial(separable, 12, nn.BatchNorm2d), sgd, data.digits)},
        why="default weights of 24 convolutions without norm or skip shrink every signal",
    ),
    Case(
        name="densenet-hot-pixel",
        family="densenet",
        build=fit(densenet, sgd, data.digits, batches(hot_pixel)),
        steps=180,
        level=0.5,
        kinds=("nonfinite",),
        onset=90,
        cures={
            "look at the data": fit(
                densenet, sgd, data.digits, batches(hot_pixel), batches(without_overflow)
            )
        },
        why="one pixel of one image is infinite and turns batch norm, then all weights, into NaN",
    ),
)
