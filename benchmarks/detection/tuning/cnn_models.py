"""Convolutional nets for images of eight by eight."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from benchmarks.detection.tuning.perceptrons import Skip, initialised

__all__ = ["plain", "residual"]


def plain(
    depth: int,
    *,
    width: int = 8,
    norm: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
    initialise: Callable[[nn.Linear | nn.Conv2d], None] | None = None,
) -> nn.Sequential:
    """Return convolutions in a row; each has a bias, even where a batch norm follows."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Conv2d(width if index else 1, width, 3, padding=1)]
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers += [activation()]
    return _with_head(layers, width, initialise)


def residual(
    blocks: int,
    *,
    width: int = 8,
    norm: bool = True,
    zero_gamma: bool = False,
    initialise: Callable[[nn.Linear | nn.Conv2d], None] | None = None,
) -> nn.Sequential:
    """Return blocks of two convolutions, each with an identity beside it."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1)]
    for _ in range(blocks):
        block: list[nn.Module] = []
        for _ in range(2):
            block += [nn.Conv2d(width, width, 3, padding=1, bias=not norm)]
            block += [nn.BatchNorm2d(width)] if norm else []
            block += [nn.ReLU()]
        last = block[-2]
        if zero_gamma and isinstance(last, nn.BatchNorm2d):
            nn.init.zeros_(last.weight)
        layers += [Skip(*block[:-1]), nn.ReLU()]
    return _with_head(layers, width, initialise)


def _with_head(
    layers: list[nn.Module], width: int, initialise: Callable[[nn.Linear | nn.Conv2d], None] | None
) -> nn.Sequential:
    pooled = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width * 16, 10)]
    model = nn.Sequential(*layers, *pooled)
    return model if initialise is None else initialised(model, initialise)
