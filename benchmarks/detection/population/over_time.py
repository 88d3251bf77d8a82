"""Models over time of the random healthy runs: recurrent ones and transformers.

In: what was drawn. Out: a model that reads rows of numbers, or, with ``read="each"``, tokens, and
then says at each step what comes next.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["recurrent", "transformer"]


class _OverTime(nn.Module):
    """A core over time, read at its last step, on average, or at each step."""

    def __init__(self, first: nn.Module, core: nn.Module, head: nn.Module, read: str) -> None:
        super().__init__()
        self.first, self.core, self.head, self.read = first, core, head, read

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(n, outputs)``, or ``(n, time, outputs)`` if each step is read."""
        states = self.core(self.first(inputs))
        states = states[0] if isinstance(states, tuple) else states
        if self.read != "each":
            states = states[:, -1] if self.read == "last" else states.mean(dim=1)
        output: Tensor = self.head(states)
        return output


def recurrent(
    inputs: int, outputs: int, *, kind: str, width: int, layers: int, read: str
) -> nn.Module:
    """Return an RNN, LSTM or GRU with orthogonal recurrent matrices.

    With ``read="each"``, inputs are that many kinds of tokens.
    """
    first: nn.Module = nn.Identity()
    if read == "each":
        first, inputs = nn.Embedding(inputs, width), width
    core = getattr(nn, kind)(inputs, width, num_layers=layers, batch_first=True)
    for name, parameter in core.named_parameters():
        if name.startswith("weight_hh"):
            for part in parameter.detach().split(width):
                nn.init.orthogonal_(part)
    return _OverTime(first, core, nn.Linear(width, outputs), read)


class _Attention(nn.Module):
    """Layers of attention that normalise first; ``causal`` ones see no later step."""

    def __init__(self, width: int, layers: int, length: int, *, causal: bool) -> None:
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        self.register_buffer("mask", mask if causal else None)

    def forward(self, states: Tensor) -> Tensor:
        """Return states of the same shape."""
        states = states + self.places
        for layer in self.layers:
            states = layer(states, src_mask=self.mask)
        normed: Tensor = self.norm(states)
        return normed


def transformer(
    inputs: int, outputs: int, *, width: int, layers: int, length: int, read: str
) -> nn.Module:
    """Return a pre-LN transformer; with ``read="each"``, over tokens, and causal."""
    first = nn.Embedding(inputs, width) if read == "each" else nn.Linear(inputs, width)
    core = _Attention(width, layers, length, causal=read == "each")
    return _OverTime(first, core, nn.Linear(width, outputs), read)
