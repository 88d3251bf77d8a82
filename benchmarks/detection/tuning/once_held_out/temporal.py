"""Temporal convolutions, and one layer that is applied again and again."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.layers import Apply, Residual
from benchmarks.detection.tuning.once_held_out.parts import changed, fit

__all__ = ["CASES"]


class Causal(nn.Conv1d):
    """A convolution that sees the past only.

    Args:
        channels: Of inputs and outputs.
        dilation: Steps between the two taps.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(channels, channels, 2, dilation=dilation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pad on the left, then convolve."""
        return super().forward(nn.functional.pad(inputs, (self.dilation[0], 0)))


def temporal(*, tied: bool = True, gain: float = 1.0) -> nn.Sequential:
    """Return dilated convolutions that foretell the next character; first and last layer tied."""
    first, last = nn.Embedding(128, 32), nn.Linear(32, 128, bias=False)
    nn.init.normal_(first.weight, std=0.2 * gain)
    if tied:
        last.weight = first.weight
    blocks = [Residual(Causal(32, dilation), nn.ReLU()) for dilation in (1, 2, 4, 8)]
    return nn.Sequential(
        first, Apply(lambda x: x.transpose(1, 2)), *blocks, Apply(lambda x: x.transpose(1, 2)), last
    )


class Rolled(nn.Module):
    """One residual layer applied again and again, a crude solver of a differential equation.

    Args:
        gain: Of the shared weights.
    """

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.shared = nn.Linear(32, 32)
        nn.init.normal_(self.shared.weight, std=gain * 32**-0.5)
        nn.init.zeros_(self.shared.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Take thirty steps."""
        state: Tensor = self.first(inputs.flatten(1))
        for _ in range(30):
            state = state + torch.relu(self.shared(state))
        logits: Tensor = self.last(state)
        return logits


CASES: tuple[Case, ...] = (
    Case(
        name="tcn-tied-always-clipped",
        family="temporal-conv",
        build=fit(
            temporal,
            partial(torch.optim.SGD, lr=3.0, momentum=0.9),
            sources.characters,
            changed(clip_norm=0.1),
        ),
        steps=220,
        level=0.27,
        why="every step is clipped, and one matrix is both the first layer and the last",
    ),
    Case(
        name="rolled-residual-swells",
        family="weight-tied",
        build=fit(partial(Rolled, 2.0), partial(torch.optim.SGD, lr=0.003), data.digits),
        steps=150,
        level=0.4,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={
            "initialisation": fit(
                partial(Rolled, 0.02), partial(torch.optim.SGD, lr=0.003), data.digits
            ),
        },
        why="thirty passes through one residual layer, each of which more than doubles the state",
    ),
    Case(
        name="tcn-rate-too-large",
        family="temporal-conv",
        build=fit(temporal, partial(torch.optim.SGD, lr=60.0, momentum=0.9), sources.characters),
        steps=150,
        level=0.24,
        kinds=("exploding", "diverging", "nonfinite"),
        cures={
            "lower learning rate": fit(
                temporal, partial(torch.optim.SGD, lr=0.3, momentum=0.9), sources.characters
            ),
            "clip by norm": fit(
                temporal,
                partial(torch.optim.SGD, lr=3.0, momentum=0.9),
                sources.characters,
                changed(clip_norm=0.1),
            ),
        },
        why="a rate a hundred times too large blows the residual sums up within a few steps",
    ),
)
