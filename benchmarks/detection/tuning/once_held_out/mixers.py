"""A mixer of patches, and an encoder-decoder that looks back."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.attention import average, patches
from benchmarks.detection.tuning.once_held_out.layers import Apply, Residual
from benchmarks.detection.tuning.once_held_out.parts import (
    Batch,
    batches,
    fit,
    scheduled,
)

__all__ = ["CASES"]


def mixer(dropout: float = 0.0, *, norm: bool = True) -> nn.Sequential:
    """Return three blocks that mix places and channels in turn."""

    def perceptron(width: int) -> list[nn.Module]:
        return [nn.Linear(width, 64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, width)]

    def normed() -> nn.Module:
        return nn.LayerNorm(32) if norm else nn.Identity()

    turn = partial(Apply, lambda x: x.transpose(1, 2))
    blocks: list[nn.Module] = []
    for _ in range(3):
        blocks += [Residual(normed(), turn(), *perceptron(16), turn())]
        blocks += [Residual(normed(), *perceptron(32))]
    return nn.Sequential(patches(), *blocks, normed(), average(), nn.Linear(32, 10))


class Backwards(nn.Module):
    """A GRU reads a string, another writes it backwards, looking at all states of the first.

    The writer is given the right answer so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 24)
        self.reader = nn.GRU(24, 48, batch_first=True)
        self.writer = nn.GRU(24, 48, batch_first=True)
        self.out = nn.Linear(96, 10)

    def forward(self, strings: Tensor) -> Tensor:
        """Return logits for each place of the answer."""
        states, last = self.reader(self.embed(strings))
        start = torch.full_like(strings[:, :1], 10)
        written, _ = self.writer(self.embed(torch.cat([start, strings.flip(1)[:, :-1]], 1)), last)
        looks = (written @ states.transpose(1, 2)).softmax(dim=-1) @ states
        logits: Tensor = self.out(torch.cat([written, looks], dim=-1))
        return logits


def noisy_classes(_step: int, batch: Batch) -> Batch:
    """Replace a quarter of the classes by random ones."""
    inputs, targets = batch
    is_wrong = torch.rand(len(targets)) < 0.25
    return inputs, torch.where(is_wrong, torch.randint_like(targets, 10), targets)


adamw = partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.1)

CASES: tuple[Case, ...] = (
    Case(
        name="mixer-noisy-classes",
        family="mixer",
        build=fit(
            partial(mixer, 0.5),
            adamw,
            data.digits,
            batches(noisy_classes),
            scheduled(partial(CosineAnnealingLR, T_max=150)),
        ),
        steps=150,
        level=0.7,
        why="a quarter of the classes is wrong, and half of the units are dropped",
    ),
    Case(
        name="backwards-attention",
        family="encoder-decoder",
        build=fit(Backwards, partial(torch.optim.Adam, lr=1e-2), sources.reversed_strings),
        steps=220,
        level=0.6,
        why="the writer has to find out where to look before the loss falls",
    ),
    Case(
        name="mixer-rmsprop-wild",
        family="mixer",
        build=fit(mixer, partial(torch.optim.RMSprop, lr=0.3), data.digits),
        steps=200,
        level=0.5,
        kinds=("diverging", "exploding", "not_learning"),
        cures={
            "lower learning rate": fit(mixer, partial(torch.optim.RMSprop, lr=1e-3), data.digits)
        },
        why="each step is as large as the weights themselves, and the loss leaps about",
    ),
)
