"""More models of this benchmark, for what `measurements` gives.

In: sizes. Out: modules with torch's own initialisation, where nothing else is said.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Attention", "Feedback", "autoencoder", "convolutions_1d"]


def convolutions_1d(outputs: int, *, norm: bool, width: int = 16) -> nn.Sequential:
    """Return three convolutions along sequences of numbers, with group norm or without."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Unflatten(1, (1, -1))]
    for before in (1, width, width):
        layers.append(nn.Conv1d(before, width, 5, 2, padding=2))
        layers += [nn.GroupNorm(4, width), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(4 * width, outputs)
    )


def autoencoder(*, width: int = 48, code: int = 16) -> nn.Sequential:
    """Return what puts 64 numbers into a few, and takes them out again."""
    return nn.Sequential(
        nn.Linear(64, width),
        nn.SiLU(),
        nn.Linear(width, code),
        nn.Linear(code, width),
        nn.SiLU(),
        nn.Linear(width, 64),
    )


class Attention(nn.Module):
    """Answer what the first row of ``(n, rows, inputs)`` asks of the others.

    Args:
        inputs: Numbers per row.
        outputs: Logits.
        width: Numbers per row within.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits ``(n, outputs)``."""
        states = self.first(rows)
        asked, stored = states[:, :1], states[:, 1:]
        found = functional.scaled_dot_product_attention(
            self.query(asked), self.key(stored), self.value(stored)
        )
        logits: Tensor = self.head(found.squeeze(1))
        return logits


class Feedback(nn.Module):
    """Add to a state at each value of ``(n, length, 1)``, and answer from the last state.

    Args:
        gain: By how much the state grows at each value, where nothing is learned yet.
        width: Numbers in the state.
    """

    def __init__(self, gain: float, *, width: int = 32) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(1, width), nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.leave.weight, gain=gain)
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, values: Tensor) -> Tensor:
        """Return numbers ``(n, 1)``."""
        state = torch.zeros(len(values), self.leave.out_features)
        for entered in self.enter(values).unbind(dim=1):
            state = functional.silu(self.leave(state)) + entered
        answer: Tensor = self.head(state)
        return answer
