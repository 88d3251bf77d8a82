"""Ways in which weights begin.

In: a linear or convolutional layer. Out: nothing; its weights are overwritten and its bias, but
for `biased`, is zero.
"""

from __future__ import annotations

from torch import nn

__all__ = ["biased", "he", "normal", "xavier"]

Layer = nn.Linear | nn.Conv2d


def he(layer: Layer, *, gain: float = 1.0) -> None:
    """Keep the size of signals through ReLU, or multiply it by a gain."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    layer.weight.data *= gain
    _fill_bias(layer, 0.0)


def xavier(layer: Layer) -> None:
    """Keep the size of signals through tanh."""
    nn.init.xavier_normal_(layer.weight)
    _fill_bias(layer, 0.0)


def normal(deviation: float, layer: Layer) -> None:
    """Draw weights of a given deviation."""
    nn.init.normal_(layer.weight, std=deviation)
    _fill_bias(layer, 0.0)


def biased(bias: float, layer: Layer) -> None:
    """Begin with large biases."""
    _fill_bias(layer, bias)


def _fill_bias(layer: Layer, value: float) -> None:
    if layer.bias is not None:
        nn.init.constant_(layer.bias, value)
