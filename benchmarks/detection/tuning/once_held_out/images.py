"""Nets from images to images: a U-Net and a denoiser."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out.layers import Joined, scale_weights_
from benchmarks.detection.tuning.once_held_out.parts import (
    explained,
    fit,
    loss_times,
    squared_error,
)

__all__ = ["CASES", "mirror"]


@lru_cache(maxsize=1)
def mirror() -> data.Split:
    """Return digits, and the same as targets."""
    inputs, _, held_inputs, _ = data.digits()
    return inputs, inputs, held_inputs, held_inputs


@lru_cache(maxsize=1)
def soiled() -> data.Split:
    """Return digits under noise, and the clean ones."""
    inputs, _, held_inputs, _ = data.digits()
    generator = torch.Generator().manual_seed(0)

    def noise(images: Tensor) -> Tensor:
        return images + 0.7 * torch.randn(images.shape, generator=generator)

    return noise(inputs), inputs, noise(held_inputs), held_inputs


def double(channels: int, width: int) -> nn.Sequential:
    """Return two convolutions."""
    first = nn.Conv2d(channels, width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())


def unet(gain: float = 1.0) -> nn.Module:
    """Return a U-Net of two scales, its weights multiplied by a gain."""
    up = nn.Upsample(scale_factor=2)
    inner = nn.Sequential(nn.AvgPool2d(2), double(24, 24), up)
    middle = nn.Sequential(
        nn.AvgPool2d(2), double(12, 24), Joined(nn.Identity(), inner), double(48, 24), up
    )
    net = nn.Sequential(
        double(1, 12), Joined(nn.Identity(), middle), double(36, 12), nn.Conv2d(12, 1, 1)
    )
    return scale_weights_(net, gain)


def denoiser() -> nn.Sequential:
    """Return convolutions that tell the noise from an image and the level of its noise."""
    return nn.Sequential(double(2, 16), double(16, 16), nn.Conv2d(16, 1, 3, padding=1))


def told_noise(model: nn.Module, images: Tensor, _targets: Tensor) -> Tensor:
    """Return the squared error of the noise that is told, noise levels at random."""
    level = torch.rand(len(images), 1, 1, 1).expand_as(images)
    noise = torch.randn_like(images)
    mixed = (1.0 - level).sqrt() * images + level.sqrt() * noise
    return nn.functional.mse_loss(model(torch.cat([mixed, level], dim=1)), noise)


def noise_explained(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Return the share of the noise that is told."""
    return 1.0 - float(told_noise(model, images, targets))


rmsprop = partial(torch.optim.RMSprop, lr=1e-3)
adam = partial(torch.optim.Adam, lr=4e-3)
regress = partial(fit, criterion=squared_error, score=explained)
tell = partial(fit, criterion=told_noise, score=noise_explained)

CASES: tuple[Case, ...] = (
    Case(
        name="unet-cleans-rmsprop",
        family="u-net",
        build=regress(unet, rmsprop, soiled),
        steps=180,
        level=0.6,
        why="two scales with skips between them, without any norm",
    ),
    Case(
        name="denoiser-conv",
        family="denoiser",
        build=tell(denoiser, adam, mirror),
        steps=220,
        level=0.5,
        why="noise of random level keeps the loss from ever settling",
    ),
    Case(
        name="unet-large-weights",
        family="u-net",
        build=regress(partial(unet, 6.0), partial(torch.optim.SGD, lr=0.02), soiled),
        steps=120,
        level=0.3,
        kinds=("exploding", "nonfinite", "diverging", "dead"),
        cures={
            "initialisation": regress(partial(unet, 1.5), partial(torch.optim.SGD, lr=0.02), soiled)
        },
        why="weights six times too large in eleven convolutions: squared errors beyond all scale",
    ),
    Case(
        name="denoiser-wrong-sign",
        family="denoiser",
        build=tell(denoiser, partial(torch.optim.Adam, lr=1e-3), mirror, loss_times(-1.0)),
        steps=200,
        level=0.1,
        kinds=("diverging", "exploding"),
        cures={"look at the loss": tell(denoiser, partial(torch.optim.Adam, lr=1e-3), mirror)},
        why="the error is made as large as it can be, and it grows without end",
    ),
)
