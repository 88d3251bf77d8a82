"""Plain networks of any depth, whose initialisation is checked."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def stack(
    depth: int,
    activation: Callable[[], nn.Module] = nn.ReLU,
    width: int = 64,
    initialise: Callable[[Tensor], object] | None = None,
) -> nn.Sequential:
    """Return so many layers and a head of ten units."""
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for layer in model:
        if initialise is not None and isinstance(layer, nn.Linear):
            initialise(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def he(weight: Tensor) -> None:
    """Draw a weight as He et al. do for ReLU."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu")
