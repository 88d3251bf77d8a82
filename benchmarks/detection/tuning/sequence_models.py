"""Recurrent nets and a small transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Reader", "Transformer", "Writer", "long_memory", "orthogonal"]


class Reader(nn.Module):
    """Read a sequence to its end, then answer.

    Args:
        cell: Reads ``(n, steps, inputs)``; images ``(n, 1, rows, columns)`` are read row by row.
        outputs: Numbers in the answer.
    """

    def __init__(self, cell: nn.RNNBase, outputs: int) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the answer ``(n, outputs)``."""
        states, _ = self.cell(inputs.reshape(len(inputs), -1, self.cell.input_size))
        answer: Tensor = self.head(states[:, -1])
        return answer


class Writer(nn.Module):
    """Predict the next character after each one.

    Args:
        cell: Reads the embedded characters.
    """

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, cell.input_size)
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, 128)

    def forward(self, characters: Tensor) -> Tensor:
        """Return logits ``(n, steps, 128)``."""
        states, _ = self.cell(self.embedding(characters))
        logits: Tensor = self.head(states)
        return logits


def orthogonal(cell: nn.RNNBase, *, gain: float = 1.0) -> nn.RNNBase:
    """Begin with an orthogonal recurrent matrix, times a gain, and no bias."""
    for name, parameter in cell.named_parameters():
        if "weight_hh" in name:
            nn.init.orthogonal_(parameter, gain=gain)
        elif "bias" in name:
            nn.init.zeros_(parameter)
    return cell


def long_memory(cell: nn.LSTM, *, forget_bias: float) -> nn.LSTM:
    """Begin with forget gates that are nearly open."""
    with torch.no_grad():
        bias = cell.get_parameter("bias_ih_l0")
        bias[cell.hidden_size : 2 * cell.hidden_size] = forget_bias
    return cell


class _Block(nn.Module):
    """Attention and a perceptron, each after a layer norm and beside an identity."""

    def __init__(self, width: int, length: int, scale: float | None) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scales: nn.ParameterList | tuple[float, float] = (1.0, 1.0)
        if scale is not None:
            self.scales = nn.ParameterList(torch.full((width,), scale) for _ in range(2))
        self.register_buffer("mask", torch.ones(length, length).triu(1).bool())

    def forward(self, inputs: Tensor) -> Tensor:
        seen = self.before_attention(inputs)
        mixed, _ = self.attention(seen, seen, seen, attn_mask=self.mask, need_weights=False)
        inputs = inputs + self.scales[0] * mixed
        fed: Tensor = inputs + self.scales[1] * self.feed(self.before_feed(inputs))
        return fed


class Transformer(nn.Module):
    """Predict the next character after each one, with layer norm first.

    Args:
        blocks: Number of blocks.
        width: Numbers per character.
        length: Characters per sequence.
        tied: Whether the last layer shares its weights with the embedding.
        scale: Where the learned scale of each branch begins; None has no scales.
        cut: Applied to the states before the head.
    """

    def __init__(
        self,
        blocks: int = 2,
        *,
        width: int = 32,
        length: int = 24,
        tied: bool = False,
        scale: float | None = None,
        cut: Callable[[Tensor], Tensor] = lambda states: states,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, length, scale) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 128, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.1)
        if tied:
            self.head.weight = self.embedding.weight
        self.cut = cut

    def forward(self, characters: Tensor) -> Tensor:
        """Return logits ``(n, steps, 128)``."""
        states = self.blocks(self.embedding(characters) + self.places)
        logits: Tensor = self.head(self.cut(self.norm(states)))
        return logits
