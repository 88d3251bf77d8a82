"""A learned bank of filters that tells the pitch of a tone."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.parts import Batch, Build, fit, on_batches, using

__all__ = ["CASES"]


class FilterBank(nn.Module):
    """Learned windows of learned pitch, their loudness in decades, and a linear layer.

    Args:
        floor: Added to the loudness before its logarithm.
    """

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.pitch = nn.Parameter(torch.linspace(-2.5, 0.5, 16))
        self.norm, self.out = nn.LayerNorm(16), nn.Linear(16, 6)
        self.floor = floor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of the pitch."""
        time = torch.arange(33.0) * self.pitch.exp().unsqueeze(1)
        window = torch.hann_window(33, periodic=False)
        waves = torch.stack([time.cos(), time.sin()]) * window
        bands = nn.functional.conv1d(inputs, waves.view(32, 1, 33), stride=8)
        power = bands.square().mean(dim=2).view(-1, 2, 16).sum(dim=1)
        logits: Tensor = self.out(self.norm((power + self.floor).log() / math.log(10.0)))
        return logits


def silenced(step: int, sounds: Tensor, targets: Tensor) -> Batch:
    """Send one recording that is silent throughout, now and then from step 90 on."""
    if step >= 90 and step % 15 == 0:
        sounds = sounds.clone()
        sounds[0] = 0.0
    return sounds, targets


def bank(floor: float) -> Build:
    """Return a training of the bank of filters that is sent silence at times."""
    rate = using(torch.optim.AdamW, lr=2e-2)
    return fit(partial(FilterBank, floor), rate, sources.tones, on_batches(silenced))


CASES: tuple[Case, ...] = (
    Case(
        name="filter-bank-resilient",
        family="filter-bank",
        build=fit(
            partial(FilterBank, 1e-6),
            using(torch.optim.Rprop, lr=1e-3),
            sources.tones,
            batch_size=None,
        ),
        steps=120,
        level=0.8,
        why="sixteen pitches decide all, and steps grow or halve by the sign of the gradient",
    ),
    Case(
        name="filter-bank-silence",
        family="filter-bank",
        build=bank(0.0),
        steps=160,
        level=0.5,
        kinds=("nonfinite",),
        onset=90,
        cures={"look at the loss": bank(1e-6)},
        why="a recording of nothing but zeros has no logarithm of its loudness",
    ),
)
