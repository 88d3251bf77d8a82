"""Transformers, on patches of digits and on strings."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.layers import Apply, Residual
from benchmarks.detection.tuning.once_held_out.parts import (
    changed,
    each_step,
    fit,
    scheduled,
)

__all__ = ["CASES", "average", "patches"]


class Places(nn.Module):
    """A learned vector per place, added.

    Args:
        count: Places.
        width: Of the vectors.
        deviation: Of their numbers at first.
    """

    def __init__(self, count: int, width: int, deviation: float = 0.02) -> None:
        super().__init__()
        self.vectors = nn.Parameter(deviation * torch.randn(count, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Add them."""
        return inputs + self.vectors


def patches() -> nn.Sequential:
    """Return what cuts a digit into 16 patches of four pixels and embeds them in 32 numbers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 2, stride=2), nn.Flatten(2), Apply(lambda x: x.transpose(1, 2))
    )


def average() -> Apply:
    """Return the mean over places."""
    return Apply(lambda x: x.mean(dim=1))


def vision(depth: int = 2) -> nn.Sequential:
    """Return a pre-norm transformer over patches."""
    blocks = [block(norm_first=True) for _ in range(depth)]
    return nn.Sequential(
        patches(), Places(16, 32), *blocks, nn.LayerNorm(32), average(), nn.Linear(32, 10)
    )


def block(*, norm_first: bool) -> nn.TransformerEncoderLayer:
    """Return attention and perceptron, 32 numbers wide, without dropout."""
    return nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True, norm_first=norm_first)


def post_norm(depth: int) -> nn.Sequential:
    """Return a transformer over strings with the norms behind the sums, as at first."""
    blocks = [block(norm_first=False) for _ in range(depth)]
    places = Places(12, 32, 1.0)
    return nn.Sequential(nn.Embedding(9, 32), places, *blocks, average(), nn.Linear(32, 8))


class Masked(nn.Module):
    """Attention among places, of which a mask can hide all.

    Args:
        safe: Whether hidden places count as very unlikely rather than impossible.
    """

    def __init__(self, *, safe: bool = False) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(32, 96)
        self.hidden = -1e4 if safe else -torch.inf
        self.hide = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Return mixtures of values."""
        queries, keys, values = self.queries_keys_values(inputs).chunk(3, dim=-1)
        weights = queries @ keys.transpose(1, 2) / 32**0.5
        if self.hide:
            weights = weights.masked_fill(torch.ones_like(weights, dtype=torch.bool), self.hidden)
        mixed: Tensor = weights.softmax(dim=-1) @ values
        return mixed


def masking(*, safe: bool = False) -> nn.Sequential:
    """Return two blocks of attention that can be masked."""
    blocks = [Residual(nn.LayerNorm(32), Masked(safe=safe), nn.Linear(32, 32)) for _ in range(2)]
    return nn.Sequential(patches(), Places(16, 32), *blocks, average(), nn.Linear(32, 10))


def mask_all(training: Training, step: int) -> None:
    """Hide every place in the second block at step 110 and every 30 steps from there on."""
    second = training.model.get_submodule("3.body.1")
    second.hide = step >= 110 and step % 30 == 20  # type: ignore[assignment]


adam = partial(torch.optim.Adam, lr=3e-3)
adamw = partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.1)
warm_up = scheduled(partial(LambdaLR, lr_lambda=lambda step: min((step + 1) / 60, 1.0)))

CASES: tuple[Case, ...] = (
    Case(
        name="vit-bf16",
        family="vision-transformer",
        build=fit(vision, adamw, data.digits, changed(autocast=torch.bfloat16)),
        steps=200,
        level=0.65,
        why="matrix products in bfloat16",
    ),
    Case(
        name="post-norm-warm-up",
        family="post-norm-transformer",
        build=fit(
            partial(post_norm, 3), partial(torch.optim.Adam, lr=2e-3), sources.after_marker, warm_up
        ),
        steps=300,
        level=0.6,
        why="norms behind the sums need the slow start that this run has",
    ),
    Case(
        name="vit-tiny-rate",
        family="vision-transformer",
        build=fit(vision, partial(torch.optim.AdamW, lr=1e-7), data.digits),
        steps=200,
        level=0.5,
        kinds=("not_learning",),
        cures={"higher learning rate": fit(vision, adamw, data.digits)},
        why="a rate ten thousand times too small",
    ),
    Case(
        name="attention-all-masked",
        family="masked-attention",
        build=fit(masking, adam, data.digits, each_step(mask_all)),
        steps=200,
        level=0.5,
        kinds=("nonfinite",),
        onset=110,
        cures={
            "look at the loss": fit(
                partial(masking, safe=True), adam, data.digits, each_step(mask_all)
            )
        },
        why="a softmax over places that are all impossible is 0/0 in one layer",
    ),
)
