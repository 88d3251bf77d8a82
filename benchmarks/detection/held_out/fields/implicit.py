"""Pictures as functions of the place: nets of sines, and waves before a net."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Task,
    explained,
    fit,
    perceptron,
    squared_error,
)

__all__ = ["CASES"]


class Sines(nn.Module):
    """A linear layer and the sine of it.

    Args:
        inputs: Numbers in.
        outputs: Numbers out.
        pace: What the sum is multiplied by before the sine.
        reach: Largest weight at first; `None` for torch's own.
    """

    def __init__(self, inputs: int, outputs: int, pace: float, reach: float | None) -> None:
        super().__init__()
        self.linear, self.pace = nn.Linear(inputs, outputs), pace
        if reach is not None:
            nn.init.uniform_(self.linear.weight, -reach, reach)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return sines."""
        sines: Tensor = (self.pace * self.linear(inputs)).sin()
        return sines


def siren(
    depth: int = 3, *, pace: float = 20.0, inner: float = 20.0, own: bool = False
) -> nn.Sequential:
    """Return a net of sines from a place to a brightness.

    Args:
        depth: Layers of sines.
        pace: Of the first layer, and what the weights of the others are divided by.
        inner: Of the others.
        own: Whether weights begin as torch would have them.
    """
    width = 48
    reach = None if own else (6.0 / width) ** 0.5 / pace
    others = [Sines(width, width, inner, reach) for _ in range(depth - 1)]
    return nn.Sequential(Sines(2, width, pace, 0.5), *others, nn.Linear(width, 1))


class Waves(nn.Module):
    """Sines and cosines of fixed random directions.

    Args:
        count: Directions.
        spread: Deviation of their frequencies.
    """

    def __init__(self, count: int, spread: float) -> None:
        super().__init__()
        self.register_buffer("directions", spread * torch.randn(2, count))

    def forward(self, places: Tensor) -> Tensor:
        """Return twice as many numbers as directions."""
        turns = places @ self.get_buffer("directions")
        return torch.cat([turns.sin(), turns.cos()], dim=1)


def waves() -> nn.Sequential:
    """Return waves and a small net behind them."""
    return nn.Sequential(Waves(48, 7.0), *perceptron(96, 48, 48, 1, act=nn.GELU))


adam = partial(torch.optim.Adam, lr=1e-3)
momentum = partial(torch.optim.SGD, lr=3e-4, momentum=0.9)
radam = partial(torch.optim.RAdam, lr=5e-3)
nadam = partial(torch.optim.NAdam, lr=2e-3)
Picture = Task(split=sources.picture, loss=squared_error, score=explained, size=256)

CASES: tuple[Case, ...] = (
    Case(
        name="sines-picture",
        family="siren",
        build=fit(Picture, siren, adam, schedule=partial(ExponentialLR, gamma=0.995)),
        steps=500,
        level=0.6,
        why="sines all the way: a picture with waves is learned place by place",
    ),
    Case(
        name="waves-picture",
        family="fourier-features",
        build=fit(Picture, waves, radam),
        steps=400,
        level=0.6,
        why="fixed random waves are half of the net, and the first forty steps hardly help",
    ),
    Case(
        name="sines-unscaled",
        family="siren",
        build=fit(Picture, partial(siren, 5, own=True), momentum),
        steps=300,
        level=0.3,
        kinds=("exploding", "diverging", "nonfinite", "not_learning"),
        cures={"initialisation": fit(Picture, partial(siren, 5), momentum)},
        why="weights are not divided by the pace of the sines: slopes of ten in each layer",
    ),
    Case(
        name="sines-pace-forgotten",
        family="siren",
        build=fit(Picture, partial(siren, 7, inner=1.0), momentum),
        steps=300,
        level=0.3,
        kinds=("vanishing", "not_learning"),
        cures={"initialisation": fit(Picture, partial(siren, 7), momentum)},
        why="weights are divided by a pace that the forward pass forgets to multiply with",
    ),
    Case(
        name="waves-nadam-wild",
        family="fourier-features",
        build=fit(Picture, waves, partial(torch.optim.NAdam, lr=0.5)),
        steps=250,
        level=0.4,
        kinds=("diverging", "exploding"),
        cures={"lower learning rate": fit(Picture, waves, nadam)},
        why="every weight moves by a half in every step",
    ),
)
