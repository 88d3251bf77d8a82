"""Four networks of different shape, written here so that nothing need be downloaded.

In: nothing. Out: an untrained network. They are chosen for where a step's cost lies: convolutions,
matrix products, a recurrent kernel, and, in `many`, 442 tensors of about 280 entries, where every
microsecond per tensor shows. Nothing here knows of monitors or of Lightning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Gpt", "Lstm", "many", "resnet18"]


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.around = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways."""
        out = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(out)) + self.around(x))


def resnet18() -> nn.Module:
    """Return ResNet-18 as it is used for 32 by 32 images: no pooling at the start."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)]
    layers.append(nn.ReLU())
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(inputs, outputs, stride), Residual(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Block(nn.Module):
    """Causal attention and a perceptron, each behind a layer norm and with a way around."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next layer's input, of the same shape."""
        batch, time, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, time, width))
        hidden: Tensor = functional.gelu(self.up(self.norm2(x)))
        out: Tensor = x + self.down(hidden)
        return out


class Gpt(nn.Module):
    """A language model of six blocks; the words are not shared with the output layer."""

    def __init__(self, words: int = 1000, width: int = 256, longest: int = 128) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.blocks = nn.Sequential(*(Block(width, heads=4) for _ in range(6)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score per place and word."""
        places = torch.arange(x.shape[1], device=x.device)
        scores: Tensor = self.head(self.norm(self.blocks(self.words(x) + self.places(places))))
        return scores


class Lstm(nn.Module):
    """A language model of two recurrent layers."""

    def __init__(self, words: int = 2000, width: int = 256) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.core = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score per place and word."""
        scores: Tensor = self.head(self.core(self.words(x))[0])
        return scores


class Small(nn.Module):
    """A layer norm and a small linear layer with a way around them: four tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear, self.act = nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the next layer's input, of the same shape."""
        out: Tensor = x + self.act(self.linear(self.norm(x)))
        return out


def many() -> nn.Module:
    """Return 110 small layers in a row and a head: 442 tensors."""
    return nn.Sequential(*(Small(32) for _ in range(110)), nn.Linear(32, 10))
