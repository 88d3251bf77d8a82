"""A net of sines, with a frequency that other nets would not survive.

In: a picture of 32 by 32. Out: a case that fits it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.tasks import explained
from benchmarks.detection.tuning.training import Task, trained

__all__ = ["CASES"]

OMEGA = 30.0


class Wave(nn.Module):
    """A linear layer and the sine of thirty times its output.

    Args:
        inputs: Numbers that go in.
        outputs: Numbers that come out.
        bound: Largest weight at first, times the number of inputs.
    """

    def __init__(self, inputs: int, outputs: int, bound: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        nn.init.uniform_(self.linear.weight, -bound / inputs, bound / inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return numbers between -1 and 1."""
        return torch.sin(OMEGA * self.linear(inputs))


def waves() -> nn.Sequential:
    """Return three layers of waves and a linear one, whose weights are tiny from the start."""
    bound = (6.0 * 48) ** 0.5 / OMEGA
    last = nn.Linear(48, 1)
    nn.init.uniform_(last.weight, -bound / 48, bound / 48)
    return nn.Sequential(Wave(2, 48, 1.0), Wave(48, 48, bound), Wave(48, 48, bound), last)


def picture() -> Task:
    """Fit the 1,024 pixels of a sheet of 16 digits, given their places."""
    images, *_ = data.digits()
    sheet = images[:16].reshape(4, 4, 8, 8).transpose(1, 2).reshape(-1, 1)
    line = torch.linspace(-1.0, 1.0, 32)
    places = torch.cartesian_prod(line, line)
    return Task(
        draw=lambda _step: (places, sheet),
        loss=lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
        score=lambda model: explained(model(places), sheet),
    )


CASES: tuple[Case, ...] = (
    Case(
        name="sines-fit-a-picture",
        family="implicit-field",
        build=partial(trained, picture, waves, partial(torch.optim.Adam, lr=1e-3)),
        steps=250,
        level=0.8,
        why="weights of a few hundredths and a frequency of thirty, in every layer",
    ),
)
