"""Attention in the forms that language models use: places by rotation or slope, norms, masks.

In: symbols or numbers ``(batch, places, width)``. Out: the same shape. Nothing here knows a case.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Attention", "Block", "Perceiver", "rotated"]


def rotated(vectors: Tensor) -> Tensor:
    """Turn pairs of features ``(..., places, width)`` by angles that grow with the place."""
    places, width = vectors.shape[-2:]
    speeds = 100.0 ** -torch.linspace(0.0, 1.0, width // 2)
    angles = torch.arange(places).unsqueeze(1) * speeds
    left, right = vectors.chunk(2, dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=-1)


class Attention(nn.Module):
    """Attention of places to places.

    Args:
        width: Of inputs and outputs.
        heads: How many.
        places: How a place is told: ``"rotary"``, ``"alibi"`` or ``"none"``.
        causal: Whether a place sees the past only.
    """

    def __init__(self, width: int, heads: int, places: str, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.places, self.causal = heads, places, causal
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Mix places."""
        split = self.mixed(inputs).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        if self.places == "rotary":
            query, key = rotated(query), rotated(key)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + self._bias(inputs)
        mixed: Tensor = self.out((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
        return mixed

    def _bias(self, inputs: Tensor) -> Tensor:
        steps = torch.arange(inputs.shape[1])
        past = steps.unsqueeze(1) - steps
        bias = torch.zeros(self.heads, *past.shape)
        if self.places == "alibi":
            slopes = 0.5 ** torch.arange(1.0, self.heads + 1)
            bias = -slopes[:, None, None] * past.abs()
        return bias.masked_fill(past < 0, -1e9) if self.causal else bias


class Block(nn.Module):
    """Attention and a small net, each with norms and a skip around them.

    Args:
        attention: Mixes the places.
        width: Of inputs and outputs.
        norm: Makes a norm before each part; `nn.Identity` for none.
        behind: Makes a norm behind each part, inside the skip.
        survival: Chance that a part takes place in training.
    """

    def __init__(
        self,
        attention: nn.Module,
        width: int,
        norm: type[nn.Module] = nn.LayerNorm,
        behind: type[nn.Module] = nn.Identity,
        survival: float = 1.0,
    ) -> None:
        super().__init__()
        self.survival = survival
        net = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.mix = nn.Sequential(norm(width), attention, behind(width))
        self.net = nn.Sequential(norm(width), net, behind(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Add what both parts make of the inputs to them."""
        state = inputs
        for part in (self.mix, self.net):
            if not self.training or float(torch.rand(())) < self.survival:
                state = state + part(state)
        return state


class Perceiver(nn.Module):
    """A few learned vectors that ask a set of many, then think.

    Args:
        features: Per element of the set.
        width: Of the learned vectors.
        latents: How many learned vectors.
        classes: How many.
    """

    def __init__(self, features: int, width: int, latents: int, classes: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.lift = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.LayerNorm(width))
        self.ask = nn.MultiheadAttention(width, 2, batch_first=True)
        self.think = nn.Sequential(
            *(Block(Attention(width, 2, "none", causal=False), width) for _ in range(2))
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits from a set ``(batch, elements, features)``."""
        latents = self.latents.expand(len(inputs), -1, -1)
        elements = self.lift(inputs)
        latents = latents + self.ask(latents, elements, elements, need_weights=False)[0]
        logits: Tensor = self.out(self.think(latents).mean(dim=1))
        return logits
