"""Data made by arithmetic, for tasks that pictures of digits do not set.

In: sizes. Out: splits, always the same ones, whatever the seed of a training.
"""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor

from benchmarks.detection import data
from benchmarks.detection.data import Split

__all__ = [
    "after_marker",
    "characters",
    "digit_pairs",
    "first_symbol",
    "number_sets",
    "ratings",
    "reversed_strings",
    "rows_of_digits",
    "sine",
    "topic_pairs",
]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _cut(inputs: Tensor, targets: Tensor) -> Split:
    cut = len(inputs) * 4 // 5
    return inputs[:cut], targets[:cut], inputs[cut:], targets[cut:]


@lru_cache(maxsize=4)
def first_symbol(length: int) -> Split:
    """Return strings over eight symbols, begun by one of four, which is the class."""
    strings = torch.randint(4, 8, (2000, length), generator=_generator())
    strings[:, 0] -= 4
    return _cut(strings, strings[:, 0])


@lru_cache(maxsize=1)
def after_marker() -> Split:
    """Return strings of 12 symbols with one marker, 8; the symbol behind it is the class."""
    generator = _generator()
    strings = torch.randint(8, (4000, 12), generator=generator)
    places = torch.randint(11, (4000, 1), generator=generator)
    strings.scatter_(1, places, 8)
    return _cut(strings, strings.gather(1, places + 1).squeeze(1))


@lru_cache(maxsize=1)
def reversed_strings() -> Split:
    """Return strings of six symbols out of ten, and the same backwards."""
    strings = torch.randint(10, (4000, 6), generator=_generator())
    return _cut(strings, strings.flip(1))


@lru_cache(maxsize=1)
def number_sets() -> Split:
    """Return sets of ten numbers ``(n, 10, 1)``, and the largest less the smallest."""
    sets = torch.randn(3000, 10, 1, generator=_generator())
    return _cut(sets, sets.amax(dim=1) - sets.amin(dim=1))


@lru_cache(maxsize=1)
def ratings() -> Split:
    """Return pairs of a user below 60 and an item below 50, and a rating of rank 3."""
    draw = partial(torch.randn, generator=_generator())
    table = draw(60, 3) @ draw(3, 50) / 3**0.5
    pairs = torch.cartesian_prod(torch.arange(60), torch.arange(50))
    pairs = pairs[torch.randperm(len(pairs), generator=_generator())]
    return _cut(pairs, table[pairs[:, 0], pairs[:, 1]])


@lru_cache(maxsize=1)
def topic_pairs() -> Split:
    """Return words below 120 and words near them, nine in ten of the same one of ten topics.

    The topic of a word is its number modulo ten.
    """
    generator = _generator()
    words = torch.randint(120, (12000,), generator=generator)
    near = words % 10 + 10 * torch.randint(12, (12000,), generator=generator)
    far = torch.randint(120, (12000,), generator=generator)
    is_far = torch.rand(12000, generator=generator) < 0.1
    return _cut(words, torch.where(is_far, far, near))


@lru_cache(maxsize=1)
def characters() -> Split:
    """Return passages of 24 characters, and the same one character on."""
    text = data.text()
    starts = torch.randint(len(text) - 25, (6000,), generator=_generator())
    passages = text[starts[:, None] + torch.arange(25)]
    return _cut(passages[:, :-1], passages[:, 1:])


@lru_cache(maxsize=1)
def rows_of_digits() -> Split:
    """Return digits as sequences of eight rows of eight pixels."""
    inputs, targets, held_inputs, held_targets = data.digits()
    return inputs.squeeze(1), targets, held_inputs.squeeze(1), held_targets


@lru_cache(maxsize=1)
def digit_pairs() -> Split:
    """Return two digits side by side ``(n, 2, 8, 8)``, and the classes of both ``(n, 2)``."""
    inputs, targets, held_inputs, held_targets = data.digits()

    def paired(images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        other = torch.randperm(len(images), generator=_generator())
        return torch.cat([images, images[other]], 1), torch.stack([classes, classes[other]], 1)

    return *paired(inputs, targets), *paired(held_inputs, held_targets)


@lru_cache(maxsize=1)
def sine() -> Split:
    """Return 64 points on one turn, and their sine; held out: 50 others."""
    inputs, held_inputs = (torch.linspace(0.0, 6.28, n).unsqueeze(1) for n in (64, 50))
    return inputs, inputs.sin(), held_inputs, held_inputs.sin()
