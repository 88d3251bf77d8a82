"""Low-rank adapters for a net that stays as it is."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Task,
    accuracy,
    cross_entropy,
    fit,
    perceptron,
)

__all__ = ["CASES"]


class Adapted(nn.Module):
    """A frozen layer and, added to it, the product of two narrow ones.

    Args:
        layer: Is frozen.
        both_zero: Whether both narrow layers begin at zero, and not only the second.
    """

    def __init__(self, layer: nn.Linear, *, both_zero: bool) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(requires_grad=False)
        self.down = nn.Linear(layer.in_features, 6, bias=False)
        self.up = nn.Linear(6, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)
        if both_zero:
            nn.init.zeros_(self.down.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum."""
        total: Tensor = self.layer(inputs) + self.up(self.down(inputs))
        return total


def adapted(*, both_zero: bool = False) -> nn.Sequential:
    """Return a net that was trained on digits, frozen, with adapters."""
    inputs, targets, *_ = sources.flat_digits()
    base = perceptron(64, 48, 48, 10)
    optimizer = torch.optim.Adam(base.parameters(), lr=3e-3)
    for _ in range(120):
        rows = torch.randint(len(inputs), (64,))
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(base, inputs[rows], targets[rows]))
        optimizer.step()
    return nn.Sequential(
        *(Adapted(m, both_zero=both_zero) if isinstance(m, nn.Linear) else m for m in base)
    )


def upside_down(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of digits that were turned upside down."""
    return cross_entropy(model, inputs.flip(1), targets)


def turned_accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the accuracy on digits that were turned upside down."""
    return accuracy(model, inputs.flip(1), targets)


Turned = Task(split=sources.flat_digits, loss=upside_down, score=turned_accuracy, size=32)
adamw = partial(torch.optim.AdamW, lr=0.01)

CASES: tuple[Case, ...] = (
    Case(
        name="adapters-turned",
        family="low-rank-adapters",
        build=fit(Turned, adapted, adamw, clip_norm=1.0),
        steps=250,
        level=0.75,
        why="most weights are frozen, and half of the others have no gradient on the first step",
    ),
    Case(
        name="adapters-both-zero",
        family="low-rank-adapters",
        build=fit(Turned, partial(adapted, both_zero=True), adamw),
        steps=200,
        level=0.6,
        kinds=("not_learning", "vanishing"),
        cures={"initialisation": fit(Turned, adapted, adamw)},
        why="both factors of each adapter begin at zero, so neither ever has a gradient",
    ),
)
