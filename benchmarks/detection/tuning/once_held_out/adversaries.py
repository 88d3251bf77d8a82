"""Two nets against each other."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.once_held_out.autoencoders import decoder
from benchmarks.detection.tuning.once_held_out.parts import (
    Build,
)

__all__ = ["CASES"]


def critic() -> nn.Sequential:
    """Return a judge of images, with the slope of its last layer bounded by spectral norm."""
    first, second = nn.Conv2d(1, 12, 4, 2, 1), nn.Conv2d(12, 16, 4, 2, 1)
    last = parametrizations.spectral_norm(nn.Linear(64, 1))
    act = partial(nn.LeakyReLU, 0.2)
    return nn.Sequential(first, act(), second, act(), nn.Flatten(), last)


def adversaries(rate: float) -> Build:
    """Return the training of a generator against a critic, which steps first, at one rate."""

    def build() -> Training:
        images, _, held_out, _ = data.digits()
        pair = nn.ModuleDict({"critic": critic(), "generator": decoder(8, 8)})
        judge, generate = pair["critic"], pair["generator"]

        def loss(real: Tensor, index: int) -> Tensor:
            fake = judge(generate(torch.randn(len(real), 8)))
            if index == 1:
                won: Tensor = (fake - 1.0).square().mean()
                return won
            told: Tensor = ((judge(real) - 1.0).square() + fake.square()).mean()
            return told

        def score() -> float:
            error = generate(torch.randn(500, 8)).mean(dim=0) - held_out.mean(dim=0)
            return 1.0 - float(error.square().mean() / held_out.mean(dim=0).var())

        return Training(
            model=pair,
            optimizers=[
                torch.optim.Adam(part.parameters(), lr=rate, betas=(0.5, 0.99))
                for part in (judge, generate)
            ],
            batch=lambda _step: images[torch.randint(len(images), (24,))],
            loss=loss,
            score=score,
        )

    return build


CASES: tuple[Case, ...] = (
    Case(
        name="least-squares-adversaries",
        family="conv-gan",
        build=adversaries(2e-3),
        steps=250,
        level=0.3,
        why="two nets against each other: neither loss is meant to fall",
    ),
)
