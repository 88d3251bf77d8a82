"""The models of the random healthy runs but those over time, each soundly initialised.

In: what was drawn. Out: a model whose last parameters are those of its head. Nothing random is
decided here but the first weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "autoencoder",
    "cnn",
    "embedded",
    "mlp",
    "resnet",
]

ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}

GAINS: Final[Mapping[str, float]] = {"tanh": 1.0, "elu": 1.25}
"""Where the square root of two would make the signal grow."""

NORMS: Final[Mapping[str, Callable[[int], nn.Module]]] = {
    "none": lambda _channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(4, channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
}


def mlp(
    inputs: int,
    outputs: int,
    *,
    widths: Sequence[int],
    activation: str,
    bias: bool = True,
    dropout: float = 0.0,
    usual: bool = False,
) -> nn.Module:
    """Return a perceptron, or a linear model when there are no widths.

    With ``usual``, the first weights are those that torch gives.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers += [nn.Linear(inputs, width, bias=bias), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    model = nn.Sequential(*layers, nn.Linear(inputs, outputs, bias=bias))
    return model if usual else _begun(model, activation)


def autoencoder(size: int, *, width: int, code: int, activation: str) -> nn.Module:
    """Return a perceptron that gets narrow and wide again."""
    return mlp(size, size, widths=(width, code, width), activation=activation)


def cnn(*, channels: Sequence[int], activation: str, norm: str, dropout: float) -> nn.Module:
    """Return convolutions over images of 8 by 8; the second one halves them."""
    layers: list[nn.Module] = []
    before, side = 1, 8
    for index, width in enumerate(channels):
        stride = 2 if index == 1 else 1
        side //= stride
        layers += [nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=norm != "batch")]
        layers += [NORMS[norm](width), ACTIVATIONS[activation]()]
        before = width
    head = [nn.Flatten(), nn.Dropout(dropout), nn.Linear(before * side * side, 10)]
    return _begun(nn.Sequential(*layers, *head), activation)


class _Block(nn.Module):
    """Two convolutions beside a path that changes nothing."""

    def __init__(self, width: int, *, zero: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.norm = nn.BatchNorm2d(width)
        if zero:
            nn.init.zeros_(self.norm.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return images of the same size."""
        return nn.functional.relu(images + self.norm(self.inner(images)))


def resnet(*, width: int, blocks: int, zero: bool) -> nn.Module:
    """Return a residual network over images of 4 by 4; branches may begin at zero."""
    stem = [nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)]
    body = [_Block(width, zero=zero) for _ in range(blocks)]
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10)]
    return _begun(nn.Sequential(*stem, nn.ReLU(), *body, *head), "relu")


def embedded(
    tokens: int, outputs: int, *, length: int, width: int, hidden: int, sparse: bool
) -> nn.Module:
    """Return an embedding, perhaps a hidden layer, and a linear head over joined tokens."""
    if sparse:
        # Adagrad makes sparse tensors, and torch wants to hear that they go unchecked.
        torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]
    first = nn.Embedding(tokens, width, sparse=sparse)
    widths = (hidden,) if hidden else ()
    return nn.Sequential(first, mlp(length * width, outputs, widths=widths, activation="relu"))


def _begun(model: nn.Module, activation: str) -> nn.Module:
    """Begin as suits the activation: He's way, with a gain that keeps the signal's size."""
    matrices = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for module in matrices:
        gain = 1.0 if module is matrices[-1] else GAINS.get(activation, math.sqrt(2.0))
        nn.init.normal_(module.weight, std=gain / math.sqrt(module.weight[0].numel()))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return model
