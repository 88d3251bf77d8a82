"""Hand-written recurrent cells, one place after the other in a loop of Python.

In: vectors ``(batch, places, width)``. Out: states of the same shape. Nothing here knows a case.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Diagonal", "Looped", "Minimal", "QuasiRecurrent", "Tagger"]


class Minimal(nn.Module):
    """A minimal gated unit: one gate both forgets and resets.

    Args:
        width: Of inputs and states.
        gate: Bias of the gate at first; far above zero keeps nothing, below zero nearly all.
    """

    def __init__(self, width: int, gate: float) -> None:
        super().__init__()
        self.gate, self.new = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        nn.init.constant_(self.gate.bias, gate)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all states."""
        state, states = torch.zeros_like(inputs[:, 0]), []
        for place in inputs.unbind(dim=1):
            gate = torch.sigmoid(self.gate(torch.cat([place, state], dim=1)))
            new = torch.tanh(self.new(torch.cat([place, gate * state], dim=1)))
            state = (1.0 - gate) * state + gate * new
            states.append(state)
        return torch.stack(states, dim=1)


class Looped(nn.Module):
    """One of torch's cells, called in a loop.

    Args:
        cell: An `nn.RNNCell`, `nn.GRUCell` or `nn.LSTMCell`.
    """

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all states."""
        state, states = None, []
        for place in inputs.unbind(dim=1):
            state = self.cell(place, state)
            states.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(states, dim=1)


class QuasiRecurrent(nn.Module):
    """Convolutions make gates and values for all places; only the mixing is a loop.

    Args:
        width: Of inputs and states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, 3 * width, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all states, each gated."""
        mixed = self.mix(nn.functional.pad(inputs.transpose(1, 2), (1, 0))).transpose(1, 2)
        new, forget, out = mixed.chunk(3, dim=2)
        fresh, kept = torch.tanh(new) * torch.sigmoid(-forget), torch.sigmoid(forget)
        state, states = torch.zeros_like(inputs[:, 0]), []
        for place in range(inputs.shape[1]):
            state = kept[:, place] * state + fresh[:, place]
            states.append(state)
        return torch.stack(states, dim=1) * torch.sigmoid(out)


class Diagonal(nn.Module):
    """A linear recurrence in which each number of the state has a factor of its own.

    Args:
        width: Of inputs and states.
        least: Smallest factor at first.
        most: Largest factor at first.
    """

    def __init__(self, width: int, least: float, most: float) -> None:
        super().__init__()
        self.enter = nn.Linear(width, width)
        self.factor = nn.Parameter(torch.linspace(least, most, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all states."""
        entered = self.enter(inputs)
        state, states = torch.zeros_like(entered[:, 0]), []
        for place in entered.unbind(dim=1):
            state = self.factor * state + place
            states.append(state)
        return torch.stack(states, dim=1)


class Tagger(nn.Module):
    """Recurrent bodies between an embedding and logits.

    Args:
        bodies: Each keeps the shape ``(batch, places, width)``.
        symbols: Size of the alphabet, or 0 where vectors come in, one linear layer from `width`.
        width: Of the states.
        classes: How many.
        everywhere: Whether each place is read out, or the last only.
        features: Of each vector, where vectors come in.
    """

    def __init__(
        self,
        *bodies: nn.Module,
        symbols: int,
        width: int,
        classes: int,
        everywhere: bool = False,
        features: int = 0,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width) if features else nn.Embedding(symbols, width)
        self.bodies, self.out = nn.Sequential(*bodies), nn.Linear(width, classes)
        self.everywhere = everywhere

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        states = self.bodies(self.embed(inputs))
        logits: Tensor = self.out(states if self.everywhere else states[:, -1])
        return logits
