"""Weight decay a hundred times too strong, from the start.

In: images of digits, whole and row by row. Out: cases in which weights shrink to nothing.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.sequence_models import Reader
from benchmarks.detection.tuning.tasks import digits
from benchmarks.detection.tuning.training import trained

__all__ = ["CASES"]


def reader() -> Reader:
    """Return a GRU that reads images row by row."""
    return Reader(nn.GRU(8, 32, batch_first=True), 10)


net = partial(perceptron, 4, nn.Tanh)
strong = partial(torch.optim.AdamW, lr=2e-3, weight_decay=50.0)
usual = partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.5)

CASES: tuple[Case, ...] = (
    Case(
        name="mlp-decayed-from-the-start",
        family="mlp",
        build=partial(trained, digits, net, strong),
        steps=250,
        level=0.7,
        kinds=("not_learning", "vanishing"),
        cures={"weight decay": partial(trained, digits, net, usual)},
        why="a weight decay of 50 for 0.5: what the loss asks for is never more than what is lost",
    ),
    Case(
        name="gru-decayed-from-the-start",
        family="gru",
        build=partial(trained, digits, reader, strong),
        steps=250,
        level=0.7,
        kinds=("not_learning", "vanishing"),
        cures={"weight decay": partial(trained, digits, reader, usual)},
        why="a weight decay of 50 for 0.5 shuts what the gates should hold",
    ),
)
