"""A pair of adversaries with two optimizers, among the random healthy runs.

In: what draws. Out: the training. How good the generator is says the energy distance of its points
to true ones, beside that of the best constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Training
from benchmarks.detection.population.dice import Dice
from benchmarks.detection.population.models import mlp
from benchmarks.detection.population.rule import Skill

__all__ = ["Duel", "drawn", "made"]

NOISE = 4
LOOKED_AT = 300


@dataclass(frozen=True, kw_only=True)
class Duel:
    """What was drawn.

    Attributes:
        number: Decides what is random in the training.
        steps: Steps of each of the two optimizers.
        width: Hidden units in each layer.
        rate: Of the judge.
        batch_size: Points, true and generated.
        family: Architecture.
    """

    number: int
    steps: int
    width: int
    rate: float
    batch_size: int
    family: str = "gan"


class _Pair(nn.Module):
    """The two adversaries."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.generator = mlp(NOISE, 2, widths=(width, width), activation="leaky")
        self.judge = mlp(2, 1, widths=(width, width), activation="leaky")

    def loss(self, true: Tensor, index: int) -> Tensor:
        """Return the loss of the judge, or with index one that of the generator."""
        points = self.generator(torch.randn(len(true), NOISE))
        if index == 1:
            return nn.functional.softplus(-self.judge(points)).mean()
        right = nn.functional.softplus(-self.judge(true)).mean()
        return right + nn.functional.softplus(self.judge(points.detach())).mean()


def drawn(dice: Dice, number: int) -> Duel:
    """Draw a pair."""
    return Duel(
        number=number,
        steps=dice.randint(220, 280),
        width=dice.randint(16, 40),
        rate=2e-3 * dice.log_uniform(1 / 2, 2),
        batch_size=round(dice.log_uniform(32, 64)),
    )


def made(duel: Duel) -> Training:
    """Return the training; its score is the skill of the generator."""
    pair = _Pair(duel.width)
    centre = nn.functional.normalize(torch.randn(2), dim=0) * 1.5

    def truth(count: int) -> Tensor:
        return centre + torch.randn(count, 2) * torch.tensor([1.0, 0.5])

    true, noise = truth(LOOKED_AT), torch.randn(LOOKED_AT, NOISE)
    constant = true.mean(dim=0, keepdim=True)

    def quality() -> float:
        return 1.0 - _distance(pair.generator(noise), true) / _distance(constant, true)

    # A generator that is slower than its judge keeps the two from running in circles.
    rates = ((pair.judge, duel.rate), (pair.generator, 0.5 * duel.rate))
    betas = (0.5, 0.999)
    return Training(
        model=pair,
        optimizers=[torch.optim.Adam(part.parameters(), lr, betas) for part, lr in rates],
        batch=lambda _: truth(duel.batch_size),
        loss=pair.loss,
        score=Skill(pair, quality, chance=0.0, good=0.9),
    )


def _distance(some: Tensor, others: Tensor) -> float:
    """Return the energy distance of two clouds of points."""
    between = torch.cdist(some, others).mean()
    return float(
        2.0 * between - torch.cdist(some, some).mean() - torch.cdist(others, others).mean()
    )
