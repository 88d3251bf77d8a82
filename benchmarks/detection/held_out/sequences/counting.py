"""Sets: latents that ask them, counts of what differs, and a pointer to their middle."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.attention import Attention, Block, Perceiver
from benchmarks.detection.held_out.sequences.parts import changed, fit, using, warm_up

__all__ = ["CASES"]


@lru_cache(maxsize=1)
def patches() -> Split:
    """Return digits as sets of 16 elements: four pixels, and waves of the place."""
    inputs, targets, held_inputs, held_targets = data.digits()
    places = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    waves = torch.cat([(places * 0.8).sin(), (places * 1.6).sin(), (places * 0.8).cos()], dim=1)

    def as_set(images: Tensor) -> Tensor:
        pixels = nn.functional.unfold(images, 2, stride=2).transpose(1, 2)
        return torch.cat([pixels, waves.expand(len(images), -1, -1)], dim=2)

    return as_set(inputs), targets, as_set(held_inputs), held_targets


class SetCounter(nn.Module):
    """Blocks over a set, pooled by one learned question.

    Args:
        width: Of each element.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, width)
        mix = Attention(width, 4, "none", causal=False)
        self.block, self.question = Block(mix, width), nn.Parameter(torch.randn(1, 1, width))
        self.pool = nn.MultiheadAttention(width, 4, batch_first=True)
        self.out = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of how many differ."""
        elements = self.block(self.embed(inputs))
        question = self.question.expand(len(inputs), -1, -1)
        logits: Tensor = self.out(self.pool(question, elements, elements)[0].squeeze(1))
        return logits


@lru_cache(maxsize=1)
def middles() -> Split:
    """Return seven numbers ``(n, 7, 1)``, and the place of the fourth largest."""
    numbers = torch.rand(5000, 7, generator=sources.generator())
    return sources.split(numbers.unsqueeze(2), numbers.argsort(dim=1)[:, 3])


class Pointer(nn.Module):
    """An LSTM reads numbers, and the place of the middle one is pointed at.

    Args:
        width: Of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.LSTM(1, width, batch_first=True, bidirectional=True)
        self.place, self.ask = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.point = nn.Linear(width, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return one logit per place."""
        states = self.read(inputs)[0]
        asked = self.ask(states.mean(dim=1, keepdim=True))
        pointed: Tensor = self.point(torch.tanh(self.place(states) + asked)).squeeze(2)
        return pointed


Adam = torch.optim.Adam
bf16 = changed(autocast=torch.bfloat16)

CASES: tuple[Case, ...] = (
    Case(
        name="perceiver-patches",
        family="perceiver",
        build=fit(partial(Perceiver, 10, 32, 6, 10), using(torch.optim.RAdam, lr=7e-3), patches),
        steps=240,
        level=0.55,
        why="six learned vectors look at 16 patches, whose order no one tells",
    ),
    Case(
        name="set-transformer-counts",
        family="set-transformer",
        build=fit(
            partial(SetCounter, 32), using(torch.optim.Adamax, lr=5e-3), sources.distinct, bf16
        ),
        steps=300,
        level=0.7,
        why="how many of eight elements differ, by attention without places, in bfloat16",
    ),
    Case(
        name="pointer-to-median",
        family="pointer-network",
        build=fit(partial(Pointer, 32), using(Adam, lr=1e-2), middles, warm_up(30), batch_size=64),
        steps=450,
        level=0.5,
        why="classes are places of the input, and a plateau comes first",
    ),
)
