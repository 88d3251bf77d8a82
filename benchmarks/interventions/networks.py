"""The models of this benchmark.

In: sizes. Out: modules with torch's own initialisation, where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.tuning.sequence_models import Reader, Writer

__all__ = [
    "PostNorm",
    "convolutions",
    "half_precision",
    "louder",
    "perceptron",
    "reader",
    "rows_of_images",
    "spectral",
    "writer",
]


def perceptron(
    inputs: int,
    outputs: int,
    *,
    depth: int = 3,
    width: int = 64,
    norm: Callable[[int], nn.Module] = lambda _width: nn.Identity(),
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Return hidden layers of one width, each with a norm and an activation, and a last one."""
    layers: list[nn.Module] = [nn.Flatten()]
    for index in range(depth):
        first = inputs if index == 0 else width
        layers += [nn.Linear(first, width), norm(width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def convolutions(*, norm: bool) -> nn.Sequential:
    """Return three convolutions for images of 8 x 8, with batch norm or without."""
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 12, 1), (12, 24, 2), (24, 24, 2)):
        layers.append(nn.Conv2d(before, after, 3, stride, padding=1))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 10))


def reader(cell: Callable[..., nn.RNNBase], outputs: int, *, inputs: int = 2) -> Reader:
    """Return a recurrent net that answers once."""
    return Reader(cell(inputs, 40, batch_first=True), outputs)


def writer(cell: Callable[..., nn.RNNBase]) -> Writer:
    """Return a recurrent net that names each next character."""
    return Writer(cell(32, 64, batch_first=True))


def spectral(model: Reader, radius: float) -> Reader:
    """Begin with a recurrent matrix that makes everything longer by a factor at each step."""
    nn.init.orthogonal_(model.cell.get_parameter("weight_hh_l0"), gain=radius)
    return model


def louder(model: nn.Module, factor: float) -> nn.Module:
    """Multiply the initial matrices of a model."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(factor)
    return model


class _Half(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        """Return the same in the range and precision of float16: above 65504 is infinite."""
        return values.half().float()


def half_precision(model: nn.Sequential) -> nn.Sequential:
    """Keep what passes between the layers of a perceptron in float16."""
    return nn.Sequential(*(part for layer in model for part in (layer, _Half())))


class PostNorm(nn.Module):
    """Predict the next character after each one, with layer norm last, as in 2017.

    Args:
        blocks: Number of blocks.
        width: Numbers per character.
        length: Characters per sequence.
    """

    def __init__(self, blocks: int = 4, *, width: int = 32, length: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        block = partial(nn.TransformerEncoderLayer, width, 2, 2 * width, 0.0, batch_first=True)
        self.blocks = nn.ModuleList(block() for _ in range(blocks))
        self.register_buffer("mask", torch.ones(length, length).triu(1).bool())
        self.head = nn.Linear(width, 128)

    def forward(self, characters: Tensor) -> Tensor:
        """Return logits ``(n, steps, 128)``."""
        states = self.embedding(characters) + self.places
        for block in self.blocks:
            states = block(states, src_mask=self.mask)
        logits: Tensor = self.head(states)
        return logits


def rows_of_images(*, blocks: int = 3, width: int = 32) -> nn.Module:
    """Return a transformer with layer norm first that reads images row by row."""
    return _Rows(blocks, width)


class _Rows(nn.Module):
    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(8, width)
        self.places = nn.Parameter(torch.randn(8, width) * 0.02)
        block = partial(nn.TransformerEncoderLayer, width, 2, 2 * width, 0.0, batch_first=True)
        self.blocks = nn.ModuleList(block(norm_first=True) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(n, 10)``."""
        states = self.first(images.squeeze(1)) + self.places
        for block in self.blocks:
            states = block(states)
        logits: Tensor = self.head(self.norm(states).mean(dim=1))
        return logits
