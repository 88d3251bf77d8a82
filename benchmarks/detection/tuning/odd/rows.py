"""A table of which most rows are never asked for.

In: bags of words. Out: a case with weight decay, which moves all rows alike, asked for or not.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.tasks import bags
from benchmarks.detection.tuning.training import trained

__all__ = ["CASES"]


class Hashed(nn.Module):
    """Words are thrown into twenty thousand rows by two hashes, and their vectors added."""

    def __init__(self, rows: int = 20_000) -> None:
        super().__init__()
        self.rows = rows
        self.table = nn.EmbeddingBag(rows, 8, mode="sum")
        nn.init.normal_(self.table.weight, std=0.1)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, words: Tensor) -> Tensor:
        """Return logits ``(n, 5)``."""
        hashed = torch.cat([words * 7919 % self.rows, (words * 104729 + 17) % self.rows], dim=1)
        logits: Tensor = self.head(self.norm(self.table(hashed)))
        return logits


CASES: tuple[Case, ...] = (
    Case(
        name="hashed-words-decay",
        family="hashed-embedding",
        build=partial(trained, bags, Hashed, partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)),
        steps=250,
        level=0.7,
        why="four rows in five never have a gradient, and weight decay is all that moves them",
    ),
)
