"""Data for sequences: the standard library's own text, and strings, sets and signals made up.

In: sizes. Out: splits, always the same ones, whatever the seed of a training.
"""

from __future__ import annotations

import argparse
import math
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.detection.data import Split

__all__ = [
    "adding",
    "brackets",
    "code",
    "distinct",
    "generator",
    "modules",
    "next_characters",
    "order_of_flags",
    "recall",
    "series",
    "split",
    "tones",
]

MODULES = ("argparse", "calendar", "difflib", "fractions", "heapq", "tarfile", "textwrap", "turtle")


def generator() -> torch.Generator:
    """Return a source of randomness that is always the same."""
    return torch.Generator().manual_seed(0)


def split(inputs: Tensor, targets: Tensor) -> Split:
    """Hold the last fifth out."""
    cut = len(inputs) * 4 // 5
    return inputs[:cut], targets[:cut], inputs[cut:], targets[cut:]


@lru_cache(maxsize=1)
def code() -> tuple[Tensor, ...]:
    """Return the sources of eight modules of the standard library, as numbers below 128."""
    folder = Path(argparse.__file__).parent
    pages = [(folder / f"{name}.py").read_text("utf-8") for name in MODULES]
    return tuple(torch.tensor([ord(c) for c in page if ord(c) < 128]) for page in pages)


@lru_cache(maxsize=4)
def modules(length: int) -> Split:
    """Return 4000 passages of code, and which of eight modules each is from."""
    draw = generator()
    targets = torch.randint(len(MODULES), (4000,), generator=draw)
    starts = torch.rand(4000, generator=draw)
    rows = [
        (text := code()[int(which)])[(begin := int(start * (len(text) - length))) : begin + length]
        for which, start in zip(targets, starts, strict=True)
    ]
    return split(torch.stack(rows), targets)


@lru_cache(maxsize=4)
def next_characters(length: int) -> Split:
    """Return passages of code, and the same one character on."""
    passages, _, held_out, _ = modules(length + 1)
    return passages[:, :-1], passages[:, 1:], held_out[:, :-1], held_out[:, 1:]


@lru_cache(maxsize=2)
def brackets(length: int) -> Split:
    """Return strings of opening (1) and closing (0) brackets, and how many are open, up to 7."""
    opens = torch.randint(2, (3000, length), generator=generator())
    depth, depths = torch.zeros(3000, dtype=torch.long), []
    for place in opens.T:
        depth = (depth + 2 * place - 1).clamp(0, 7)
        depths.append(depth)
    return split(opens, torch.stack(depths, dim=1))


@lru_cache(maxsize=4)
def adding(length: int) -> Split:
    """Return pairs of a number and a mark ``(n, length, 2)``, and the sum of two marked numbers."""
    draw = generator()
    numbers = torch.rand(4000, length, generator=draw)
    half = length // 2
    places = torch.randint(half, (4000, 2), generator=draw) + torch.tensor([0, half])
    marks = torch.zeros(4000, length).scatter_(1, places, 1.0)
    return split(torch.stack([numbers, marks], dim=2), (numbers * marks).sum(1, keepdim=True) - 1.0)


@lru_cache(maxsize=4)
def order_of_flags(length: int) -> Split:
    """Return strings of noise (0 to 3) with two flags (4 or 5) in the first fifth: four classes."""
    draw = generator()
    strings = torch.randint(4, (3000, length), generator=draw)
    flags = torch.randint(2, (3000, 2), generator=draw)
    early = length // 10
    places = torch.randint(early, (3000, 2), generator=draw) + torch.tensor([0, early])
    strings.scatter_(1, places, flags + 4)
    return split(strings, 2 * flags[:, 0] + flags[:, 1])


@lru_cache(maxsize=2)
def recall(pairs: int) -> Split:
    """Return keys (0 to 9) and values (10 to 17) in turn, then a key; its value is the class."""
    draw = generator()
    keys = torch.rand(6000, 10, generator=draw).argsort(dim=1)[:, :pairs]
    values = torch.randint(8, (6000, pairs), generator=draw)
    asked = torch.randint(pairs, (6000, 1), generator=draw)
    strings = torch.stack([keys, values + 10], dim=2).flatten(1)
    strings = torch.cat([strings, keys.gather(1, asked)], dim=1)
    return split(strings, values.gather(1, asked).squeeze(1))


@lru_cache(maxsize=1)
def distinct() -> Split:
    """Return sets of eight numbers below 10, and how many differ, less one."""
    sets = torch.randint(10, (4000, 8), generator=generator())
    return split(sets, torch.tensor([len(set(row)) - 1 for row in sets.tolist()]))


@lru_cache(maxsize=1)
def series() -> Split:
    """Return 36 points of series with a trend and two seasons, and the 12 points after them."""
    draw = generator()
    time = torch.arange(48.0)
    level, slope, phase, size = torch.rand(4, 2500, 1, generator=draw)
    waves = size * (time / 6 * math.tau / 2 + phase * math.tau).sin()
    waves += (1 - size) * (time / 16 * math.tau + 3 * phase).cos()
    rows = level + (slope - 0.5) * time / 24 + waves
    rows += 0.1 * torch.randn(rows.shape, generator=draw)
    return split(rows[:, :36], rows[:, 36:])


@lru_cache(maxsize=1)
def tones() -> Split:
    """Return noisy tones of 256 samples ``(n, 1, 256)`` at one of six pitches, and the pitch."""
    draw = generator()
    targets = torch.randint(6, (1500,), generator=draw)
    phase = math.tau * torch.rand(1500, 1, generator=draw)
    pitch = 0.15 * 1.35 ** targets.unsqueeze(1)
    sounds = (pitch * torch.arange(256.0) + phase).sin()
    sounds += 0.7 * torch.randn(sounds.shape, generator=draw)
    return split(sounds.unsqueeze(1), targets)
